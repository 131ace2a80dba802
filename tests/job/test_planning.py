"""The plan: integers in, a record out."""

import itertools
import math
import re
import time
import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dasksolve.batch.problem import Problem, describe
from dasksolve.job.plan import COMPILING, LOADING, OVERHEAD, Needs, Plan
from dasksolve.job.planning import block_memory, make_plan
from dasksolve.job.systems import needs
from dasksolve.storage.layout import Held, Layout

MIB = 1 << 20
F8 = np.dtype(np.float64)


def posed(a: Layout, b: Layout) -> Problem:
    return describe(a.shape, F8, b.shape, F8)


def vectors(count: int, n: int, chunk: int) -> tuple[Layout, Layout]:
    return Layout((count, n, n), (chunk, n, n), 2, 8), Layout((count, n), (chunk, n), 1, 8)


def plan(a: Layout, b: Layout, limit: int = 1 << 30, workers: int = 2, **options: object) -> Plan:
    return make_plan(needs(posed(a, b), a, b), memory_limit=limit, workers=workers, **options)


@pytest.mark.parametrize(
    ("count", "n", "chunk", "expected"),
    [
        pytest.param(10**7, 8, 1000, 29000, id="chunks joined up to 16 MiB"),
        pytest.param(10**7, 8, 32768, 32768, id="one chunk above the target stays whole"),
        pytest.param(32000, 8, 1000, 2000, id="a small batch leaves each worker several blocks"),
        pytest.param(10, 3, 100, 10, id="a chunk larger than the batch"),
        pytest.param(1, 3, 1, 1, id="one system"),
    ],
)
def test_blocks_are_whole_chunks(count: int, n: int, chunk: int, expected: int) -> None:
    assert plan(*vectors(count, n, chunk)).block_shape == (expected,)


