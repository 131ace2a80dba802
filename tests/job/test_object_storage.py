"""The zarr job on object storage: S3 over HTTP, a server that fails for a while, a killed job."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import fsspec
import numpy as np
import pytest
import s3fs
import zarr
from families import same_bits
from moto.server import DomainDispatcherApplication, create_backend_app
from obstore.store import S3Store
from programs import two_workers
from proxy import Proxy
from stored import Stored
from werkzeug.serving import make_server
from werkzeug.wrappers import Request, Response
from zarr.storage import LocalStore, ObjectStore, WrapperStore

import dasksolve
from dasksolve import BlockErrors, Report, Status, check_zarr, solve_zarr
from dasksolve.storage import internals, locations

BUCKET = "s3://systems"
SLOW = pytest.mark.slow


class Server:
    """An S3 server on the loopback that can be told to fail."""

    def __init__(self) -> None:
        self.s3 = DomainDispatcherApplication(create_backend_app)
        self.failing = ""
        self.answer, self.left, self.failed = 503, 0, 0
        self.requests: Counter[str] = Counter()
        self.gate: threading.Barrier | None = None
        self.lock = threading.Lock()
        self.http = make_server("127.0.0.1", 0, self, threaded=True)
        self.thread = threading.Thread(target=self.http.serve_forever)
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def fail(self, method_and_path: str, answer: int, times: int) -> None:
        """Answer so many requests that begin like this with an error."""
        self.failing, self.answer, self.left, self.failed = method_and_path, answer, times, 0

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        request = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}"
        if self.gate is not None and "/a/c/" in request:
            self.gate.wait(60)
        with self.lock:  # each request has a thread
            self.requests[environ["REQUEST_METHOD"]] += 1
            fails = self.left > 0 and request.startswith(self.failing)
            self.left -= fails
            self.failed += fails
        if fails:
            Request(environ).get_data()
            code = {503: "SlowDown", 403: "AccessDenied"}.get(self.answer, "InternalError")
            body = f"<Error><Code>{code}</Code><Message>Please try again.</Message></Error>"
            return Response(body, self.answer)(environ, start_response)
        return self.s3(environ, start_response)


@pytest.fixture(scope="session")
def started() -> Iterator[Server]:
    """One server for the whole process: s3fs goes on asking the one that it knows."""
    started = Server()
    started.thread.start()
    yield started
    started.http.shutdown()
    started.thread.join()
    started.http.server_close()


@pytest.fixture
def server(started: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The server, found as every program that speaks S3 finds its own."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", started.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    return started


@pytest.fixture
def s3(server: Server) -> Iterator[Server]:
    """The server, with an empty bucket."""
    bucket = s3fs.S3FileSystem(use_listings_cache=False)
    bucket.mkdir(BUCKET)
    yield server
    server.fail("", 0, 0)
    bucket.rm(BUCKET, recursive=True)


def happens(event: threading.Event, process: subprocess.Popen[Any]) -> bool:
    """Whether something does before a process ends."""
    while not event.wait(0.1):
        if process.poll() is not None:
            return event.is_set()
    return True


@pytest.fixture
def bucket(s3: Server, batch: Stored) -> Stored:
    """The batch, in S3."""
    group = zarr.create_group(f"{BUCKET}/data.zarr")
    group.create_array("a", data=batch.a, chunks=(100, 5, 5))
    group.create_array("b", data=batch.b, chunks=(100, 5))
    data = f"{BUCKET}/data.zarr"
    return Stored(batch.a, batch.b, f"{data}/a", f"{data}/b", f"{BUCKET}/out.zarr")


def through_obstore(url: str) -> ObjectStore[Any]:
    """What is at a URL, by a program of its own."""
    prefix, options = url.removeprefix(f"{BUCKET}/"), {"allow_http": True}
    return ObjectStore(S3Store("systems", prefix=prefix, client_options=options))


@pytest.fixture
def proxy(s3: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """What stands between a job and the server."""
    with Proxy(s3.url) as started:
        monkeypatch.setitem(fsspec.config.conf, "s3", {"endpoint_url": started.url})
        yield started


@pytest.fixture
def many(s3: Server, many_blocks: None) -> Stored:
    """A batch of a hundred blocks, in S3."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((200, 3, 3)), rng.standard_normal((200, 3))
    group = zarr.create_group(f"{BUCKET}/data.zarr")
    group.create_array("a", data=a, chunks=(2, 3, 3))
    group.create_array("b", data=b, chunks=(2, 3))
    data = f"{BUCKET}/data.zarr"
    return Stored(a, b, f"{data}/a", f"{data}/b", f"{BUCKET}/out.zarr")


