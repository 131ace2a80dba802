"""What a zarr job survives on a cluster of separate programs: dead workers, a dead scheduler."""

import gzip
import io
import logging
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import google_crc32c
import pytest
import zarr
from commands import stopped_beside
from distributed.scheduler import KilledWorker
from programs import Programs, kill
from stored import Stored, files
from zarr.codecs import GzipCodec

from dasksolve import BlockErrors, Report, solve_zarr


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Programs]:
    """A scheduler and two workers, which see nothing of where the tests run."""
    folder = tmp_path_factory.mktemp("programs")
    with Programs(folder, DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="1") as started:
        for _ in range(2):
            started.worker()
        yield started


@pytest.fixture
def undisturbed(batch: Stored, many_blocks: None, small_windows: None) -> dict[str, bytes]:
    """What the job writes if nothing happens."""
    solve_zarr(batch.a_path, batch.b_path, batch.out)
    return files(batch.out)


class Replace(logging.Handler):
    """Start a worker as soon as the job says that it has none."""

    def __init__(self, programs: Programs) -> None:
        super().__init__()
        self.programs = programs

    def emit(self, record: logging.LogRecord) -> None:
        if "has no workers; waiting" in record.getMessage() and not self.programs.workers:
            self.programs.worker()


@pytest.fixture
def replacing(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A watchful administrator."""
    monkeypatch.setattr("dasksolve.job.waiting.PATIENCE", 0.2)
    handler = Replace(programs)
    logging.getLogger("dasksolve").addHandler(handler)
    yield
    logging.getLogger("dasksolve").removeHandler(handler)


@pytest.mark.slow
@pytest.mark.usefixtures("replacing")
def test_every_worker_is_killed_and_one_is_replaced_in_mid_run(
    batch: Stored, undisturbed: dict[str, bytes], programs: Programs
) -> None:
    early: dict[str, bytes] = {}

    def disturb(report: Report) -> None:
        if report.blocks_done == 3:
            whole = files(batch.out).items()
            early.update({k: v for k, v in whole if not k.endswith(".partial")})
            for worker in list(programs.workers):
                programs.kill_worker(worker)

    with pytest.warns(UserWarning, match="no workers; waiting for some, up to 3600 s"):
        report = solve_zarr(
            batch.a_path,
            batch.b_path,
            batch.out,
            client=programs.client,
            overwrite=True,
            progress=disturb,
        )
    assert report.blocks_done == 10
    written = files(batch.out)
    assert written == undisturbed
    assert {k: v for k, v in early.items() if "/c/" in k}.items() <= written.items()


@pytest.mark.slow
def test_the_scheduler_is_killed_and_the_job_goes_on_on_another(
    batch: Stored, undisturbed: dict[str, bytes], programs: Programs, tmp_path: Path
) -> None:
    with Programs(tmp_path) as doomed:
        doomed.worker()

        def disturb(report: Report) -> None:
            if report.blocks_done == 3:
                kill(doomed.scheduler)

        with pytest.raises(ConnectionError, match=r"scheduler at tcp://.* is gone.*resume=True"):
            solve_zarr(
                batch.a_path,
                batch.b_path,
                batch.out,
                client=doomed.client,
                overwrite=True,
                progress=disturb,
            )
    report = solve_zarr(batch.a_path, batch.b_path, batch.out, client=programs.client, resume=True)
    assert report.blocks_done == 10
    assert 3 <= report.blocks_resumed < 10
    assert files(batch.out) == undisturbed


@pytest.mark.slow
def test_the_command_line_says_in_one_line_that_the_scheduler_is_gone(
    long: Stored, tmp_path: Path
) -> None:
    (tmp_path / "cluster").mkdir()
    with Programs(tmp_path / "cluster") as doomed:
        doomed.worker()
        process = stopped_beside(doomed.address, long, 3)
        kill(doomed.scheduler)
        process.send_signal(signal.SIGCONT)
        _, errors = process.communicate(timeout=240)
    assert process.returncode == 1
    assert errors.startswith("dasksolve: the scheduler at tcp://")
    assert errors.count("\n") == 1


@pytest.fixture
def bomb(batch: Stored, tmp_path: Path) -> Stored:
    """The batch with a chunk of a that unpacks to 2 GiB, in a shard, and so kills who reads it."""
    path, whole = tmp_path / "packed", (100, 5, 5)
    codecs = [GzipCodec(level=1)]
    zarr.create_array(path, data=batch.a, chunks=whole, shards=whole, compressors=codecs)
    packed = io.BytesIO()
    with gzip.open(packed, "wb", compresslevel=1) as chunk:
        for _ in range(128):
            chunk.write(bytes(16 << 20))
    index = struct.pack("<QQ", 0, packed.tell())
    check = struct.pack("<I", google_crc32c.value(index))
    (path / "c/6/0/0").write_bytes(packed.getvalue() + index + check)
    return batch._replace(a_path=str(path))


@pytest.mark.slow
def test_a_block_that_kills_its_workers_is_reported_and_the_cluster_lives(
    batch: Stored, bomb: Stored, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    (tmp_path / "cluster").mkdir()
    with Programs(
        tmp_path / "cluster", DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="1"
    ) as programs:
        for _ in range(2):
            programs.worker("--memory-limit", "700MiB")
        with pytest.raises(BlockErrors, match=r"1 of 10 blocks failed.*\n.*KilledWorker") as info:
            solve_zarr(bomb.a_path, bomb.b_path, bomb.out, client=programs.client, overwrite=True)
        assert [failure.batch_range for failure in info.value.failures] == [((600, 700),)]
        assert info.value.report.blocks_done == 9
        zarr.open_array(bomb.a_path)[600:700] = batch.a[600:700]
        report = solve_zarr(bomb.a_path, bomb.b_path, bomb.out, client=programs.client, resume=True)
    assert report.blocks_resumed == 9
    assert {k: v for k, v in files(bomb.out).items() if "/c/" in k} == {
        k: v for k, v in undisturbed.items() if "/c/" in k
    }


@pytest.mark.slow
def test_a_job_all_of_whose_blocks_kill_their_workers_is_stopped(
    bomb: Stored, many_blocks: None, tmp_path: Path
) -> None:
    chunks = Path(bomb.a_path, "c")
    for number in set(range(10)) - {6}:
        (chunks / f"{number}/0/0").unlink()
        (chunks / f"{number}/0/0").hardlink_to(chunks / "6/0/0")
    (tmp_path / "cluster").mkdir()
    with Programs(
        tmp_path / "cluster", DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="0"
    ) as programs:
        for _ in range(2):
            programs.worker("--memory-limit", "700MiB")
        with pytest.raises(RuntimeError, match=r"8 tasks one after the other died .* memory"):
            solve_zarr(bomb.a_path, bomb.b_path, bomb.out, client=programs.client)
        answers: list[int] = []
        for _ in range(3):  # each of the two workers may still be dying of a block
            programs.client.wait_for_workers(1, timeout=240)
            with suppress(KilledWorker):
                answers.append(programs.client.submit(sum, (1, 2), pure=False).result(timeout=240))
        assert 3 in answers


HELD = """
import dask.distributed, dasksolve, dasksolve.job.planning, sys

def hold(gate):
    import os
    from dasksolve.batch import eager
    from dasksolve.storage import marks

    marks.LOOK_EVERY = 5.0
    answers, solved = eager.answers, []

    def held(*problem):
        found = answers(*problem)
        solved.append(problem)
        while len(solved) > 4 and not os.path.exists(gate):
            open(gate + ".reached", "w").close()
        return found

    eager.answers = held

dasksolve.job.planning._together = lambda *_: 32
client = dask.distributed.Client(sys.argv[1])
client.run(hold, sys.argv[2])
dasksolve.solve_zarr(*sys.argv[3:], client=client)
"""
"""A job whose workers wait for a gate between solving a block, but for four, and writing it."""


@pytest.mark.slow
def test_what_a_worker_has_in_hand_of_a_killed_client_stays_out_of_another_job(
    long: Stored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dasksolve.storage.marks.LOOK_EVERY", 5.0)  # longer than the job takes
    long.a[::5] = 0
    zarr.open_array(long.a_path)[...] = long.a
    gate = tmp_path / "gate"
    (tmp_path / "cluster").mkdir()
    with Programs(tmp_path / "cluster") as programs:
        programs.worker()
        words = [programs.address, str(gate), long.a_path, long.b_path, long.out]
        client = subprocess.Popen([sys.executable, "-c", HELD, *words])
        while not Path(f"{gate}.reached").exists():
            assert client.poll() is None
        client.kill()
        client.wait()
        solve_zarr(long.a_path, long.b_path, long.out, on_singular="lstsq", overwrite=True)
        written = files(long.out)
        gate.touch()
        programs.client.submit(sum, (1, 2)).result(timeout=240)  # after what is in hand
    assert files(long.out) == written


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "message"),
    [
        pytest.param(None, "memory_limit=20.00 MiB is too small", id="by default half of it"),
        pytest.param("1GiB", "may have 40.00 MiB and holds .* --memory-limit", id="more"),
    ],
)
def test_workers_with_too_little_memory_are_refused_before_anything_is_created(
    batch: Stored, programs: Programs, given: str | None, message: str
) -> None:
    small = programs.worker("--memory-limit", "40MiB", "--no-nanny")
    try:
        with pytest.raises(ValueError, match=message):
            solve_zarr(
                batch.a_path,
                batch.b_path,
                batch.out,
                client=programs.client,
                memory_limit=given,
            )
    finally:
        programs.kill_worker(small)
    assert not Path(batch.out).exists()
