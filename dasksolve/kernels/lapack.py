"""NumPy's LAPACK, one system at a time, behind the statuses of the kernels: for the largest N."""

import numpy as np

from dasksolve.status import Status


def overflowed(a, b, x):
    """Whether x lost an unknown to a pivot that overflowed: b / Inf is 0, and looks like a number.

    Only then is a row of x exactly zero and the residual large.
    """
    if x.any(axis=1).all():
        return False
    scale = np.abs(a).max()
    residual = np.abs(b / scale - (a / scale) @ x).max()
    size = np.abs(a / scale).sum(axis=1).max() * np.abs(x).max() + np.abs(b / scale).max()
    return not residual <= size * np.sqrt(np.finfo(a.dtype).eps)


def solve_one(a, b, x):
    """Overwrite x by a⁻¹ b; return the status."""
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return Status.NONFINITE
    try:
        x[:] = np.linalg.solve(a, b)
    except np.linalg.LinAlgError:
        return Status.SINGULAR
    if not np.isfinite(x).all() or overflowed(a, b, x):
        return Status.NONFINITE
    return Status.OK


def solve(a, b, x, status):
    """Solve a[m] x[m] = b[m] for every m; a (M, N, N), b and x (M, N, K), status (M,)."""
    with np.errstate(all="ignore"):
        for m in range(len(a)):
            status[m] = solve_one(a[m], b[m], x[m])
            if status[m] != Status.OK:
                x[m] = complex(np.nan, np.nan) if np.iscomplexobj(x) else np.nan