def test_a_job(bucket: Stored) -> None:
    report = solve_zarr(bucket.a_path, bucket.b_path, bucket.out)
    assert report.flagged == (123, 456, 789)
    assert same_bits(bucket.x, dasksolve.solve(bucket.a, bucket.b, on_singular="nan"))
    with pytest.raises(FileExistsError, match="--resume"):
        solve_zarr(bucket.a_path, bucket.b_path, bucket.out)
    again = solve_zarr(bucket.a_path, bucket.b_path, bucket.out, resume=True)
    assert again.blocks_resumed == again.blocks
    solve_zarr(bucket.a_path, bucket.b_path, bucket.out, overwrite=True)
    assert check_zarr(bucket.a_path, bucket.b_path, bucket.out).worst_backward_error < 1e-13


@pytest.mark.slow
def test_a_url_is_one_place_however_it_is_spelled_and_is_no_pattern(bucket: Stored) -> None:
    solve_zarr(bucket.a_path, bucket.b_path, f"{BUCKET}/run1.zarr")
    for out in ("run[1].zarr", "run[1].zarr/"):
        solve_zarr(bucket.a_path, bucket.b_path, f"{BUCKET}/{out}", overwrite=out.endswith("/"))
    b = f"{BUCKET}/run[1].zarr/x"
    for out in (BUCKET, BUCKET.replace("s3:", "s3a:")):
        with pytest.raises(ValueError, match="would delete b"):
            solve_zarr(bucket.a_path, b, f"{out}/run[1].zarr/", overwrite=True)
    names = (name.rpartition("/")[2] for name in s3fs.S3FileSystem().find(BUCKET + "/run[1].zarr"))
    assert not [name for name in names if name.endswith(".partial")]
    assert check_zarr(bucket.a_path, bucket.b_path, f"{BUCKET}/run1.zarr").blocks_done


@pytest.mark.slow
@pytest.mark.usefixtures("many_blocks", "s3")
def test_a_regression() -> None:
    rng = np.random.default_rng(0)
    y, years = rng.standard_normal((12, 4, 6)), np.arange(12.0)
    y[rng.random(y.shape) < 0.2] = np.nan
    design = np.stack([np.ones(12), years, np.cos(years)], axis=1)
    data, out = f"{BUCKET}/data.zarr", f"{BUCKET}/fit.zarr"
    group = zarr.create_group(data)
    group.create_array("y", data=y, chunks=(1, 2, 6))
    group.create_array("design", data=design)
    report = dasksolve.regress_zarr(f"{data}/y", f"{data}/design", out)
    assert (report.blocks, report.chunks_read) == (2, 24)
    wanted = dasksolve.regress(y, design)
    for name in ("coef", "stderr", "rss", "count", "rcond", "status"):
        found = zarr.open_array(f"{out}/{name}", mode="r")[...]
        assert same_bits(found, getattr(wanted, name)), name
    with pytest.raises(FileExistsError, match="--resume"):
        dasksolve.regress_zarr(f"{data}/y", f"{data}/design", out)
    s3fs.S3FileSystem().rm(f"{out}/stderr/c/0/1/0")
    again = dasksolve.regress_zarr(f"{data}/y", f"{data}/design", out, resume=True)
    assert again.blocks_resumed == 1
    assert check_zarr(f"{data}/y", f"{data}/design", out).flagged == report.flagged


