"""numba refuses `np.linalg.solve` of a stack of matrices; once dasksolve is imported, it solves it.

Each of 20,000 cells has a linear system du/dt = A u of its own. Backward Euler solves
(I - dt A) u_new = u_old in every step, inside one compiled loop.

Needs: pip install dasksolve
"""

import time

import numba
import numpy as np

CELLS, N, STEPS, DT = 20_000, 6, 100, 0.02


def march(a, u, dt, steps):
    """Take the steps; a (M, N, N) and u (M, N)."""
    implicit = np.eye(a.shape[1]) - dt * a
    for _ in range(steps):
        u = np.linalg.solve(implicit, u)
    return u


rng = np.random.default_rng(0)
rates = rng.uniform(0.1, 2.0, (CELLS, N))  # a = Q diag(-rates) Qᵀ, whose solution is known
q, _ = np.linalg.qr(rng.standard_normal((CELLS, N, N)))
a = -(q * rates[:, None]) @ q.transpose(0, 2, 1)
u = rng.standard_normal((CELLS, N))

try:
    numba.njit(march)(a, u, DT, STEPS)
except (numba.TypingError, ImportError) as error:  # the latter without SciPy
    lines = str(error).splitlines()
    print("before:", next((line.strip() for line in lines if "2-D arrays" in line), lines[0]))

import dasksolve  # noqa: E402  # this line is all that changes

compiled = numba.njit(march)
compiled(a, u, DT, 1)
start = time.perf_counter()
found = compiled(a, u, DT, STEPS)
seconds = time.perf_counter() - start
print(f"after: {CELLS * STEPS / seconds / 1e6:.1f} million systems of order {N} a second")

in_axes = np.einsum("mji,mj->mi", q, u) * (1 + DT * rates) ** -STEPS
exact = np.einsum("mij,mj->mi", q, in_axes)
print(f"largest error against the exact steps: {abs(found - exact).max():.1e}")

x = np.empty_like(u)
status = np.empty(CELLS, np.int8)
a[123] = np.eye(N) / DT  # makes I - dt A exactly zero in one cell


@numba.njit(parallel=True)
def one_step(implicit, u, x, status):
    """Take one step, and note which cells have no solution.

    In a prange nothing may be raised: numba loses it, and with it the rest of the thread's cells.
    """
    size = 1000
    for part in numba.prange(-(-len(u) // size)):
        cells = slice(part * size, (part + 1) * size)
        dasksolve.nopython.solve_into(implicit[cells], u[cells], x[cells], status[cells])


one_step(np.eye(N) - DT * a, u, x, status)
print(f"cells without a solution: {np.flatnonzero(status)}")
