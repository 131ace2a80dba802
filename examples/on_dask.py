"""A batch as a dask array: lazy, one task a block, solved on dask's threads.

Needs: pip install dasksolve
"""

import dask.array as da

import dasksolve

rng = da.random.default_rng(0)
a = rng.standard_normal((200_000, 8, 8), chunks=(20_000, 8, 8))
b = rng.standard_normal((200_000, 8), chunks=(20_000, 8))

x = dasksolve.solve(a, b)  # nothing is computed yet
print(x)

residual = abs(da.einsum("mij,mj->mi", a, x) - b).max()
print(f"largest residual {residual.compute():.1e}")
