"""The page about a job's output: its numbers, its drawings, and that a browser shows them."""

import re
import tracemalloc
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import zarr
from browser import browser, look_at

import dasksolve
from dasksolve.cli import main
from dasksolve.job import history, journal
from dasksolve.job.page import page
from dasksolve.job.survey import survey
from dasksolve.status import Status


@pytest.fixture
def solved(store, many_blocks):
    """A grid of 40 by 30 systems in 10 blocks, with what diagnostics say of each."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((40, 30, 3, 3)), rng.standard_normal((40, 30, 3))
    a[7, 5:9], a[20, 29, 0, 0] = 0, np.nan
    batch = store(a, b)
    dasksolve.solve_zarr(batch.a_path, batch.b_path, batch.out, diagnostics=True)
    return batch


def numbers(html, row):
    return re.search(rf">{row}</th><td[^>]*>(.*?)</td>", html)[1]


def test_the_summary(solved):
    html = page(solved.out)
    assert numbers(html, "systems") == "1,200 (40 by 30)"
    assert numbers(html, "each") == "order 3, 1 right-hand side, float64"
    assert (numbers(html, "ok"), numbers(html, "singular")) == ("1,195", "4")
    assert numbers(html, "b").endswith("/data.zarr/b")
    assert float(numbers(html, "worst backward error")) < 1e-15
    assert "At (7, 5), (7, 6), (7, 7), (7, 8), (20, 29)" in html


def test_every_drawing_is_one_that_says_what_it_is(solved):
    drawings = re.findall(r"<svg.*?</svg>", page(solved.out), re.S)
    labels = [ElementTree.fromstring(drawing).get("aria-label") for drawing in drawings]
    assert [label.split(":")[0] for label in labels] == [
        "Map of the flagged systems",
        "Systems solved a second over time",
        "Histogram of rcond",
        "Histogram of backward error",
    ]


def test_what_is_surveyed(solved):
    found = survey(solved.out)
    assert found.flagged_map.sum() == 5
    assert found.flagged_map[7, 5:9].tolist() == [1, 1, 1, 1]
    rcond, errors = (found.histograms[name] for name in ("rcond", "backward_error"))
    assert (rcond.counts.sum(), rcond.zero, rcond.undefined) == (1195, 4, 1)
    assert errors.counts.sum() + errors.zero == 1195
    stored = zarr.open_array(solved.out + "/rcond")[...]
    assert rcond.least == stored[stored > 0].min()
    halves = np.floor(2 * np.log10(stored[stored > 0])) + 40
    assert np.array_equal(np.bincount(halves.astype(int), minlength=40), rcond.counts)


@pytest.mark.parametrize("shape", [(), (1000,), (7, 200), (90, 3, 5)], ids=str)
def test_a_batch_of_any_shape(tmp_path, shape):
    rng = np.random.default_rng(0)
    a = rng.standard_normal((*shape, 2, 2))
    a[rng.random(shape) < 0.1] = 1
    for name, values in (("a", a), ("b", a[..., 0])):
        zarr.create_array(tmp_path / name, data=values)
    dasksolve.solve_zarr(tmp_path / "a", tmp_path / "b", tmp_path / "out")
    found = survey(tmp_path / "out")
    status = zarr.open_array(tmp_path / "out" / "status")[...]
    flagged = np.argwhere(status).tolist()
    assert found.flagged_map.sum() == len(flagged) == found.counts[Status.SINGULAR]
    assert [list(place) for place in found.flagged] == flagged[:100]
    places = np.argwhere(status.reshape((1,) * (2 - len(shape)) + shape))[:, :2] // found.cell
    wanted = np.zeros_like(found.flagged_map)
    np.add.at(wanted, tuple(places.T), 1)
    assert np.array_equal(found.flagged_map, wanted)
    assert page(tmp_path / "out")


def test_a_job_that_is_not_done_and_damaged(solved):
    folder = Path(solved.out)
    (folder / "status/c/2/0").unlink()
    (folder / "status/c/3/0").write_bytes(b"no chunk")
    zarr.open_group(solved.out, use_consolidated=False).attrs[history.ATTRIBUTE] = "[{]"
    html = page(solved.out)
    assert numbers(html, "pending") == "120"
    assert numbers(html, "damaged").startswith("1 blocks")
    assert "120 not solved yet (grey)" in html
    assert "No run is on record" in html


def test_the_runs_are_kept_and_bounded(batch, many_blocks):
    for i in range(12):
        report = dasksolve.solve_zarr(batch.a_path, batch.b_path, batch.out, resume=i > 0)
    runs = history.read(zarr.open_group(batch.out, mode="r"))
    assert len(runs) == 10
    assert runs[-1]["blocks_resumed"] == report.blocks_resumed == 10
    assert runs[-1]["samples"][-1][1] == 1000
    run = history.Run()
    for i in range(1, 5001):
        changed = {
            **vars(report),
            "seconds": i,
            "counts": {Status.PENDING: 5000 - i},
            "systems": 5000,
        }
        run.note(dasksolve.Report(**changed))
    samples = run.record()["samples"]
    assert 100 <= len(samples) <= 200
    assert samples[-1] == (5000, 5000)
    assert max(np.diff([seconds for seconds, _ in samples])) == 32


def test_a_cluster_keeps_its_run_too(batch, two_processes):
    dasksolve.solve_zarr(batch.a_path, batch.b_path, batch.out, client=two_processes)
    group = zarr.open_group(batch.out, mode="r")
    assert [run["samples"][-1][1] for run in history.read(group)] == [1000]
    assert set(group.metadata.consolidated_metadata.metadata) == {"x", "status"}


def test_the_command_prints_the_summary_and_writes_the_page(solved, tmp_path, capsys):
    path = tmp_path / "page.html"
    assert main(["report", solved.out, "--html", str(path)]) == 3  # some are flagged
    assert re.search(r"^singular +4$", capsys.readouterr().out, re.M)
    assert path.read_text(encoding="utf-8") == page(solved.out)
    assert main(["report", solved.out, "--html", str(tmp_path / "no" / "page.html")]) == 1
    assert "there is no folder" in capsys.readouterr().err
    assert main(["report", solved.out, "--html", str(tmp_path)]) == 1
    refused = capsys.readouterr()
    assert (refused.out, "is a folder; name the file" in refused.err) == ("", True)
    assert main(["report", str(tmp_path / "nothing")]) == 1
    assert "there is no output at" in capsys.readouterr().err


def test_one_block_at_a_time_is_in_memory(tmp_path):
    out, shape, block = tmp_path / "out", (20_000_000,), (500_000,)
    group = zarr.create_group(out, attributes=journal.attributes({"version": 1}, block))
    group.create_array("x", shape=(*shape, 2), chunks=(*block, 2), dtype="f8")
    group.create_array("status", shape=shape, chunks=block, dtype="i1", fill_value=-1)
    tracemalloc.start()
    try:
        assert "20,000,000 not solved yet" in page(out)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


def test_what_is_no_output_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no output at"):
        page(tmp_path / "nothing")
    zarr.create_group(tmp_path / "other")
    with pytest.raises(ValueError, match="dasksolve did not write"):
        page(tmp_path / "other")


def test_a_browser_shows_it_on_a_desk_and_on_a_phone(solved, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(page(solved.out))
    drawn = "[...document.querySelectorAll('svg')].filter(s => s.getBBox().height > 90).length"
    too_wide = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
    text = (
        "Math.min(...[...document.querySelectorAll('svg text')]"
        ".map(t => t.getBoundingClientRect().height))"
    )
    with browser(tmp_path / "profile") as address:
        for width in (1200, 375):
            seen = look_at(address, path.as_uri(), width, [drawn, too_wide, text])
            assert seen["complaints"] == []
            assert seen["urls"] == [path.as_uri()]
            assert seen["answers"][:2] == [4, False]
            assert seen["answers"][2] > 10  # pixels
