"""`factor`: the factors of a batch, in memory, on dask and in zarr."""

import re
import shutil
import uuid
from contextlib import nullcontext
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
import zarr
from dask.callbacks import Callback
from distributed import Client
from families import SOME_DTYPES, grid, same_bits, systems
from zarr.storage import LocalStore, MemoryStore, WrapperStore

import dasksolve
from dasksolve import Factorization, Status
from dasksolve.batch import kept_factors
from dasksolve.storage import stores

GRID = grid(3, 12, 150, slow=(1, 8, 13, 40), complex_up_to=12)


def troubled(n, dtype):
    a, b = systems(n, 37, dtype=dtype, k=11)
    a[5], a[7, 0, -1], a[9, -1] = 0, np.nan, 0
    status = np.zeros(len(a), np.int8)
    status[[5, 9]], status[7] = Status.SINGULAR, Status.NONFINITE
    return a, b, status


@pytest.mark.parametrize(("n", "dtype"), GRID)
def test_solutions_have_the_bits_of_solve(n, dtype):
    a, b, status = troubled(n, dtype)
    f = dasksolve.factor(a)
    assert same_bits(f.solve(b), dasksolve.solve(a, b, on_singular="nan"))
    some = np.ascontiguousarray(b[..., :3])
    assert same_bits(f.solve(some), dasksolve.solve(a, some, on_singular="nan"))
    assert same_bits(f.solve(b[..., 0]), dasksolve.solve(a, b[..., 0], on_singular="nan"))
    assert np.array_equal(f.status, status)
    s = dasksolve.solve_ex(a, b)
    if n > 8:  # below, solve_ex is exact
        np.testing.assert_allclose(f.rcond(), s.rcond, rtol=1e-6)
    ratio = f.rcond()[status == 0] / s.rcond[status == 0]
    assert 0.9 < ratio.min() <= ratio.max() < 10


@pytest.mark.parametrize("word", ["N", "T", 1, None])
def test_a_word_is_not_taken_for_transposed(word):
    f = dasksolve.factor(np.eye(2))
    with pytest.raises(TypeError, match=f"transposed={word!r} must be True or False"):
        f.solve(np.ones(2), transposed=word)


@pytest.mark.parametrize(("n", "dtype"), GRID)
def test_the_transposed_solution_solves_the_transpose(n, dtype):
    a, b, status = troubled(n, dtype)
    f = dasksolve.factor(a)
    x = f.solve(b, transposed=True)
    x[..., :3] = f.solve(b[..., :3], transposed=True)
    fine = status == 0
    assert np.isnan(x[~fine]).all()
    a, b, x = a[fine].swapaxes(-1, -2), b[fine], x[fine]
    scale = np.abs(a).sum(-1).max(-1) * np.abs(x).max((-1, -2)) + np.abs(b).max((-1, -2))
    error = np.abs(a @ x - b).max((-1, -2)) / scale
    assert error.max() < 4 * n * np.finfo(dtype).eps


@pytest.mark.parametrize("dtype", SOME_DTYPES)
@pytest.mark.parametrize("n", [1, 3, 13])
def test_slogdet_is_numpys(n, dtype):
    a, _, status = troubled(n, dtype)
    sign, logabsdet = dasksolve.factor(a).slogdet()
    fine = status != Status.NONFINITE
    expected = np.linalg.slogdet(a[fine])
    tolerance = 100 * n * np.finfo(dtype).eps
    assert (sign.dtype, logabsdet.dtype) == (expected.sign.dtype, expected.logabsdet.dtype)
    np.testing.assert_allclose(sign[fine], expected.sign, atol=tolerance)
    np.testing.assert_allclose(logabsdet[fine], expected.logabsdet, atol=tolerance, rtol=tolerance)
    assert np.isnan(sign[~fine]).all()


def test_the_determinant_of_one_matrix_that_was_scaled():
    a = np.array([[1e-310, 2e-310], [3e-310, 4e-310]])
    sign, logabsdet = dasksolve.factor(a).slogdet()
    assert (sign.shape, logabsdet.shape) == ((), ())
    assert sign == -1
    assert logabsdet == pytest.approx(np.log(2) + 2 * np.log(1e-310), rel=1e-14)


