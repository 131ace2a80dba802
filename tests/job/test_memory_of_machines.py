"""What a process is told of its memory: in containers, and where there is no /proc."""

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from dasksolve.job import memory

GIB, MIB = 1 << 30, 1 << 20
FULL_OF_FILES = {
    "memory.max": f"{GIB}\n",
    "memory.high": "max\n",
    "memory.current": f"{GIB - 4 * MIB}\n",
    "memory.stat": f"anon {100 * MIB}\ninactive_file {500 * MIB}\nactive_file {300 * MIB}\n",
}
FULL_OF_FILES_V1 = {
    "memory.limit_in_bytes": f"{GIB}\n",
    "memory.usage_in_bytes": f"{GIB - 4 * MIB}\n",
    "memory.stat": f"active_file 1\ntotal_inactive_file {8 * MIB}\ntotal_active_file {792 * MIB}\n",
}
ROOT_V1 = {"memory.limit_in_bytes": "9223372036854771712\n", "memory.usage_in_bytes": "5\n"}
V1_LINES = "5:cpu,cpuacct:/other\n4:memory:/slurm/job_7/step_0\n0::/\n"


@pytest.mark.parametrize(
    ("lines", "tree", "free"),
    [
        pytest.param("0::/\n", {"": FULL_OF_FILES}, 804 * MIB, id="a container, version 2"),
        pytest.param(
            "0::/user.slice/a.scope\n",
            {"user.slice/a.scope": {"memory.max": "max\n"}, "user.slice": FULL_OF_FILES},
            804 * MIB,
            id="the cgroup around that of the process has the limit",
        ),
        pytest.param(
            "0::/a/b\n",
            {
                "a": FULL_OF_FILES,
                "a/b": {**FULL_OF_FILES, "memory.high": f"{GIB - 50 * MIB}\n"},
            },
            754 * MIB,
            id="the least of all limits",
        ),
        pytest.param(
            "0::/docker/of/the/host\n", {"": FULL_OF_FILES}, 804 * MIB, id="the path of the host"
        ),
        pytest.param("0::/../sibling\n", {"sibling": FULL_OF_FILES}, 804 * MIB, id="beside"),
        pytest.param(
            V1_LINES,
            {"memory": ROOT_V1, "memory/slurm/job_7": FULL_OF_FILES_V1},
            804 * MIB,
            id="Slurm, version 1",
        ),
        pytest.param(
            "4:memory:/docker/of/the/host\n",
            {"memory": FULL_OF_FILES_V1},
            804 * MIB,
            id="a container, version 1",
        ),
        pytest.param(
            "4:memory:/\n0::/unit\n",
            {"memory": ROOT_V1, "unified/unit": FULL_OF_FILES},
            804 * MIB,
            id="both versions",
        ),
        pytest.param("", {"": FULL_OF_FILES}, 804 * MIB, id="/proc does not say"),
        pytest.param(
            "0::/\n",
            {"": {"memory.max": f"{GIB}\n", "memory.current": f"{2 * GIB}\n"}},
            0,
            id="more in use than allowed",
        ),
        pytest.param("0::/\n", {"": {"memory.max": "max\n"}}, None, id="no limit"),
        pytest.param("nonsense\n", {}, None, id="no cgroups"),
    ],
)
def test_page_cache_of_a_cgroup_is_free(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lines: str,
    tree: dict[str, dict[str, str]],
    free: int | None,
) -> None:
    machine = 1 << 40

    class Machine:
        available = machine

    monkeypatch.setattr(psutil, "virtual_memory", Machine)
    monkeypatch.setattr(memory, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(memory, "_CGROUP", tmp_path / "cgroup")
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cgroup").write_text(lines)
    for folder, files in tree.items():
        for name, text in files.items():
            path = tmp_path / "cgroup" / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    assert memory.available() == (machine if free is None else free)


PEAK = """
import sys
import psutil
if sys.argv[2] == "Windows":
    sys.modules["resource"] = None
from pathlib import Path
from dasksolve.job import memory

if sys.argv[1] == "hidden":
    memory._PROC = Path("/nowhere")
if sys.argv[2] == "Windows":  # what its psutil has beside rss
    class Known:
        rss, peak_wset = memory.resident(), 123 << 20
    psutil.Process.memory_info = lambda self: Known
    assert memory.peak() == 123 << 20
    raise SystemExit
before = memory.Gauge()
first = bytearray(80 << 20)
assert before.highest() > 75 << 20, before.highest()
del first
late = memory.Gauge()
second = bytearray(20 << 20)
assert late.highest() > 18 << 20
del second
print(late.highest() >> 20)
"""


@pytest.mark.parametrize(
    ("proc", "system"),
    [
        ("there", "Linux"),
        pytest.param("hidden", "macOS", marks=pytest.mark.slow),
        ("hidden", "Windows"),
    ],
)
def test_the_peak_is_known_without_proc(proc: str, system: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PEAK, proc, system], capture_output=True, text=True, check=True
    )
    if system != "Windows":  # a peak of the past that cannot be reset is not that of a later job
        assert 18 <= int(done.stdout) < 40
