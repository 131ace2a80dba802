"""Memory that is freed is kept for the next block, as long as a job runs, and no longer."""

import ctypes
import os
import subprocess
import sys

import pytest

from dasksolve.storage import allocator

_COUNTED = """
import resource, runpy, sys

keeping = runpy.run_path(sys.argv[1])["keeping"]

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        b"x" * (8 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

faults()
before = resident()
print(faults())
for room in (1 << 20, 1 << 30):
    with keeping(room, 2), keeping(room, 2):
        faults()
        print(faults())
print(faults(), resident() - before)
"""


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or not hasattr(ctypes.CDLL(None), "mallopt"),
    reason="another C library",
)
def test_freed_memory_is_kept_on_a_worker_of_dask_where_there_is_room() -> None:
    environment = {**os.environ, "MALLOC_TRIM_THRESHOLD_": "65536"}
    for other in ("MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"):
        environment.pop(other, None)
    words = [sys.executable, "-c", _COUNTED, str(allocator.__file__)]
    run = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    before, without_room, kept, after, left = map(int, run.stdout.split())
    pages = 10 * (8 << 20) // os.sysconf("SC_PAGESIZE")
    assert min(before, without_room, after) > 0.9 * pages
    assert kept < 0.1 * pages
    assert left < 4 << 20
