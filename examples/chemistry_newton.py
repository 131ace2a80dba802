"""An implicit step of stiff kinetics in 100,000 cells: Newton's method, all cells at once.

Robertson's reactions, A → B, B + B → B + C and B + C → A + C, have rates that differ by nine orders
of magnitude; each cell has its own. Backward Euler u - u_old = dt f(u) is solved by Newton's method,
where every cell has a Jacobian of its own in every iteration.
"""

import numpy as np

import dasksolve

CELLS, STEP = 100_000, 10.0  # s
RATES = np.array([0.04, 3e7, 1e4])  # of the three reactions, 1/s
SPECIES_CHANGE = np.array([[-1, 0, 1], [1, -1, -1], [0, 1, 0]])  # of A, B and C, by each reaction


def reactions(u: np.ndarray, k: np.ndarray) -> np.ndarray:
    """How fast each reaction goes (cells, 3), for the fractions u of A, B and C."""
    a, b, c = u.T
    return k * np.stack([a, b * b, b * c], axis=1)


def jacobian(u: np.ndarray, k: np.ndarray) -> np.ndarray:
    """How the change of each species depends on each species (cells, 3, 3)."""
    _, b, c = u.T
    zero, one = np.zeros_like(b), np.ones_like(b)
    slopes = np.stack([[one, zero, zero], [zero, 2 * b, zero], [zero, c, b]])  # (3, 3, cells)
    return SPECIES_CHANGE @ (k[:, :, None] * slopes.transpose(2, 0, 1))


rng = np.random.default_rng(0)
k = RATES * np.exp(rng.normal(0, 0.5, (CELLS, 3)))  # as temperature and light vary
old = np.tile([1.0, 0.0, 0.0], (CELLS, 1))

u = old.copy()
for iteration in range(1, 31):
    residual = u - old - STEP * reactions(u, k) @ SPECIES_CHANGE.T
    step = dasksolve.solve(np.eye(3) - STEP * jacobian(u, k), residual, workers=-1)
    u -= step
    largest = np.abs(step / (1e-9 + np.abs(u))).max()
    if largest < 1e-10:
        break

print(f"{CELLS:,} cells converged in {iteration} iterations, last change {largest:.0e}")
print(f"fractions still add up to 1: largest error {np.abs(u.sum(axis=1) - 1).max():.0e}")
print("mean fractions of A, B, C:", ", ".join(f"{mean:.3g}" for mean in u.mean(axis=0)))
