"""Hashes of what dasksolve answers, which are the same on every processor that has fma.

`python tests/bits.py` compares this machine with the hashes in bits.json, `--slow` all of them.
Who changes the arithmetic on purpose counts up `dasksolve.kernels.ARITHMETIC`, and stores what is
new with `python tests/bits.py --slow --renew`.
"""

import argparse
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import dasksolve
from dasksolve import kernels

Array = NDArray[Any]
STORED = Path(__file__).with_name("bits.json")
DTYPES = ("float32", "float64", "complex64", "complex128")
SYSTEMS = 19
STRUCTURES = (
    *("pos", "sym", "her", "upper triangular", "lower triangular", "diagonal", "tridiagonal"),
)


class Case(NamedTuple):
    """What is solved, and how."""

    what: str
    dtype: str
    n: int
    slow: bool
    """Whether default tests leave it out: dtypes and orders up to 16 have kernels of their own."""

    def __str__(self) -> str:
        return f"{self.what} {self.dtype} {self.n}"


def cases() -> Iterator[Case]:
    """Every case: of the default tests, kernels that others compile as well."""
    for dtype in DTYPES:
        rare = dtype != "float64"
        for n in (2, 3, 8, 17, 33, 150):
            yield Case("gen", dtype, n, n not in (3, 17) or rare)
        for n in (3, 17, 33, 150):
            yield Case("factor", dtype, n, n != 17 or rare)
        for n in (3, 6, 17) if dtype.startswith("float") else ():
            yield Case("regress", dtype, n, n != 3)
        for n in (2, 5) if dtype == "float64" else ():
            yield Case("polyfit", dtype, n, n != 5)
        for n in (3, 17, 150):
            yield Case("inv", dtype, n, n != 17 or dtype != "float64")
        for n in (3, 6):
            yield Case("lstsq", dtype, n, n != 3 or rare)
        for n in (3, 17, 150):
            yield Case("bands", dtype, n, n != 17 or rare)
        for structure in STRUCTURES:
            for n in (17, 150):
                yield Case(structure, dtype, n, n != 17 or rare)


def numbers(case: Case, *shape: int) -> Array:
    """Random numbers from -1 to 1: by integers alone, which no machine rounds otherwise."""
    seed = [case.n, *case.what.encode(), *shape]
    complex_ = np.dtype(case.dtype).kind == "c"
    count = int(np.prod(shape)) * (2 if complex_ else 1)
    raw = np.random.PCG64(seed).random_raw(count)
    values = np.ldexp((raw >> np.uint64(11)).astype(np.float64), -52) - 1
    if complex_:
        values = values.view(np.complex128)
    return values.reshape(shape).astype(case.dtype)


def matrices(case: Case) -> Array:
    """Systems that make kernels do all that they can: most are random."""
    n, a = case.n, numbers(case, SYSTEMS, case.n, case.n)
    if case.what not in ("gen", "factor", "inv"):
        mirrored = a.swapaxes(-1, -2)
        a = (a + (mirrored if case.what == "sym" else mirrored.conj())) / 2
        a[:, range(n), range(n)] += n
    a[2] = 0
    a[5, :, -1] = a[5, :, 0]
    a[11] *= 2.0**-100 if a.real.dtype == np.float32 else 2.0**-900  # its norms are out of range
    if case.what == "gen":  # where pivots grow, refinement has something to do
        a[7] = np.eye(n) - np.tril(np.ones((n, n)), -1)
        a[7, :, -1] = 1
    return a


