"""How long a task must be for a scheduler to keep a large cluster busy; a simulation, as a script.

A scheduler serves one task at a time, for about 3 ms each: it learns that one is done and sends its
worker the next. A worker of one thread has one task in hand and one that waits. How long tasks take
varies by a fifth. The overhead is the time beyond what the workers would need without a scheduler.
"""

import argparse
import json
from heapq import heappop, heappush

import numpy as np

WAITING = 1  # tasks that a worker has beside the one in hand


def overhead(workers: int, tasks: int, seconds: float, cost: float, seed: int = 0) -> float:
    """Time that `tasks` of `seconds` each take on so many workers, over the least possible, - 1."""
    rng = np.random.default_rng(seed)
    lengths = iter((seconds * rng.uniform(0.8, 1.2, tasks)).tolist())
    scheduler, free = 0.0, [0.0] * workers
    running: list[tuple[float, int]] = []

    def send(worker: int) -> None:
        length = next(lengths, None)
        if length is not None:
            free[worker] = max(scheduler, free[worker]) + length
            heappush(running, (free[worker], worker))

    for worker in [*range(workers)] * (1 + WAITING):
        scheduler += cost
        send(worker)
    end = 0.0
    while running:
        end, worker = heappop(running)
        scheduler = max(scheduler, end) + cost
        send(worker)
    return end / (tasks * seconds / workers) - 1


def main() -> None:
    """Print the overhead for several lengths of a task."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--cost", type=float, default=3e-3, help="seconds a task")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    saturated = options.cost * options.workers
    found = {
        round(factor * saturated, 3): overhead(
            options.workers, options.tasks, factor * saturated, options.cost
        )
        for factor in (0.1, 0.5, 0.9, 1, 1.05, 1.1, 1.25, 1.5, 2)
    }
    if options.json:
        print(json.dumps(found, indent=1))
        return
    print(f"{options.tasks:,} tasks on {options.workers:,} workers, {options.cost * 1e3:g} ms each")
    for seconds, extra in found.items():
        print(f"tasks of {seconds:6.2f} s: {extra:8.1%} overhead")


if __name__ == "__main__":
    main()
