"""A proxy that makes an HTTP server on the loopback far away, busy or silent, as it is told."""

import asyncio
import re
import threading
import time
from collections import Counter
from typing import Any

STEP = 256 << 10  # bytes that go on their way at a time
BUSY = {429: "Too Many Requests", 503: "Slow Down"}


class Proxy:
    """Stands before a server; requests go to `url` instead."""

    def __init__(self, server: str, latency: float = 0.0, bandwidth: float = 0.0) -> None:
        """Let each answer wait `latency` seconds; bytes a second of each connection, 0: any."""
        self.host, self.port = re.fullmatch(r"http://(.+):(\d+)", server).groups()
        self.latency, self.bandwidth = latency, bandwidth
        self.requests: Counter[str] = Counter()
        self.answer, self.busy_from, self.busy_for, self.busy_until = 503, "", 0.0, 0.0
        self.refused = 0
        self.silent_about, self.unanswered = "", 0
        self.awaited, self.came = 0, threading.Event()
        self.serving: dict[asyncio.Task[None], Any] = {}
        self.started = threading.Event()
        self.thread = threading.Thread(target=lambda: asyncio.run(self._main()))

    def __enter__(self) -> "Proxy":
        self.thread.start()
        assert self.started.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self.ended.set)
        self.thread.join()

    def after(self, requests: int) -> threading.Event:
        """What is set once so many more have come."""
        self.awaited, self.came = sum(self.requests.values()) + requests, threading.Event()
        return self.came

    def refuse(self, answer: int, seconds: float, method_and_path: str) -> None:
        """Tell everybody to slow down for so long, from the first request that begins like this."""
        self.answer, self.busy_for, self.busy_from = answer, seconds, method_and_path

    def be_silent(self, method_and_path: str, requests: int) -> None:
        """Never answer so many requests that begin like this."""
        self.silent_about, self.unanswered = method_and_path, requests

    async def _main(self) -> None:
        self.loop, self.ended = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0, limit=1 << 20)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self.started.set()
        await self.ended.wait()
        server.close()
        for task, writer in list(self.serving.items()):
            writer.transport.abort()
            task.cancel()
        await asyncio.gather(*self.serving, return_exceptions=True)
        await asyncio.sleep(0)  # until all are closed

    def _connected(self, reader: Any, writer: Any) -> None:
        task = self.loop.create_task(self._serve(reader, writer))
        self.serving[task] = writer
        task.add_done_callback(self.serving.pop)

    async def _serve(self, reader: Any, writer: Any) -> None:
        try:
            while True:
                await self._handle(await reader.readuntil(b"\r\n\r\n"), reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has hung up
        finally:
            writer.transport.abort()

    async def _handle(self, head: bytes, reader: Any, writer: Any) -> None:
        fields, expects = _without(head, "Expect")
        if expects is not None:
            await asyncio.sleep(self.latency)
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        began = self.loop.time()
        body = await reader.readexactly(int(_without(head, "Content-Length")[1] or 0))
        await self._wait(began, len(body))
        request = b" ".join(head.split(b" ", 2)[:2]).decode()
        self.requests[request.partition(" ")[0]] += 1
        if sum(self.requests.values()) >= self.awaited:
            self.came.set()
        await asyncio.sleep(self.latency)
        if self.unanswered and request.startswith(self.silent_about):
            self.unanswered -= 1
            await self.ended.wait()
        if self.busy_from and request.startswith(self.busy_from):
            self.busy_until, self.busy_from = time.monotonic() + self.busy_for, ""
        if time.monotonic() < self.busy_until:
            self.refused += 1
            await self._send(writer, self._refusal(request))
        else:
            await self._send(writer, await self._asked(fields, body, request))

    def _refusal(self, request: str) -> bytes:
        text = BUSY[self.answer]
        body = (
            ""
            if request.startswith("HEAD")
            else f"<Error><Code>{text.replace(' ', '')}</Code><Message>{text}.</Message></Error>"
        )
        return (
            f"HTTP/1.1 {self.answer} {text}\r\nContent-Type: application/xml\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}"
        ).encode()

    async def _asked(self, fields: bytes, body: bytes, request: str) -> bytes:
        """What the server answers, over a connection of its own."""
        reader, writer = await asyncio.open_connection(self.host, self.port, limit=1 << 26)
        try:
            writer.write(_without(fields, "Connection")[0][:-2] + b"Connection: close\r\n\r\n")
            writer.write(body)
            answer = await reader.read()
        finally:
            writer.close()
        head, _, content = answer.partition(b"\r\n\r\n")
        head = _without(head + b"\r\n\r\n", "Connection")[0]
        framed = any(_without(head, name)[1] for name in ("Content-Length", "Transfer-Encoding"))
        if not framed and not request.startswith("HEAD"):
            head = head[:-2] + f"Content-Length: {len(content)}\r\n\r\n".encode()
        return head + content

    async def _send(self, writer: Any, answer: bytes) -> None:
        began, view = self.loop.time(), memoryview(answer)
        for start in range(0, len(view), STEP):
            writer.write(view[start : start + STEP])
            await writer.drain()
            await self._wait(began, start + STEP)

    async def _wait(self, began: float, sent: int) -> None:
        """Until so many bytes may have been sent."""
        if self.bandwidth and sent > STEP:
            await asyncio.sleep(began + sent / self.bandwidth - self.loop.time())


def _without(head: bytes, name: str) -> tuple[bytes, str | None]:
    """The head of a request or answer without a field, and that field."""
    pattern = rb"\r\n" + name.encode() + rb": *([^\r]*)"
    found = re.search(pattern, head, re.IGNORECASE)
    if found is None:
        return head, None
    return head[: found.start()] + head[found.end() :], found[1].decode()
