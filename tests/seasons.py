"""Series with a trend, seasons and gaps, and all the special cases that a series can be."""

import numpy as np
from families import same_bits

P = 120
MONTHS = np.arange(P) / 12


def harmonics(years, *columns):
    waves = [f(2 * np.pi * k * MONTHS) for k in (1, 2) for f in (np.cos, np.sin)]
    return np.stack([np.ones(P), years, *waves, *columns], axis=1)


DESIGN = harmonics(MONTHS)


def series(gap=0.3, count=60, dtype=np.float64, seed=0):
    """(P, count) with gaps, and with all the special cases that a series can be."""
    rng = np.random.default_rng(seed)
    y = 10 + 0.3 * MONTHS[:, None] + np.sin(2 * np.pi * MONTHS)[:, None]
    y = (y + 0.2 * rng.standard_normal((P, count))).astype(dtype)
    y[rng.random(y.shape) < gap] = np.nan
    n = DESIGN.shape[1]
    for column, known in ((1, 0), (2, n), (3, n - 1), (4, n + 1)):
        y[:, column] = np.nan
        y[5 : 5 + known, column] = 1 + rng.random(known)
    y[7, 5], y[9, 6] = np.inf, -np.inf
    y[:, 7], y[:, 8] = 0, 3
    y[:, 9] *= np.sqrt(np.finfo(dtype).max) / 1e3
    y[:, 10] *= np.sqrt(np.finfo(dtype).tiny)
    return y


def assert_same(found, wanted):
    for name, one, other in zip(found._fields, found, wanted, strict=True):
        assert (one is None) == (other is None), name
        assert one is None or same_bits(one, other), name