def answers(case: Case) -> Iterator[tuple[str, Any]]:
    """Everything that is hashed of a case, by name."""
    n = case.n
    if case.what == "bands":
        bands = numbers(case, 3, SYSTEMS, n)
        bands[1].real += 3
        b = numbers(case, SYSTEMS, n, 3)
        yield "x", dasksolve.solve_tridiagonal(*bands, b)
        return
    if case.what == "regress":
        y, weights = numbers(case, 40, SYSTEMS), abs(numbers(case, 1, 40, SYSTEMS)[0])
        ridge = abs(numbers(case, n))
        y[10:20, 5], y[::7, 6:9], y[:, 11] = np.nan, np.nan, np.nan
        design = numbers(case, 40, n)
        for name, how in (
            ("", {}),
            ("weighted ", {"weights": weights}),
            ("ridge ", {"ridge": ridge}),
        ):
            r = dasksolve.regress(y, design, covariance=True, **how)
            yield from ((name + field, values) for field, values in r._asdict().items())
        return
    if case.what == "polyfit":
        import xarray

        y = xarray.DataArray(numbers(case, 40, SYSTEMS), dims=("t", "x"), coords={"t": range(40)})
        y[3::7, 5] = np.nan
        fit = dasksolve.labelled.polyfit(y, "t", n, full=True, cov=True)
        yield from ((str(name), fit[name]) for name in fit if name != "t_singular_values")
        return
    if case.what == "lstsq":
        a, b = numbers(case, SYSTEMS, 40, n), numbers(case, SYSTEMS, 40, 2)
        a[2], a[5, :, -1], a[7, ::3], b[8:12, 3], b[13] = 0, a[5, :, 0], np.nan, np.nan, np.nan
        weights = abs(numbers(case, 1, SYSTEMS, 40)[0].real)
        for name, given in (("", None), ("weighted ", weights)):
            s = dasksolve.lstsq_ex(a, b, weights=given)
            yield from ((name + field, values) for field, values in s._asdict().items())
        return
    a, b = matrices(case), numbers(case, SYSTEMS, n, 5)
    if case.what == "inv":
        yield "inverse", dasksolve.inv(a, on_singular="nan")
        return
    if case.what == "factor":
        f = dasksolve.factor(a)
        yield from (("lu", f.lu), ("order", f.order), ("status", f.status), ("rcond", f.rcond()))
        yield from zip(("sign", "logabsdet"), f.slogdet(), strict=True)
        for transposed in (False, True):
            for name, right in (("one", b[..., 0]), ("five", b)):
                yield f"{name} {transposed}", f.solve(right, transposed=transposed)
        return
    for name, right in (("one", b[..., 0]), ("three", b[..., :3])):
        s = dasksolve.solve_ex(a, right, assume_a=case.what)
        yield from ((f"{name} {field}", values) for field, values in s._asdict().items())
    yield "x", dasksolve.solve(a, b, assume_a=case.what, on_singular="nan")
    yield "alone", dasksolve.solve(a[:1], b[:1], assume_a=case.what)
    if case.what == "gen":
        s = dasksolve.solve_ex(a, b[..., 0], refine=True)
        yield from (("refined", s.x), ("refined error", s.backward_error))


def digest(values: Any) -> str:
    """The hash of an array; NaN is NaN, whatever its bits."""
    values = np.ascontiguousarray(values)
    values = values.astype(values.dtype.newbyteorder("<"))
    if values.dtype.kind in "fc":
        parts = values.view(values.real.dtype)
        parts[np.isnan(parts)] = np.nan
    described = f"{values.dtype.str}{values.shape}".encode()
    return hashlib.sha256(described + values.tobytes()).hexdigest()[:12]


def hashes(case: Case) -> dict[str, str]:
    """The hash of each answer of a case."""
    return {name: digest(values) for name, values in answers(case)}


def stored() -> dict[str, Any]:
    """What bits.json holds: the number of the arithmetic, and the hashes of each case."""
    return json.loads(STORED.read_text()) if STORED.exists() else {"arithmetic": "0", "hashes": {}}


def differing(found: dict[str, str], expected: dict[str, str]) -> list[str]:
    """The names of the answers that are not what was stored."""
    return [name for name in found | expected if found.get(name) != expected.get(name)]


def main() -> int:
    """Compare, or renew."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slow", action="store_true", help="all cases")
    parser.add_argument("--renew", action="store_true", help="store what this machine answers")
    parser.add_argument("--only", metavar="TEXT", help="all cases whose names contain it")
    options = parser.parse_args()
    everything = options.slow or options.only is not None
    chosen = [c for c in cases() if (everything or not c.slow) and (options.only or "") in str(c)]
    if not chosen:
        parser.error(f"no case has {options.only!r} in its name, as {next(cases())!s} would be")
    known, changed, total = stored(), [], 0
    for case in chosen:
        found = hashes(case)
        total += len(found)
        expected = known["hashes"].get(str(case))
        wrong = differing(found, expected or {})
        print(f"{case}: {len(found) - len(wrong)} of {len(found)} hashes", *wrong, flush=True)
        changed += [case] if wrong and expected else []
        known["hashes"][str(case)] = found
    print(f"{total} hashes; other bits in {len(changed)} cases")
    if not options.renew:
        return 1 if changed else 0
    if changed and known["arithmetic"] == kernels.ARITHMETIC:
        print("count up dasksolve.kernels.ARITHMETIC, if these answers are to change")
        return 1
    lines = (f"{json.dumps(name)}: {json.dumps(of)}" for name, of in known["hashes"].items())
    text = f'{{"arithmetic": "{kernels.ARITHMETIC}", "hashes": {{\n' + ",\n".join(lines) + "\n}}\n"
    STORED.write_text(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