def test_a_job_through_obstore(bucket: Stored) -> None:
    def opened(path: str) -> ObjectStore[Any]:
        return through_obstore(f"{BUCKET}/{path}")

    a, b = (zarr.open_array(opened(f"data.zarr/{name}"), mode="r") for name in "ab")
    report = solve_zarr(a, b, opened("out.zarr"))
    assert report.flagged == (123, 456, 789)
    assert same_bits(bucket.x, dasksolve.solve(bucket.a, bucket.b, on_singular="nan"))
    with pytest.raises(FileExistsError, match="--resume"):
        solve_zarr(a, b, opened("out.zarr"))
    s3fs.S3FileSystem().rm(f"{bucket.out}/x/c/0/0")
    again = solve_zarr(a, b, opened("out.zarr"), resume=True)
    assert again.blocks_resumed == again.blocks - 1
    with pytest.raises(ValueError, match="would delete b"):  # under its other name
        solve_zarr(a, f"{bucket.out}/x", opened("out.zarr"), overwrite=True)
    solve_zarr(a, b, opened("out.zarr"), overwrite=True)
    assert check_zarr(a, b, opened("out.zarr")).worst_backward_error < 1e-13


@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_outputs_that_are_written_at_once_are_all_seen_in_the_group_around_them(
    bucket: Stored,
) -> None:
    around = f"{BUCKET}/all.zarr"
    zarr.create_group(around)
    zarr.consolidate_metadata(around)
    killed = f"{around}/zarr.json.{'0' * 32}.partial"  # left by who was
    s3fs.S3FileSystem().pipe(killed, b"")
    outs = [f"out{i}" for i in range(4)]
    with ThreadPoolExecutor(4) as pool:
        inputs = bucket.a_path, bucket.b_path
        [*pool.map(lambda out: solve_zarr(*inputs, f"{around}/{out}", workers=1), outs)]
    assert {*zarr.open_group(around, mode="r", use_consolidated=True)} == {*outs}
    left = s3fs.S3FileSystem(use_listings_cache=False).ls(around)
    assert {name.rpartition("/")[2] for name in left} == {"zarr.json", *outs}


@pytest.mark.slow
@pytest.mark.usefixtures("many_blocks")
def test_more_requests_are_on_their_way_than_botocore_has_connections(
    store: Callable[..., Stored], s3: Server
) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((64, 2, 2)), rng.standard_normal((64, 2))
    local, group = store(a, b, (1, 2, 2), (64, 2)), zarr.create_group(f"{BUCKET}/data.zarr")
    group.create_array("a", data=a, chunks=(1, 2, 2))
    s3.gate = threading.Barrier(32)
    try:
        solve_zarr(f"{BUCKET}/data.zarr/a", local.b_path, local.out, workers=2)
    finally:
        s3.gate = None
    assert same_bits(local.x, dasksolve.solve(a, b))


@pytest.mark.slow
@pytest.mark.parametrize("option", ["", "resume", "overwrite"])
def test_a_job_that_was_killed_before_it_created_anything(
    bucket: Stored, s3: Server, option: str
) -> None:
    s3fs.S3FileSystem().touch(f"{bucket.out}/0123abcd.{'0' * 32}.partial")  # its mark
    options = {option: True} if option else {}
    report = solve_zarr(bucket.a_path, bucket.b_path, bucket.out, **options)
    assert report.blocks_done == report.blocks
    assert not [key for key in s3fs.S3FileSystem().find(bucket.out) if key.endswith(".partial")]