def test_no_matrix_without_factors_is_ok():
    rng = np.random.default_rng(0)
    roots = rng.integers(-5, 6, (200, 3, 2)).astype(float)
    a = roots @ roots.swapaxes(-1, -2)  # of rank 2: sometimes Cholesky's last pivot is above zero
    general, f = dasksolve.factor(a), dasksolve.factor(a, assume_a="pos")
    solved = dasksolve.solve_ex(a, np.ones(3), assume_a="pos").status
    assert ((general.status == Status.SINGULAR) & (solved == Status.ILL_CONDITIONED)).any()
    fine = f.status == Status.OK
    assert (f.status[~fine] == Status.NOT_POSITIVE_DEFINITE).all()
    assert np.isfinite(f.solve(np.ones(3))[fine]).all()
    assert np.isfinite(f.slogdet()[1][fine]).all()


@pytest.mark.parametrize("dtype", SOME_DTYPES)
@pytest.mark.parametrize("n", [5, 12, 80])
def test_factors_of_a_lower_triangle_are_as_exact_as_substitution(n, dtype):
    rng = np.random.default_rng(n)
    parts = rng.standard_normal((2, 20, n, n))
    a = np.tril(parts[0] + 1j * parts[1] if np.dtype(dtype).kind == "c" else parts[0]).astype(dtype)
    b = rng.standard_normal((20, n)).astype(dtype)
    f = dasksolve.factor(a, assume_a="lower triangular")
    assert (f.status == Status.OK).all()
    pivots = np.diagonal(a, axis1=1, axis2=2).astype(complex)
    sign, logabsdet = f.slogdet()
    tolerance = 10 * n * np.finfo(dtype).eps
    np.testing.assert_allclose(logabsdet, np.log(abs(pivots)).sum(axis=1), 0, tolerance * 10)
    np.testing.assert_allclose(sign, np.prod(pivots / abs(pivots), axis=1), 0, tolerance)
    for found, expected in (
        (f.solve(b), dasksolve.solve(a, b, assume_a="lower triangular")),
        (f.solve(b, transposed=True), dasksolve.solve(a.mT, b, assume_a="upper triangular")),
    ):
        assert (abs(found - expected).max(axis=1) <= tolerance * abs(expected).max(axis=1)).all()


def test_a_zero_on_the_diagonal_of_a_triangle_is_found():
    a = np.tril(np.random.default_rng(0).standard_normal((50, 12, 12)))
    a[:, 3, 3] = 0
    status = dasksolve.factor(a).status
    assert (status == Status.OK).any()
    f = dasksolve.factor(a, assume_a="lower triangular")
    assert (f.status == Status.SINGULAR).all()
    assert (f.rcond() == 0).all()
    assert (f.slogdet()[0] == 0).all()
    assert np.isnan(f.solve(np.ones(12))).all()


def test_a_solution_that_overflows_is_nan_whole():
    a, b = np.stack([np.eye(3)] * 2), np.ones((2, 3))
    a[0, 2, 2] = 1e-300
    b[0, 2] = 1e300
    x = dasksolve.factor(a).solve(b)
    assert np.isnan(x[0]).all()
    assert (x[1] == 1).all()


@pytest.mark.parametrize("b_shape", [(13,), (37, 13), (37, 13, 2), (1, 13, 4), (5, 37, 13, 1)])
@pytest.mark.parametrize("lazy", ["both", "a", "b"])
def test_dask_gives_the_bits_of_numpy(lazy, b_shape):
    a, _, _ = troubled(13, np.dtype(float))
    b = np.random.default_rng(0).standard_normal(b_shape)
    expected = dasksolve.factor(a).solve(b)
    chunks = (10,) + (-1,) * (len(b_shape) - 1)
    f = dasksolve.factor(a if lazy == "b" else da.from_array(a, chunks=(10, 5, -1)))
    x = f.solve(b if lazy == "a" else da.from_array(b, chunks=chunks if len(b_shape) > 1 else -1))
    assert isinstance(x, da.Array)
    assert (x.shape, x.dtype) == (expected.shape, expected.dtype)
    assert same_bits(x.compute(), expected)


