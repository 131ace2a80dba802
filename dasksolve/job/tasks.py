"""Windows of numbered blocks as dask graphs, a task for some of them."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dasksolve.job import presence
from dasksolve.job.blocks import worked_off
from dasksolve.job.job import Job, Task
from dasksolve.job.tally import BlockResult

if TYPE_CHECKING:
    import dask.array as da

WINDOW = 512
"""Tasks in one graph: enough that the workers are not idle between two, few enough for memory."""

OnResult = Callable[[BlockResult], None]


def graph_of(task: Task, job: Job, numbers: range, attempt: int = 0) -> "da.Array":
    """Tasks of `job.plan.together` blocks: `task(job, number)` of each, as an array of results."""
    import dask.array as da  # takes a second, for which no help and no report waits

    return da.map_blocks(
        partial(_call, task, job),  # which dask, unlike a dataclass, does not look for arrays in
        numbers=numbers,
        name=f"{job.task}-{job.token}-{numbers.start}-{attempt}",  # no two share a result
        chunks=(tuple(map(len, parts(numbers, job.plan.together))),),
        dtype=object,
        meta=np.empty(0, object),
    )


def _call(task: Task, job: Job, *, numbers: range, block_id: tuple[int]) -> NDArray[Any]:
    part = parts(numbers, job.plan.together)[block_id[0]]
    results = np.empty(len(part), object)
    with presence.seat(job.token, job.plan.workers):
        results[:] = list(worked_off(task, job, part, job.plan.in_hand // job.plan.workers, 1))
    return results


def parts(numbers: range, together: int) -> list[range]:
    """The numbers of each task."""
    return [numbers[i : i + together] for i in range(0, len(numbers), together)]
