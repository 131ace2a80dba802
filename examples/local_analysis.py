"""Local analyses of an ensemble Kalman filter: one small positive definite system a grid point.

At each of 14,400 points, the observations nearby weigh the members of an ensemble: the weights w of
the new mean solve ((N - 1) I + Yᵀ R⁻¹ Y) w = Yᵀ R⁻¹ d (Hunt, Kostelich and Szunyogh, 2007), with R
tapered by distance. The grid is chunked, and solved on a cluster.

Needs: pip install dasksolve
"""

import dask.array as da
import numpy as np
from distributed import Client, LocalCluster

import dasksolve

GRID, MEMBERS, OBSERVATIONS = 120, 32, 500
ERROR, RADIUS = 0.2, 0.08  # of an observation; of its influence, where the domain is 1 wide


def smooth_fields(count: int, rng: np.random.Generator) -> np.ndarray:
    """Random periodic fields (count, GRID, GRID) of variance 1."""
    k = np.fft.fftfreq(GRID, 1 / GRID)
    spectrum = np.exp(-(k[:, None] ** 2 + k**2) / (2 * 4**2))
    noise = np.fft.fft2(rng.standard_normal((count, GRID, GRID)))
    fields = np.fft.ifft2(noise * spectrum).real
    return fields / fields.std()


def analyse(
    background: np.ndarray, rows: np.ndarray, columns: np.ndarray, observed: np.ndarray
) -> np.ndarray:
    """Return the mean of the ensemble (MEMBERS, GRID, GRID) once it knows the observations."""
    mean = background.mean(axis=0)
    anomalies = (background - mean).reshape(MEMBERS, -1).T  # (points, N)
    y = (background - mean)[:, rows, columns].T  # (observations, N)
    innovation = observed - mean[rows, columns]

    point = np.stack(np.divmod(np.arange(GRID**2), GRID), axis=1)
    point = da.from_array(point, chunks=(GRID**2 // 8, 2))
    apart = da.absolute(point[:, None, :] - np.stack([rows, columns], axis=1)) / GRID
    apart = da.minimum(apart, 1 - apart)  # the domain is periodic
    taper = da.exp(-(apart**2).sum(axis=2) / (2 * RADIUS**2)) / ERROR**2  # (points, observations)

    products = (y[:, :, None] * y[:, None, :]).reshape(OBSERVATIONS, -1)
    a = (taper @ products).reshape(GRID**2, MEMBERS, MEMBERS) + (MEMBERS - 1) * np.eye(MEMBERS)
    b = taper @ (y * innovation[:, None])
    weights = dasksolve.solve(a, b, assume_a="pos")  # lazy: one task a block
    increment = (da.from_array(anomalies, chunks=(GRID**2 // 8, MEMBERS)) * weights).sum(axis=1)
    return mean + increment.compute().reshape(GRID, GRID)


def main() -> None:
    """Draw a truth and an ensemble, observe the truth, and compare the mean before and after."""
    rng = np.random.default_rng(0)
    truth, *background = smooth_fields(MEMBERS + 1, rng)
    background = np.array(background)
    rows, columns = rng.integers(0, GRID, (2, OBSERVATIONS))
    observed = truth[rows, columns] + ERROR * rng.standard_normal(OBSERVATIONS)
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0")
    with cluster, Client(cluster):
        analysis = analyse(background, rows, columns, observed)
    before, after = (np.sqrt(((m - truth) ** 2).mean()) for m in (background.mean(0), analysis))
    print(f"{GRID**2:,} local analyses of order {MEMBERS}")
    print(f"error of the mean (RMS): {before:.2f} before, {after:.2f} after")


if __name__ == "__main__":  # worker processes import this file
    main()
