"""What may be shown of a URL, and of text with URLs in it: no password, token or signature."""

import re

_HIDDEN = "***"
_USER = re.compile(r"(?<=://)[^/?#\s'\"<>]*@")
_QUERY = re.compile(r"(?<!\bs3)(?<!\bs3a)(?<!\bgs)(?<!\bgcs)(://[^\s?'\"<>]*\?)[^\s'\"<>,;)]+")
"""There are none in a bucket: ``s3://bucket/run?1`` and ``run?2`` are two places."""
_FOR_DEVELOPERS = "\n\nDebug source:\n"
"""Before what obstore says again, over a page."""


def shown(text: object) -> str:
    """Text without what stands before the host of its URLs, and without their query strings."""
    return _QUERY.sub(rf"\1{_HIDDEN}", _USER.sub(f"{_HIDDEN}@", str(text)))


def told(error: object) -> str:
    """An error as messages tell what happened: of which kind it is, and what may be shown of it."""
    return f"{type(error).__name__}: {shown(error).partition(_FOR_DEVELOPERS)[0]}"


def cause(error: Exception) -> Exception | None:
    """What an error may be said to come from: none whose own text has a secret in it."""
    return error if shown(error) == str(error) else None