@pytest.mark.slow
@pytest.mark.parametrize("blocks", [72, 1000])
@pytest.mark.usefixtures("many_blocks")
def test_a_block_takes_four_requests(
    s3: Server, blocks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dasksolve.storage.marks.LOOK_EVERY", 3600.0)  # longer than a job takes

    def counted(blocks: int) -> Counter[str]:
        rng = np.random.default_rng(0)
        group = zarr.create_group(f"{BUCKET}/{blocks}.zarr")
        group.create_array("a", data=rng.standard_normal((blocks, 2, 2)), chunks=(1, 2, 2))
        group.create_array("b", data=rng.standard_normal((blocks, 2)), chunks=(1, 2))
        s3.requests.clear()
        data = f"{BUCKET}/{blocks}.zarr"
        report = solve_zarr(f"{data}/a", f"{data}/b", f"{BUCKET}/out{blocks}.zarr")
        assert (report.chunks_read, report.chunks_written) == (2 * blocks, 2 * blocks)
        counts = Counter(s3.requests)
        assert counts.pop("HEAD") <= 4  # x and status of two blocks
        return counts

    few, many = counted(8), counted(blocks)
    assert many - few == {"GET": 2 * (blocks - 8), "PUT": 2 * (blocks - 8)}
    assert few.total() - 4 * 8 <= 16  # to open, to create, and in the end


@pytest.mark.slow
def test_a_chunk_that_somebody_else_deleted_is_solved_again(bucket: Stored, s3: Server) -> None:
    solve_zarr(bucket.a_path, bucket.b_path, bucket.out)
    solve_zarr(bucket.a_path, bucket.b_path, bucket.out, resume=True)  # everything was listed
    elsewhere = f"import s3fs; s3fs.S3FileSystem().rm('{bucket.out}/x/c/0/0')"
    subprocess.run([sys.executable, "-c", elsewhere], check=True)
    report = solve_zarr(bucket.a_path, bucket.b_path, bucket.out, resume=True)
    assert report.blocks_resumed < report.blocks
    assert same_bits(bucket.x, dasksolve.solve(bucket.a, bucket.b, on_singular="nan"))


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        pytest.param("GET /systems/data.zarr/a/c/", 503, id="chunks of a"),
        pytest.param("GET /systems/data.zarr/b/c/", 500, id="chunks of b"),
        pytest.param("PUT /systems/out.zarr/x/c/", 503, id="chunks of x", marks=SLOW),
        pytest.param("PUT /systems/out.zarr/status/c/", 500, id="chunks of status", marks=SLOW),
    ],
)
def test_a_server_that_fails_for_a_while_is_asked_again(
    bucket: Stored, s3: Server, request_: str, answer: int
) -> None:
    s3.fail(request_, answer, 3)
    report = solve_zarr(bucket.a_path, bucket.b_path, bucket.out)
    assert s3.failed == 3
    assert (report.blocks_done, report.chunks_missing) == (report.blocks, 0)
    assert same_bits(bucket.x, dasksolve.solve(bucket.a, bucket.b, on_singular="nan"))


@pytest.mark.slow
@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.usefixtures("many_blocks")
def test_a_server_that_goes_on_failing_is_no_missing_chunk(
    bucket: Stored, s3: Server, strict: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    retries = {"config_kwargs": {"retries": {"total_max_attempts": 1}}}
    monkeypatch.setitem(fsspec.config.conf, "s3", retries)  # not eight seconds of them
    s3.fail("GET /systems/data.zarr/a/c/6/", 500, 1 << 30)
    with pytest.raises(BlockErrors, match=r"cannot read chunk c/6/0/0 of a \(.*try again") as info:
        solve_zarr(bucket.a_path, bucket.b_path, bucket.out, strict=strict)
    assert [failure.batch_range for failure in info.value.failures] == [((600, 700),)]
    assert info.value.report.counts[Status.PENDING] == 100
    s3.fail("", 0, 0)
    assert solve_zarr(bucket.a_path, bucket.b_path, bucket.out, resume=True).blocks_resumed == 9
    assert same_bits(bucket.x, dasksolve.solve(bucket.a, bucket.b, on_singular="nan"))


@pytest.mark.slow
@pytest.mark.parametrize("answer", [503, 429])
def test_a_server_that_is_busy_for_ten_seconds_slows_a_job_down(
    many: Stored, proxy: Proxy, answer: int
) -> None:
    proxy.refuse(answer, 10.0, "PUT /systems/out.zarr/x/c/2")
    report = solve_zarr(many.a_path, many.b_path, many.out)
    assert proxy.refused > 0
    assert report.blocks_done == report.blocks == 100
    assert report.seconds > 10
    assert same_bits(many.x, dasksolve.solve(many.a, many.b))


@pytest.mark.slow
@pytest.mark.parametrize(
    "request_",
    ["GET /systems/data.zarr/a/c/7", "PUT /systems/out.zarr/x/c/7", "HEAD /systems/out.zarr/"],
)
def test_a_request_that_is_never_answered_is_given_up_and_asked_again(
    many: Stored, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, request_: str
) -> None:
    options = {**fsspec.config.conf["s3"], "config_kwargs": {"read_timeout": 2}}
    monkeypatch.setitem(fsspec.config.conf, "s3", options)
    proxy.be_silent(request_, 1)
    report = solve_zarr(many.a_path, many.b_path, many.out)
    assert proxy.unanswered == 0
    assert report.blocks_done == report.blocks
    assert same_bits(many.x, dasksolve.solve(many.a, many.b))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("request_", "told"),
    [
        ("GET /systems/data.zarr/a/c/7/", "cannot read chunk c/7/0/0 of a"),
        ("PUT /systems/out.zarr/x/c/0/", "cannot write x/c/0/0"),
        ("GET /systems/data.zarr/a/zarr.json", "a: cannot open s3://"),
    ],
)
def test_a_request_that_is_never_answered_is_repeated_as_often_as_was_said(
    bucket: Stored, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, request_: str, told: str
) -> None:
    patience = {"read_timeout": 2, "retries": {"mode": "legacy", "max_attempts": 1}}
    options = {**fsspec.config.conf["s3"], "config_kwargs": patience}
    monkeypatch.setitem(fsspec.config.conf, "s3", options)
    proxy.be_silent(request_, 1000)
    with pytest.raises(
        (BlockErrors, OSError), match=rf"{told}.*: ReadTimeoutError: .* \(2 attempts\)"
    ):
        solve_zarr(bucket.a_path, bucket.b_path, bucket.out)
    assert proxy.unanswered == 998
    proxy.be_silent(request_, 0)
    solve_zarr(bucket.a_path, bucket.b_path, bucket.out, resume=True)
    assert same_bits(bucket.x, dasksolve.solve(bucket.a, bucket.b, on_singular="nan"))