def test_lazy_factors_are_computed_once_a_chunk_and_every_method_is_lazy():
    a, b, status = troubled(13, np.dtype(float))
    f, eager = dasksolve.factor(da.from_array(a, chunks=(10, -1, -1))), dasksolve.factor(a)
    factored = []
    with Callback(pretask=lambda key, *_: factored.append(str(key))):
        found = dask.compute(f.solve(b), f.status, f.rcond(), *f.slogdet())
    assert sum("factor_block" in key for key in factored) == 4
    for one, two in zip(
        found, (eager.solve(b), status, eager.rcond(), *eager.slogdet()), strict=True
    ):
        assert same_bits(one, two)


def test_factors_are_kept_in_zarr(tmp_path: Path):
    a, b, status = troubled(13, np.dtype(float))
    path = tmp_path / "factors.zarr"
    dasksolve.factor(da.from_array(a, chunks=(10, -1, -1))).to_zarr(path)
    f = Factorization.open(path)
    assert f.lu.chunks[0] == (10, 10, 10, 7)
    assert same_bits(f.solve(b).compute(), dasksolve.factor(a).solve(b))
    assert np.array_equal(f.status.compute(), status)
    with pytest.raises(FileExistsError, match="choose another path"):
        dasksolve.factor(a).to_zarr(path)


@pytest.mark.parametrize("lazy", [False, True], ids=["in memory", "lazy"])
@pytest.mark.parametrize(
    "store",
    [MemoryStore, lambda: WrapperStore(MemoryStore()), lambda: f"memory://{uuid.uuid4()}"],
    ids=["zarr", "wrapped", "fsspec"],
)
def test_factors_kept_in_memory_stay_in_this_process(two_processes: Client, store, lazy):
    a, b, _ = troubled(5, np.dtype(float))
    f, place = dasksolve.factor(da.from_array(a, chunks=(10, -1, -1)) if lazy else a), store()
    with two_processes.as_current():
        f.to_zarr(place)
    x = Factorization.open(place).solve(b).compute(scheduler="sync")
    assert same_bits(x, dasksolve.factor(a).solve(b))


class Watched(WrapperStore):
    """Counts the blocks that were made, and are not written, whenever one is."""

    made: Path
    in_hand: list[int]

    async def set(self, key, value):
        self._count(key)
        await super().set(key, value)

    def set_sync(self, key, value):
        self._count(key)
        super().set_sync(key, value)

    def _count(self, key):
        if key.startswith("lu/c/"):
            self.in_hand.append(len([*self.made.iterdir()]) - len(self.in_hand))


class OneWriter(Watched):
    """Keeps others away, as what is of this module does."""

    __module__ = "icechunk.session"


@pytest.mark.parametrize("where", ["threads", "workers", "persisted"])
@pytest.mark.parametrize("one_writer", [False, True], ids=["memory", "one writer"])
def test_few_blocks_are_in_hand_where_this_process_alone_may_write(
    two_processes: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where, one_writer
):
    made, kept = tmp_path / "made", tmp_path / "kept"
    made.mkdir()

    def noted(block, folder=made):
        (folder / uuid.uuid4().hex).touch()
        return block

    store = OneWriter(LocalStore(kept)) if one_writer else Watched(MemoryStore())
    store.made, store.in_hand = made, []
    monkeypatch.setattr(kept_factors, "CPU_COUNT", 2)
    a = da.from_array(2 * np.eye(3) + np.zeros((155, 2, 3, 3)), chunks=(4, 2, -1, -1))
    current = nullcontext() if where == "threads" else two_processes.as_current()
    with current, dask.config.set(num_workers=2):
        a = two_processes.persist(a) if where == "persisted" else a
        f = dasksolve.factor(a.map_blocks(noted, dtype=float, meta=np.empty((0,) * 4)))
        f.to_zarr(store)
    found = Factorization.open(store)
    assert found.lu.chunks == f.lu.chunks
    assert found.status.chunks == f.status.chunks
    assert (found.solve(np.ones(3)).compute(scheduler="sync") == 0.5).all()
    assert len([*made.iterdir()]) == len(store.in_hand) == 39
    assert max(store.in_hand) < 10


