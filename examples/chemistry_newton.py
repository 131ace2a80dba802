"""Stiff kinetics in 100,000 cells: linearly implicit steps, the factors of each used twice.

Robertson's reactions, A → B, B + B → B + C and B + C → A + C, have rates that differ by nine orders
of magnitude, and each cell has rates of its own. A step of Rosenbrock's method ROS2 (Verwer et al.,
1999) is two Newton iterations with one matrix, I - g dt J: factored once, solved with twice.

Needs: pip install dasksolve
"""

import numpy as np

import dasksolve

CELLS, STEPS = 100_000, 100
RATES = np.array([0.04, 3e7, 1e4])  # of the three reactions, 1/s
CHANGE = np.array([[-1, 0, 1], [1, -1, -1], [0, 1, 0]])  # of A, B and C, by each reaction
GAMMA = 1 + 1 / np.sqrt(2)


def speed(u: np.ndarray, k: np.ndarray) -> np.ndarray:
    """How fast the fractions u (cells, 3) of A, B and C change, 1/s."""
    a, b, c = u.T
    return (k * np.stack([a, b * b, b * c], axis=1)) @ CHANGE.T


def jacobian(u: np.ndarray, k: np.ndarray) -> np.ndarray:
    """How the speed of each species depends on each species (cells, 3, 3)."""
    _, b, c = u.T
    zero, one = np.zeros_like(b), np.ones_like(b)
    slopes = np.stack([[one, zero, zero], [zero, 2 * b, zero], [zero, c, b]])  # (3, 3, cells)
    return CHANGE @ (k[:, :, None] * slopes.transpose(2, 0, 1))


def march(k: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Start from A alone; return the fractions at the last of the times."""
    u = np.tile([1.0, 0.0, 0.0], (len(k), 1))
    for dt in np.diff(times, prepend=0):
        factors = dasksolve.factor(np.eye(3) - GAMMA * dt * jacobian(u, k))
        first = factors.solve(speed(u, k))
        second = factors.solve(speed(u + dt * first, k) - 2 * first)
        u = u + dt * (1.5 * first + 0.5 * second)
    return u


rng = np.random.default_rng(0)
k = RATES * np.exp(rng.normal(0, 0.5, (CELLS, 3)))  # as temperature and light vary
u = march(k, np.geomspace(1e-6, 10, STEPS))
finer = march(k[:1000], np.geomspace(1e-6, 10, 10 * STEPS))

print(f"{STEPS * CELLS:,} Jacobians factored, {2 * STEPS * CELLS:,} systems solved")
print(f"fractions still add up to 1: largest error {np.abs(u.sum(axis=1) - 1).max():.0e}")
print(f"largest difference to steps a tenth as long: {np.abs(u[:1000] - finer).max():.0e}")
print("mean fractions of A, B, C:", ", ".join(f"{mean:.3g}" for mean in u.mean(axis=0)))