HUNDRED_BLOCKS = """
import sys, dasksolve, dasksolve.job.planning as planning
planning._SMALL, planning._BLOCKS_A_WORKER = 0, 1 << 30
if __name__ == "__main__":
    dasksolve.solve_zarr(*sys.argv[1:], resume=True)
"""


@pytest.mark.slow
def test_a_job_far_away_that_is_killed_again_and_again_writes_the_same_bits(
    many: Stored, proxy: Proxy
) -> None:
    proxy.latency = 0.05
    environment = {**os.environ, "AWS_ENDPOINT_URL": proxy.url}
    words = [sys.executable, "-c", HUNDRED_BLOCKS, many.a_path, many.b_path, many.out]
    # All blocks are read and x is written before the first status: at first stop after that.
    for requests in (360, *np.random.default_rng(0).integers(1, 300, 7)):
        came = proxy.after(int(requests))
        process = subprocess.Popen(words, env=environment)
        assert happens(came, process)
        process.kill()
        process.wait()
    report = solve_zarr(many.a_path, many.b_path, many.out, resume=True)
    assert 0 < report.blocks_resumed < report.blocks == 100
    assert same_bits(many.x, dasksolve.solve(many.a, many.b))


class Held(WrapperStore[Any]):
    """A store that holds back all chunks but the first, until it is told to let go."""

    def __init__(self, path: str) -> None:
        super().__init__(LocalStore(path, read_only=True))
        self.free = asyncio.Event()

    async def get(self, key: str, *arguments: Any, **options: Any) -> Any:
        if key.startswith("c/") and not key.startswith("c/0/"):
            await asyncio.wait_for(self.free.wait(), 60)
        return await super().get(key, *arguments, **options)

    async def let_go(self) -> None:
        self.free.set()


@pytest.mark.slow
@pytest.mark.usefixtures("many_blocks")
def test_the_later_of_two_jobs_on_one_output_wins_and_the_first_stops(
    batch: Stored, bucket: Stored
) -> None:
    store = Held(batch.a_path)

    def second(report: Report) -> None:
        if report.blocks_done == 1:
            later = {"on_singular": "lstsq", "overwrite": True}
            assert solve_zarr(bucket.a_path, bucket.b_path, bucket.out, **later).blocks_done == 10
            internals.run(store.let_go())

    held = zarr.open_array(store, mode="r")
    with pytest.raises(BlockErrors, match="another job has begun to write to") as info:
        solve_zarr(held, bucket.b_path, bucket.out, workers=1, progress=second)
    assert info.value.report.blocks_done == 1
    assert same_bits(bucket.x, dasksolve.solve(bucket.a, bucket.b, on_singular="lstsq"))