@pytest.mark.parametrize("workers", [1, 2, 16])
@pytest.mark.parametrize("n", [2, 32, 200])
@pytest.mark.parametrize("chunk_bytes", [MIB, 16 * MIB, 128 * MIB])
@pytest.mark.parametrize("limit", [128 * MIB, 256 * MIB, 1024 * MIB])
def test_the_plan_stays_under_its_limit_or_refuses(
    limit: int, chunk_bytes: int, n: int, workers: int
) -> None:
    layouts = vectors(10**6, n, chunk_bytes // (8 * n * n))
    try:
        made = plan(*layouts, limit=limit, workers=workers)
    except ValueError as error:
        assert "is too small" in str(error)  # noqa: PT017  both outcomes are right, by the numbers
        assert LOADING + OVERHEAD + 4 * chunk_bytes > limit
    else:
        assert made.memory <= limit
        assert 1 <= made.workers <= workers


def test_a_tight_limit_takes_fewer_workers_before_it_refuses() -> None:
    layouts = vectors(10**6, 8, 16 * MIB // 512)
    assert plan(*layouts, limit=1024 * MIB, workers=2).workers == 2
    assert plan(*layouts, limit=140 * MIB, workers=2).workers == 1


def test_workers_that_are_not_ours_to_lower_are_refused() -> None:
    layouts = vectors(10**6, 8, 16 * MIB // 512)
    with pytest.raises(ValueError, match="2 at a time"):
        plan(*layouts, limit=140 * MIB, workers=2, fixed_workers=True)


def test_a_chunk_that_does_not_fit_is_refused_with_the_numbers_and_a_way_out() -> None:
    layouts = vectors(10**6, 200, 128 * MIB // (8 * 40000))
    with pytest.raises(ValueError, match=r"127\.87 MiB of a.*rechunk\(\(52, 200, 200\)\)"):
        plan(*layouts, limit=256 * MIB)


@pytest.mark.parametrize("limit", [MIB, LOADING + OVERHEAD])
@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("chunk", [1, 10**5])
def test_the_limit_that_a_refusal_names_is_enough(chunk: int, workers: int, limit: int) -> None:
    options = {"workers": workers, "fixed_workers": True}
    with pytest.raises(ValueError, match="is too small") as info:
        plan(*vectors(10**6, 8, chunk), limit=limit, **options)
    found = re.search(r"(\d+) MiB in all", str(info.value))
    assert found is not None
    assert plan(*vectors(10**6, 8, chunk), limit=int(found[1]) * MIB, **options)


def test_a_kernel_is_compiled_apart_where_there_is_no_room_for_it() -> None:
    layouts = vectors(10**6, 8, 16 * MIB // 512)
    assert not plan(*layouts, limit=256 * MIB).compiles_apart
    assert plan(*layouts, limit=200 * MIB).compiles_apart
    in_the_process = plan(*layouts, limit=256 * MIB, cached=False)
    assert in_the_process.base_memory == OVERHEAD + COMPILING
    assert not in_the_process.compiles_apart
    with pytest.raises(ValueError, match=r"the job itself 148\.00 MiB"):
        plan(*layouts, limit=180 * MIB, cached=False)


@pytest.mark.parametrize(
    ("options", "systems", "expected"),
    [
        pytest.param({"plain": True}, 10, Held(1071, 0, 0, 0), id="the stored chunk"),
        pytest.param({"in_place": True}, 10, Held(1000, 1071, 0, 0), id="decoded in place"),
        pytest.param({}, 10, Held(1071, 0, 1000, 0), id="decoded apart"),
        pytest.param({"plain": True}, 30, Held(3000, 1071, 0, 0), id="three stored chunks"),
        pytest.param({"in_place": True}, 30, Held(3000, 2071, 0, 0), id="three in place"),
        pytest.param({}, 30, Held(3000, 1071, 0, 1000), id="three, one at a time"),
        pytest.param({"fetched": 10}, 30, Held(3000, 3213, 0, 3000), id="three at once"),
        pytest.param({"sharded": True}, 30, Held(0, 0, 3000, 7000), id="within a shard"),
        pytest.param({"unpacked": 8}, 10, Held(2000, 1071, 0, 1000), id="packed"),
        pytest.param(
            {"unpacked": 8, "in_place": True}, 10, Held(2000, 2071, 0, 0), id="packed, in place"
        ),
        pytest.param(
            {"unpacked": 8, "sharded": True}, 30, Held(6000, 0, 0, 10_000), id="packed, in a shard"
        ),
    ],
)
def test_memory_for_an_input(options: dict[str, bool], systems: int, expected: Held) -> None:
    layout = Layout((100, 5, 5), (10, 5, 5), 2, 4, **options)  # chunks of 1,000 bytes
    assert layout.memory(((0, systems),)) == expected


@pytest.mark.parametrize(
    ("processes", "chunk", "together"),
    [
        pytest.param(2, 32768, 7, id="two workers, 20 ms a block"),
        pytest.param(1000, 32768, 148, id="a thousand workers, 20 ms a block"),
        pytest.param(1000, 10**6, 7, id="a thousand workers, large blocks"),
        pytest.param(100_000, 10**6, 12, id="too many workers to give each many tasks"),
    ],
)
def test_a_task_lasts_until_the_scheduler_has_served_all_workers(
    processes: int, chunk: int, together: int
) -> None:
    made = plan(*vectors(10**13, 8, chunk), 4 << 30, 1, processes=processes, task_cost=3000)
    assert made.together == together
    assert plan(*vectors(10**13, 8, chunk), 4 << 30, 1, processes=processes).together == 1


def test_tasks_come_in_whole_rounds_so_that_no_worker_waits_for_the_last() -> None:
    made = plan(*vectors(2**18, 32, 2048), 4 << 30, 1, processes=2, task_cost=3000)
    assert (made.blocks, made.together) == (128, 8)


def test_chunked_systems_are_read_in_slabs_and_the_amplification_is_said() -> None:
    a = Layout((100_000, 100, 100), (6250, 7, 13), 2, 8)
    b = Layout((100_000, 100), (100_000, 100), 1, 8)
    made = plan(a, b, limit=1 << 30)
    assert made.memory <= made.memory_limit
    assert made.amplification == math.ceil(6250 / made.block_shape[0])
    assert f"read {made.amplification:g} times" in str(made)


@pytest.mark.parametrize(
    ("a", "b", "blocks"),
    [
        pytest.param(((40, 30, 2, 2), (10, 7, 2, 2)), ((40, 30, 2), (10, 7, 2)), 20, id="2-D"),
        pytest.param(((2, 2), (2, 2)), ((30, 2, 1), (7, 2, 1)), 5, id="a broadcasts"),
        pytest.param(((30, 2, 2), (7, 2, 2)), ((2,), (2,)), 5, id="one b for all"),
        pytest.param(((5, 1, 2, 2), (2, 1, 2, 2)), ((1, 6, 2), (1, 3, 2)), 6, id="outer product"),
        pytest.param(((2, 2), (2, 2)), ((2,), (2,)), 1, id="no batch at all"),
        pytest.param(((0, 2, 2), (1, 2, 2)), ((0, 2), (1, 2)), 0, id="empty batch"),
    ],
)
@pytest.mark.usefixtures("many_blocks")
def test_blocks_cover_the_batch_once(
    a: tuple[tuple[int, ...], tuple[int, ...]],
    b: tuple[tuple[int, ...], tuple[int, ...]],
    blocks: int,
) -> None:
    core_b = 1 if len(b[0]) in (1, len(a[0]) - 1) else 2
    made = plan(Layout(*a, 2, 8), Layout(*b, core_b, 8))
    assert made.blocks == blocks
    covered = np.zeros(made.batch_shape, int)
    for number in range(made.blocks):
        covered[tuple(slice(*r) for r in made.block(number))] += 1
    assert (covered == 1).all()


def test_windows_are_bounded_and_complete() -> None:
    made = plan(*vectors(10**7, 8, 32768))
    windows = list(made.windows(100))
    assert max(map(len, windows)) == 100
    assert list(itertools.chain(*windows)) == list(range(made.blocks))


def test_planning_a_trillion_systems_takes_no_time_and_no_memory() -> None:
    tracemalloc.start()
    started = time.process_time()
    made = plan(*vectors(10**12, 8, 100_000))
    seconds, (_, peak) = time.process_time() - started, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert made.blocks == 10**7
    assert seconds < 1
    assert peak < MIB


# Series

IMAGES = Layout((2000, 1000, 1000), (2000, 1000, 1), 1, 4, axis=0)
SERIES = Needs((2000, 1000), (IMAGES,), ("y",), 24, 25, state_bytes=60, unit="series")


def test_the_plan_says_how_often_chunks_are_read() -> None:
    limits = 250, 700, 9000
    made = {limit: make_plan(SERIES, memory_limit=limit << 20, workers=2) for limit in limits}
    assert (made[700].amplification, made[700].workers) == (2, 1)
    assert "every byte of y is read 2 times" in str(made[700])
    assert made[250].amplification > 2
    assert (made[9000].amplification, made[9000].rows) == (1, 0)
    assert all(plan.memory <= plan.memory_limit for plan in made.values())


def test_what_is_kept_of_series_between_their_observations_is_in_the_plan() -> None:
    kept = replace(SERIES, state_bytes=6000)
    plain, made = (make_plan(v, memory_limit=700 << 20, workers=2) for v in (SERIES, kept))
    assert plain.rows
    assert not made.rows  # sums of all series would not fit


def test_a_chunk_column_that_fits_in_memory_is_read_once() -> None:
    [column] = {make_plan(SERIES, memory_limit=n << 30, workers=4).amplification for n in (9, 10)}
    assert column == 1
    assert make_plan(SERIES, memory_limit=9 << 30, workers=4).workers == 1


def test_several_threads_work_on_few_blocks() -> None:
    y = Layout((6000, 1000, 100), (1000, 1000, 1), 1, 4, axis=0)
    needs = Needs((6000, 1000), (y,), ("y",), 24, 25, working=1 << 20, divisible=True)

    def made(workers: int, limit: int = 64 << 30, **how: Any) -> Plan:
        return make_plan(needs, memory_limit=limit, workers=workers, **how)

    assert [made(n).threads for n in (1, 2, 8)] == [1, 2, 3]
    assert [made(n).workers for n in (1, 2, 8)] == [1, 1, 6]  # all threads on one after the other
    single = replace(needs, layouts=(replace(y, chunks=(1000, 1000, 100)),))
    assert make_plan(single, memory_limit=64 << 30, workers=2).workers == 2  # a thread reads each
    assert ", 3 threads to each" in str(made(8))
    small = replace(y, shape=(20, 10, 100), chunks=(10, 10, 100))  # two chunks, one block
    one = replace(needs, batch_shape=(20, 10), layouts=(small,), divisible=False)
    assert "\n1 at a time, " in str(make_plan(one, memory_limit=64 << 30, workers=2))
    assert made(2, 2000 << 20).threads == 2
    tight = OVERHEAD + LOADING + 6 * block_memory(needs, (1000, 1000), threads=2)
    assert (made(8, tight).threads, made(8, tight).workers) == (2, 6)
    wide = replace(y, shape=(6000, 9000, 100))
    many = replace(needs, batch_shape=(6000, 9000), layouts=(wide,))
    assert make_plan(many, memory_limit=64 << 30, workers=2).threads == 1
    systems = replace(needs, divisible=False)
    assert make_plan(systems, memory_limit=64 << 30, workers=8).threads == 1