def test_factors_that_workers_wrote_elsewhere_are_missed(
    two_processes: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def is_another_for_others(self):
        return LocalStore, (f"{self.root} of theirs",)

    monkeypatch.setattr(stores.Files, "__reduce__", is_another_for_others, raising=False)
    a = np.eye(3) + np.ones((40, 3, 3))
    with two_processes.as_current():
        lazy = dasksolve.factor(da.from_array(a, chunks=(10, -1, -1)))
        with pytest.raises(OSError, match=r"wrote factors that are not at .*/lazy, which they see"):
            lazy.to_zarr(tmp_path / "lazy")
        dasksolve.factor(a).to_zarr(tmp_path / "ours")
    assert (
        Factorization.open(tmp_path / "ours").status.compute(scheduler="sync").tolist() == [0] * 40
    )
    with pytest.raises(ValueError, match="does not hold the whole"):
        Factorization.open(tmp_path / "lazy")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param(lambda g: g.attrs.clear(), "does not hold the whole", id="begun only"),
        pytest.param(lambda g: g.__delitem__("order"), "does not hold the whole", id="missing"),
        pytest.param(
            lambda g: g.create_array("status", data=np.zeros(3, np.int8), overwrite=True),
            r"status \(3,\): factor",
            id="shape",
        ),
        pytest.param(
            lambda g: g.attrs.update(dasksolve_factorization='{"version": 2}'),
            "holds factors of version 2",
            id="older",
        ),
    ],
)
def test_what_is_not_a_whole_factorization_is_refused(tmp_path: Path, damage, message):
    path = tmp_path / "factors.zarr"
    dasksolve.factor(np.eye(3)[None]).to_zarr(path)
    damage(zarr.open_group(path))
    with pytest.raises(ValueError, match=message):
        Factorization.open(path)


@pytest.mark.parametrize("n", [3, 12])
@pytest.mark.parametrize("at", [0, 20, 36])
def test_no_system_of_many_may_name_rows_that_are_none(n, at):
    a, b, _ = troubled(n, np.dtype(float))
    f = dasksolve.factor(a)
    for wrong in (n, -1, np.iinfo(np.int32).max):
        f.order[at, 1] = wrong
        for right in (b[..., 0], b[..., :2], b):
            with pytest.raises(ValueError, match="the factors are damaged"):
                f.solve(right)


def test_an_order_of_rows_that_are_none_is_refused(tmp_path: Path):
    path = tmp_path / "factors.zarr"
    dasksolve.factor(np.eye(3)[None]).to_zarr(path)
    for wrong in (7, -1):
        zarr.open_array(path / "order")[0, 1] = wrong
        for b in (np.ones(3), np.ones((1, 3, 5))):
            with pytest.raises(ValueError, match="the factors are damaged"):
                Factorization.open(path).solve(b).compute()


@pytest.mark.parametrize("name", ["lu", "order", "status", "rcond"])
def test_a_chunk_that_was_lost_is_not_taken_for_factors(tmp_path: Path, name):
    a, b, _ = troubled(5, np.dtype(float))
    path = tmp_path / "factors.zarr"
    dasksolve.factor(da.from_array(a, chunks=(10, -1, -1))).to_zarr(path)
    lost = path / name / "c" / "1"
    shutil.rmtree(lost) if lost.is_dir() else lost.unlink()
    f = Factorization.open(path)
    if name == "order":
        with pytest.raises(ValueError, match="damaged or incomplete"):
            f.solve(b).compute()
        with pytest.raises(ValueError, match="damaged or incomplete"):
            f.slogdet()[0].compute()
        return
    found = {"lu": f.solve(b), "status": f.status, "rcond": f.rcond()}[name].compute()[10:20]
    assert (found == Status.PENDING).all() if name == "status" else np.isnan(found).all()