@pytest.mark.slow
@pytest.mark.usefixtures("many_blocks")
def test_workers_write_to_the_same_bucket(bucket: Stored) -> None:
    # Workers of their own, which inherit the environment that names the server.
    with two_workers() as client:
        solve_zarr(bucket.a_path, bucket.b_path, bucket.out, client=client)
    assert same_bits(bucket.x, dasksolve.solve(bucket.a, bucket.b, on_singular="nan"))


@pytest.mark.slow
def test_a_worker_process_asks_for_little_besides_its_blocks(many: Stored, s3: Server) -> None:
    solve_zarr(many.a_path, many.b_path, many.out)
    counts = []
    with two_workers() as distant:
        for client in (None, distant):
            s3.requests.clear()
            how = {"client": client, "overwrite": True}
            seconds = solve_zarr(many.a_path, many.b_path, many.out, **how).seconds
            counts.append(Counter(s3.requests))
    alone, together = counts
    gets, heads = (together.pop(kind) - alone.pop(kind) for kind in ("GET", "HEAD"))
    assert together == alone
    # Both workers look at three documents and two files as they end; that of the group is read
    # once more where it was seen a second ago.
    assert gets <= 3 + 1
    # a, b and the mark; the mark once a second; in the end, by this process, once more
    assert heads <= 2 + 2 * (3 + seconds) + 1


