"""Where folders cannot be locked, as on Windows, a mark says whose an output is."""

import subprocess
import sys
from pathlib import Path

import pytest
from stored import Stored

TWO_JOBS = """
import sys
sys.modules["fcntl"] = None
from pathlib import Path
import dasksolve
from dasksolve.job import planning
from dasksolve.storage import marks

planning._SMALL, planning._BLOCKS_A_WORKER = 0, 1 << 30
a, b, out = sys.argv[1:]
assert marks.flock is None
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
def test_the_later_of_two_jobs_wins(batch: Stored) -> None:
    words = [sys.executable, "-c", TWO_JOBS, batch.a_path, batch.b_path, batch.out]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", "1", "10", "0", "997"]
    assert Path(batch.out).is_dir()
