"""Where folders cannot be locked, as on Windows, a mark says whose an output is."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest
from stored import Stored

NO_SUCH_MODULE = """
import sys
sys.modules["fcntl"] = None
"""
REFUSED = """
import ctypes, errno, fcntl, struct
# A filter of seccomp: the number of a call is loaded; flock fails, as on some network file systems.
refuse, allow = (6, 0, 0, 0x50000 | errno.EBADF), (6, 0, 0, 0x7FFF0000)
steps = (0x20, 0, 0, 0), (0x15, 0, 1, {number}), refuse, allow
filter = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
program = struct.pack("HxxxxxxQ", len(steps), ctypes.addressof(filter))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
assert libc.prctl(22, 2, program, 0, 0) == 0  # PR_SET_SECCOMP
"""
FLOCK = {"x86_64": 73, "aarch64": 32}
"""Its number, by processor."""
TWO_JOBS = """
import sys
from pathlib import Path
import dasksolve
import zarr
from dasksolve.job import planning
from dasksolve.storage import marks

planning._SMALL, planning._BLOCKS_A_WORKER = 0, 1 << 30
a, b, out = sys.argv[1:]
with marks.claimed(zarr.storage.LocalStore(out), out) as locked:
    assert not locked
seen = []

def intrude(report):
    seen.append(len(list(Path(out).glob("*.partial"))))
    if len(seen) == 1:
        dasksolve.solve_zarr(a, b, out, workers=1, overwrite=True)

try:
    dasksolve.solve_zarr(a, b, out, workers=1, progress=intrude)
except (dasksolve.BlockErrors, OSError) as error:
    print("another job has begun to write" in str(error), seen[0], len(seen))
print(len(list(Path(out).glob("*.partial"))))
print(dasksolve.check_zarr(a, b, out, workers=1).counts[dasksolve.Status.OK])
"""


@pytest.mark.slow
@pytest.mark.parametrize("without", ["module", "call"])
def test_the_later_of_two_jobs_wins(batch: Stored, without: str) -> None:
    first = NO_SUCH_MODULE
    if without == "call":
        if sys.platform != "linux" or platform.machine() not in FLOCK:
            pytest.skip("has calls of Linux refused")
        first = REFUSED.format(number=FLOCK[platform.machine()])
    words = [sys.executable, "-c", first + TWO_JOBS, batch.a_path, batch.b_path, batch.out]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", "1", "10", "0", "997"]
    assert Path(batch.out).is_dir()
