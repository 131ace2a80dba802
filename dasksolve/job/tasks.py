"""Windows of numbered blocks as dask graphs, a task for some of them."""

from collections.abc import Callable
from typing import Any

from dasksolve.job.blocks import Task, worked_off

WINDOW = 512
"""Tasks in one graph: enough that the workers are not idle between two, few enough for memory."""

Key = tuple[str, int]
OnResult = Callable[[Any], None]


def graph_of(task: Task, job: Any, numbers: range, attempt: int = 0) -> dict[Key, Any]:
    """Tasks of `job.plan.together` blocks: `task(job, number)` of each, as a list of results.

    A plain graph: `dask.array`, and pandas and SciPy with it, would take 60 MiB of the memory limit
    in every process that has not imported it.
    """
    name = f"{task.__name__}-{job.token}-{numbers.start}-{attempt}"  # no two share a result
    call = _Call(name, task, job)
    return {(name, i): (call, part) for i, part in enumerate(parts(numbers, job.plan.together))}


class _Call:
    """What each task of a graph calls. No dataclass: dask looks for arrays in those."""

    def __init__(self, name: str, task: Task, job: Any) -> None:
        self.name, self.task, self.job = name, task, job

    def __dask_tokenize__(self) -> str:
        """Spares dask from reading the job once for each task."""
        return self.name

    def __call__(self, part: range) -> list[Any]:
        plan = self.job.plan
        return list(worked_off(self.task, self.job, part, plan.in_hand // plan.workers, 1))


def parts(numbers: range, together: int) -> list[range]:
    """The numbers of each task."""
    return [numbers[i : i + together] for i in range(0, len(numbers), together)]