@pytest.mark.parametrize("where", ["threads", "workers"])
def test_what_says_that_a_chunk_was_lost_is_copied(two_processes: Client, tmp_path: Path, where):
    path, copy = tmp_path / "factors.zarr", tmp_path / "copy.zarr"
    dasksolve.factor(da.from_array(np.ones((37, 1, 1)), chunks=(10, -1, -1))).to_zarr(path)
    (path / "status" / "c" / "1").unlink()
    with nullcontext() if where == "threads" else two_processes.as_current():
        Factorization.open(path).to_zarr(copy)
    found = Factorization.open(copy).status.compute(scheduler="sync")
    assert found.tolist() == [0] * 10 + [Status.PENDING] * 10 + [0] * 17


def test_a_flipped_bit_is_found(tmp_path: Path):
    path = tmp_path / "factors.zarr"
    dasksolve.factor(np.eye(3)[None] + 1).to_zarr(path)
    chunk = path / "lu" / "c" / "0" / "0" / "0"
    stored = bytearray(chunk.read_bytes())
    stored[len(stored) // 2] ^= 1
    chunk.write_bytes(stored)
    with pytest.raises(ValueError, match="checksum"):
        Factorization.open(path).solve(np.ones(3)).compute()


@pytest.mark.parametrize("shape", [(), (3,), (4, 2, 3)])
def test_what_is_not_square_is_refused_by_its_own_shape(shape):
    for a in (np.ones(shape), da.ones(shape)):
        with pytest.raises(np.linalg.LinAlgError, match=r"square.*: it has shape \(.*\)$"):
            dasksolve.factor(a)


def test_there_is_nothing_to_open(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="no factors at"):
        Factorization.open(tmp_path / "none.zarr")
    assert not (tmp_path / "none.zarr").exists()


@pytest.mark.parametrize("kind", ["group", "array", "folder", "format 2"])
def test_what_holds_no_factors_is_told_from_what_lost_some(tmp_path: Path, kind: str):
    path = tmp_path / "other"
    if kind == "folder":
        path.mkdir()
        (path / "notes.txt").write_text("mine")
    elif kind == "array":
        zarr.create_array(path, data=np.ones(3))
    else:
        group = zarr.create_group(path, zarr_format=3 if kind == "group" else 2)
        group.create_array("status", data=np.ones(3))
    with pytest.raises(ValueError, match=r"not hold factors; give what Factorization\.to_zarr wr"):
        Factorization.open(path)


def test_a_structure_is_factored_as_it_is_meant():
    rng = np.random.default_rng(0)
    a = rng.standard_normal((20, 5, 5))
    a = a @ a.swapaxes(-1, -2) + np.eye(5)
    a[3] *= -1
    b = rng.standard_normal((20, 5))
    f = dasksolve.factor(np.where(np.tri(5, dtype=bool), a, np.nan), assume_a="pos", lower=True)
    assert np.flatnonzero(f.status == Status.NOT_POSITIVE_DEFINITE).tolist() == [3]
    assert f.rcond()[3] == 0
    x = f.solve(b)
    assert np.isnan(x[3]).all()
    fine = f.status == 0
    np.testing.assert_allclose(x[fine], np.linalg.solve(a[fine], b[fine][..., None])[..., 0])


@pytest.mark.parametrize("shape", [(0, 3, 3), (4, 0, 0)])
def test_nothing_to_factor(tmp_path: Path, shape):
    f = dasksolve.factor(np.zeros(shape))
    assert f.solve(np.zeros(shape[:-1])).shape == shape[:-1]
    assert f.slogdet()[0].tolist() == [1.0] * shape[0]
    f.to_zarr(tmp_path / "f")
    assert Factorization.open(tmp_path / "f").lu.shape == shape


def test_where_factors_have_no_room_is_named(small_disk):
    f = dasksolve.factor(np.random.default_rng(0).random((99, 64, 64)))
    place = re.escape(repr(f"{small_disk}/f"))
    with pytest.raises(OSError, match=f"No space left on device: {place}$"):
        f.to_zarr(small_disk / "f")