@pytest.mark.slow
def test_a_killed_job_is_resumed_from_the_command_line(bucket: Stored, s3: Server) -> None:
    words = ["solve", bucket.a_path, bucket.b_path, bucket.out, "--workers", "8"]
    started, killed = threading.Event(), threading.Event()
    put = s3.s3

    def watch(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        answer = list(put(environ, start_response))
        if environ["REQUEST_METHOD"] == "PUT" and "/status/c/" in environ["PATH_INFO"]:
            started.set()
            killed.wait()  # it may be the last
        return answer

    s3.s3 = watch
    process = subprocess.Popen([sys.executable, "-m", "dasksolve.cli", *words])
    assert happens(started, process)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    killed.set()
    s3.s3 = put
    run = subprocess.run(
        [sys.executable, "-m", "dasksolve.cli", *words, "--resume", "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 3, run.stderr
    report = json.loads(run.stdout)
    assert report["blocks_done"] == report["blocks"]
    assert report["blocks_resumed"] >= 1
    assert same_bits(bucket.x, dasksolve.solve(bucket.a, bucket.b, on_singular="nan"))


@pytest.mark.slow
def test_a_place_that_cannot_be_looked_into_is_named(
    batch: Stored, s3: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    retries = {"config_kwargs": {"retries": {"total_max_attempts": 1}}}
    monkeypatch.setitem(fsspec.config.conf, "s3", retries)
    s3.fail("GET /systems", 500, 1 << 30)
    with pytest.raises(OSError, match=rf"cannot look into {BUCKET}/out.zarr: .* try again"):
        solve_zarr(batch.a_path, batch.b_path, f"{BUCKET}/out.zarr")


@pytest.mark.parametrize(
    ("request_", "options", "told"),
    [
        pytest.param("PUT {}/x/c/0", {}, "cannot write x/c/0/0 in {}: ", id="x"),
        pytest.param("PUT {}/status/c/0", {}, "cannot write status/c/0 in {}: ", id="status"),
        pytest.param("PUT {}/x/zarr", {}, "cannot write x/zarr.json in {}: ", id="metadata"),
        pytest.param(
            "GET {}/zarr", {"resume": True}, "cannot read zarr.json in {}: ", id="journal"
        ),
    ],
)
@pytest.mark.parametrize("opened", [str, through_obstore], ids=["s3fs", "obstore"])
def test_a_file_of_an_output_that_a_server_refuses_is_named(
    bucket: Stored,
    s3: Server,
    opened: Callable[[str], Any],
    request_: str,
    options: dict[str, bool],
    told: str,
) -> None:
    if options:
        solve_zarr(bucket.a_path, bucket.b_path, bucket.out)
    out = opened(bucket.out)
    s3.fail(request_.format("/systems/out.zarr"), 403, 1 << 30)
    with pytest.raises((BlockErrors, OSError)) as info:
        solve_zarr(bucket.a_path, bucket.b_path, out, **options)
    place = out if isinstance(out, str) else locations.of(out)
    assert told.format(place) in str(info.value)
    assert "Please try again" in str(info.value)
    assert "Debug source" not in str(info.value)


def test_a_question_mark_is_part_of_a_key(s3: Server) -> None:
    systems = np.eye(3) + np.zeros((4, 1, 1)), 2 * np.eye(3) + np.zeros((4, 1, 1))
    for run, a in enumerate(systems, 1):
        group = zarr.create_group(f"{BUCKET}/run?{run}/data.zarr")
        group.create_array("a", data=a, chunks=(2, 3, 3))
        group.create_array("b", data=np.ones((4, 3)), chunks=(2, 3))
    a, b, out = (f"{BUCKET}/run?1/{name}" for name in ("data.zarr/a", "data.zarr/b", "out"))
    solve_zarr(a, b, out)
    assert (zarr.open_array(f"{out}/x", mode="r")[...] == 1).all()
    other = a.replace("1", "2")
    with pytest.raises(ValueError, match=r"a.location was '.*run\?1/.*, is now '.*run\?2/"):
        solve_zarr(other, b, out, resume=True)


@pytest.mark.slow
def test_a_server_that_was_never_there_is_told_of_soon(
    batch: Stored, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as deaf:  # nobody else has its port meanwhile, and it does not listen
        deaf.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        monkeypatch.setitem(fsspec.config.conf, "s3", {"endpoint_url": nobody})
        began = time.monotonic()
        with pytest.raises(OSError, match=rf"a: cannot open {BUCKET}/a: .*connect.*{nobody}"):
            solve_zarr(f"{BUCKET}/a", batch.b_path, batch.out)
        with pytest.raises(OSError, match=rf"cannot look into {BUCKET}/out: .*connect.*{nobody}"):
            solve_zarr(batch.a_path, batch.b_path, f"{BUCKET}/out")
        assert time.monotonic() - began < 60  # and not after some 130 of retries


@pytest.mark.slow
def test_a_server_that_is_gone_is_told_without_a_traceback(bucket: Stored) -> None:
    retries = {"config_kwargs": {"retries": {"total_max_attempts": 1}}}
    words = ["solve", bucket.a_path, bucket.b_path, bucket.out, "--workers", "8"]
    doomed = Server()  # of the same bucket
    asked, gone, answer = threading.Event(), threading.Event(), doomed.s3

    def hold(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] == "PUT" and "/x/c/" in environ["PATH_INFO"]:
            asked.set()
            gone.wait()
        return answer(environ, start_response)

    doomed.s3 = hold
    doomed.thread.start()
    process = subprocess.Popen(
        [sys.executable, "-m", "dasksolve.cli", *words],
        env={**os.environ, "AWS_ENDPOINT_URL": doomed.url, "FSSPEC_S3": json.dumps(retries)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert happens(asked, process)
    doomed.http.shutdown()
    doomed.thread.join()
    doomed.http.server_close()
    gone.set()
    _, errors = process.communicate()
    assert process.returncode == 1
    said, *blocks = errors.splitlines()
    assert re.match(r"dasksolve: \d of \d+ blocks? failed; .*--resume", said)
    assert all(re.match(r"  block \d+ \[.*\]: .*Could not connect", line) for line in blocks), (
        errors
    )
    assert solve_zarr(bucket.a_path, bucket.b_path, bucket.out, resume=True).blocks_resumed < 10
    assert same_bits(bucket.x, dasksolve.solve(bucket.a, bucket.b, on_singular="nan"))
