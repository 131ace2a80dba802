"""A batch in memory: the singular systems are named, the others are solved.

Needs: pip install dasksolve
"""

import numpy as np

import dasksolve

rng = np.random.default_rng(0)
a = rng.standard_normal((100_000, 6, 6))
b = rng.standard_normal((100_000, 6))
a[[123, 45_678]] = 1.0  # two matrices of ones, which are singular

try:
    dasksolve.solve(a, b)
except dasksolve.SingularSystemError as error:
    print(error)

x = dasksolve.solve(a, b, on_singular="nan", workers=-1)
solved = np.isfinite(x).all(axis=1)
residual = np.abs(np.einsum("mij,mj->mi", a, x) - b)[solved].max()
print(f"{solved.sum():,} of {len(x):,} systems solved, largest residual {residual:.1e}")
