"""The page about a job's output: its numbers, its drawings, and that a browser shows them."""

import json
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
from dasksolve.job.drawing import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    counts,
    round_numbers,
    short,
)
from dasksolve.job.page import COLOURS, _waiting, drawn, page, summary
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
    assert numbers(html, "options") == "assume_a=gen, on_singular=nan, diagnostics=True"
    assert (numbers(html, "ok"), numbers(html, "singular")) == ("1,195", "4")
    assert numbers(html, "b").endswith("/data.zarr/b")
    assert float(numbers(html, "worst backward error")) < 1e-15
    assert "At (7, 5), (7, 6), (7, 7), (7, 8), (20, 29)" in html


@pytest.mark.parametrize(
    ("ridge", "said"), [(None, ""), (2, ", ridge=2.0"), ([0, 1], ", ridge=[0.0, 1.0]")]
)
def test_a_ridge_is_said_where_there_is_one(tmp_path, ridge, said):
    zarr.create_array(tmp_path / "y", data=np.ones((9, 4)))
    dasksolve.regress_zarr(
        tmp_path / "y", np.vander(np.arange(9), 2), tmp_path / "out", ridge=ridge
    )
    options = numbers(page(tmp_path / "out"), "options")
    assert options == f"axis=0, min_count=2, on_deficient=nan{said}"


def test_a_run_that_found_all_done_has_no_throughput(solved):
    drawing = re.search(r"<h2>Throughput.*?</section>", page(solved.out), re.S)[0]
    dasksolve.solve_zarr(solved.a_path, solved.b_path, solved.out, diagnostics=True, resume=True)
    after = page(solved.out)
    assert ">run 2</th>" in after
    assert drawing in after
    found = survey(solved.out)
    for run in found.runs:
        del run["resumed"]  # which older versions did not keep
    assert drawing in drawn(found)


def test_what_a_run_found_done_is_not_in_its_throughput(solved):
    for place in ("2/0", "9/0"):
        Path(solved.out, "status/c", place).unlink()
    dasksolve.solve_zarr(solved.a_path, solved.b_path, solved.out, diagnostics=True, resume=True)
    run = survey(solved.out).runs[-1]
    assert (run["samples"][-1][1], run["resumed"][-1]) == (1200, 960)
    assert f"<p>{short(240 / run['samples'][-1][0])} systems a second on average" in page(
        solved.out
    )


def test_a_page_reads_past_the_pipeline_of_zarr(solved, monkeypatch):
    """It takes a millisecond for each chunk: minutes, of the blocks of a large job."""
    expected = page(solved.out)

    def read(*_):
        raise AssertionError

    monkeypatch.setattr(zarr.Array, "__getitem__", read)
    assert survey(solved.out).unread == 0
    assert page(solved.out) == expected


def test_every_drawing_is_one_that_says_what_it_is(solved):
    drawings = re.findall(r"<svg.*?</svg>", page(solved.out), re.S)
    labels = [ElementTree.fromstring(drawing).get("aria-label") for drawing in drawings]
    assert [label.split(":")[0] for label in labels] == [
        "Map of the flagged systems",
        "Systems solved a second over time",
        "Share of the time that threads waited",
        "Histogram of rcond",
        "Histogram of backward error",
    ]


def test_what_is_surveyed(solved):
    found = survey(solved.out)
    assert found.flagged_count == 5
    assert found.maps[Status.NONFINITE].sum() == found.maps[Status.NONFINITE][20, 29] == 1
    assert found.maps[Status.SINGULAR].sum() == 4
    assert found.flagged_map.sum() == 5
    assert found.flagged_map[7, 5:9].tolist() == [1, 1, 1, 1]
    rcond, errors = (found.histograms[name] for name in ("rcond", "backward_error"))
    assert (rcond.counts.sum(), rcond.zero, rcond.undefined) == (1195, 4, 1)
    assert errors.counts.sum() + errors.zero == 1195
    stored = zarr.open_array(solved.out + "/rcond")[...]
    assert rcond.least == stored[stored > 0].min()
    halves = np.floor(2 * np.log10(stored[stored > 0])) + 40
    assert np.array_equal(np.bincount(halves.astype(int), minlength=40), rcond.counts)


def test_each_kind_of_flag_has_a_colour_of_its_own(solved):
    kinds = [status for status in Status if status is not Status.OK]
    assert len({COLOURS[status] for status in kinds}) == len(kinds)
    html = page(solved.out)
    cells = re.findall(r'<rect x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" [^>]*fill="(#\w+)"', html)
    wide, high = (WIDTH - LEFT - RIGHT) / 30, (HEIGHT - TOP - BOTTOM) / 40

    def cell(i, j, count):
        return f"{LEFT + j * wide:.2f}", f"{TOP + i * high:.2f}", f"{count * wide:.2f}"

    assert (*cell(7, 5, 4), COLOURS[Status.SINGULAR]) in cells
    assert (*cell(20, 29, 1), COLOURS[Status.NONFINITE]) in cells
    for status, words in ((Status.SINGULAR, "4 singular"), (Status.NONFINITE, "1 nonfinite")):
        assert f'background:{COLOURS[status]};opacity:1"></i>{words}<' in html


def test_a_cell_of_many_systems_is_darker_where_more_of_them_are_flagged(tmp_path):
    a = np.tile(np.eye(2), (8000, 1, 1))  # 100 systems a cell
    a[150], a[7900:] = 0, np.nan
    a[250:253] = 0
    a[253:260, 0] = np.inf
    for name, values in (("a", a), ("b", np.ones((8000, 2)))):
        zarr.create_array(tmp_path / name, data=values)
    dasksolve.solve_zarr(tmp_path / "a", tmp_path / "b", tmp_path / "out")
    drawn = re.findall(r'fill="(#\w+)" fill-opacity="([\d.]+)"', page(tmp_path / "out"))
    assert drawn == [
        (COLOURS[Status.SINGULAR], "0.6"),
        (COLOURS[Status.NONFINITE], "0.8"),  # of which most are
        (COLOURS[Status.NONFINITE], "1.0"),
    ]
    assert "up to 0.1%" in page(tmp_path / "out")


@pytest.mark.parametrize(
    ("end", "labels"),
    [
        (1, "0 0.2 0.4 0.6 0.8 1"),
        (0.57, "0 0.1 0.2 0.3 0.4 0.5"),
        (7.6, "0 2 4 6"),
        (1680, "0 500 1,000 1,500"),
        (99_990, "0 20 k 40 k 60 k 80 k"),
        (2.3e6, "0 500 k 1 M 1.5 M 2 M"),
    ],
)
def test_numbers_on_an_axis_are_round_and_end_near_the_data(end, labels):
    ticks = round_numbers(end)
    assert " ".join(label for _, label in ticks) == labels
    assert 0.75 < ticks[-1][0] <= 1


@pytest.mark.parametrize(
    ("end", "labels"),
    [(1.05, "0 1"), (3.15, "0 1 2 3"), (7.35, "0 2 4 6"), (15_750, "0 5,000 10 k 15 k")],
)
def test_counts_are_whole(end, labels):
    assert " ".join(label for _, label in counts(end)) == labels


@pytest.mark.parametrize(
    ("shape", "systems"), [((), "1 (one system)"), ((3,), "3"), ((0, 5), "0 (0 by 5)")], ids=str
)
def test_the_shape_of_a_batch_is_said_where_it_says_more(tmp_path, shape, systems):
    for name, values in (("a", np.ones((*shape, 1, 1))), ("b", np.ones((*shape, 1)))):
        zarr.create_array(tmp_path / name, data=values)
    dasksolve.solve_zarr(tmp_path / "a", tmp_path / "b", tmp_path / "out")
    assert numbers(page(tmp_path / "out"), "systems") == systems


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
    assert ">unfinished<" not in page(solved.out)
    (folder / "status/c/2/0").unlink()
    assert numbers(page(solved.out), "unfinished").startswith("resume the job (--resume)")
    (folder / "status/c/3/0").write_bytes(b"no chunk")
    zarr.open_group(solved.out, use_consolidated=False).attrs[history.ATTRIBUTE] = "[{]"
    html = page(solved.out)
    assert numbers(html, "pending") == "120"
    assert numbers(html, "damaged").startswith("1 block ")
    assert "120 not solved yet" in html
    assert "No run is on record" in html


def test_why_blocks_failed_is_told_until_they_are_done(batch, many_blocks):
    chunk = Path(batch.a_path, "c/3/0/0")
    content = chunk.read_bytes()
    chunk.write_bytes(b"<no chunk>")
    with pytest.raises(dasksolve.BlockErrors) as info:
        dasksolve.solve_zarr(batch.a_path, batch.b_path, batch.out)
    [failure] = info.value.failures
    assert dict(summary(survey(batch.out)))["failed"] == str(failure)
    assert numbers(page(batch.out), "failed").startswith("block 3 [300:400]: ")
    chunk.write_bytes(content)
    dasksolve.solve_zarr(batch.a_path, batch.b_path, batch.out, resume=True)
    assert "failed" not in dict(summary(survey(batch.out)))


def test_the_runs_are_kept_and_bounded(batch, many_blocks):
    for i in range(12):
        report = dasksolve.solve_zarr(batch.a_path, batch.b_path, batch.out, resume=i > 0)
    runs = survey(batch.out).runs
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


def test_how_long_threads_waited_is_drawn():
    run = {"samples": [[1, 5], [2, 10], [4, 20]], "waited": [0.5, 1.5, 1.5]}
    drawn = _waiting(run, np.array([0.0, 2.0, 4.0]))
    left, middle, right = LEFT, (LEFT + WIDTH - RIGHT) / 2, WIDTH - RIGHT
    corners = [(left, 0.75), (middle, 0.75), (middle, 0), (right, 0)]  # 1.5 s of 2, then none
    points = " ".join(f"{x:.1f},{TOP + 80 * (1 - share):.1f}" for x, share in corners)
    assert f'points="{points}"' in drawn
    assert "38% of the time" in drawn
    assert _waiting({"samples": run["samples"]}, np.array([0.0, 4.0])) == ""


def test_a_cluster_keeps_its_run_too(batch, two_processes):
    dasksolve.solve_zarr(batch.a_path, batch.b_path, batch.out, client=two_processes)
    group = zarr.open_group(batch.out, mode="r")
    assert [run["samples"][-1][1] for run in survey(batch.out).runs] == [1000]
    assert set(group.metadata.consolidated_metadata.metadata) == {"x", "status"}


def test_the_command_prints_the_summary_and_writes_the_page(solved, tmp_path, capsys):
    path = tmp_path / "page.html"
    assert main(["report", solved.out, "--html", str(path)]) == 3  # some are flagged
    printed = capsys.readouterr().out
    assert re.search(r"^singular +4$", printed, re.M)
    assert re.search(rf"^page +{re.escape(str(path))}$", printed, re.M)
    assert path.read_text(encoding="utf-8") == page(solved.out)
    assert main(["report", solved.out, "--html", str(tmp_path / "no" / "page.html")]) == 1
    assert "there is no folder" in capsys.readouterr().err
    assert main(["report", solved.out, "--html", str(tmp_path)]) == 1
    refused = capsys.readouterr()
    assert (refused.out, "is a folder; name the file" in refused.err) == ("", True)
    assert main(["report", str(tmp_path / "nothing")]) == 1
    assert "nothing; solve or regress writes it" in capsys.readouterr().err


def test_a_page_in_the_home_folder(solved, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["report", solved.out, "--html=~/page.html", "--json"]) == 3
    assert (tmp_path / "page.html").is_file()


def test_the_command_prints_json(solved, tmp_path, capsys):
    assert main(["report", solved.out, "--json", "--html", str(tmp_path / "page.html")]) == 3
    found = json.loads(capsys.readouterr().out)
    assert found["page"] == str(tmp_path / "page.html")
    assert (found["systems"], found["batch_shape"]) == (1200, [40, 30])
    assert (found["counts"]["OK"], found["flagged_count"]) == (1195, 5)
    assert found["flagged"] == [[7, 5], [7, 6], [7, 7], [7, 8], [20, 29]]
    assert 0 < found["least_rcond"] < 1
    assert found["largest_backward_error"] < 1e-15
    assert found["job"]["a"]["location"] == solved.a_path
    assert found["runs"][-1]["samples"][-1][1] == 1200


def test_a_report_names_places_in_a_batch_of_several_dimensions(solved, capsys):
    words = [solved.a_path, solved.b_path, solved.out, "--resume", "--diagnostics"]
    places = [[7, 5], [7, 6], [7, 7], [7, 8], [20, 29]]
    assert main(["solve", *words, "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["flagged"] == places
    assert main(["solve", *words]) == 3
    assert re.search(r"^flagged +\(7, 5\), .*, \(20, 29\)$", capsys.readouterr().out, re.M)
    report = dasksolve.check_zarr(solved.a_path, solved.b_path, solved.out)
    assert report.flagged == tuple(30 * i + j for i, j in places)


def test_a_system_without_a_batch_is_flagged_as_number_0(tmp_path):
    paths = [tmp_path / name for name in ("a", "b", "out")]
    for path, shape in zip(paths, ((3, 3), (3,)), strict=False):
        zarr.create_array(path, data=np.ones(shape))
    report = dasksolve.solve_zarr(*paths)
    assert report.to_dict()["flagged"] == survey(paths[-1]).to_dict()["flagged"] == [0]


def test_one_block_at_a_time_is_in_memory(tmp_path):
    out, shape, block = tmp_path / "out", (20_000_000,), (500_000,)
    record = journal.record({"version": 1}, block, "run", ())
    group = zarr.create_group(out, attributes=journal.attributes(record))
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
    # Texts that touch each other, a mark beside them that is none of their own, or the edge.
    touching = """
        [...document.querySelectorAll('svg')].flatMap(svg => {
            const edge = svg.getBoundingClientRect();
            const written = [...svg.querySelectorAll('text')];
            const texts = written.map(t => t.getBoundingClientRect());
            const marks = [...svg.querySelectorAll('line, rect, polyline')]
                .map(m => m.getBoundingClientRect());
            const apart = (a, b) =>
                a.right <= b.left || b.right <= a.left || a.bottom <= b.top || b.bottom <= a.top;
            return written.filter((_, i) => {
                const t = texts[i];
                return t.left < edge.left || t.right > edge.right || t.bottom > edge.bottom ||
                    texts.some((u, j) => i < j && !apart(t, u)) || marks.some(m => !apart(t, m));
            }).map(t => t.textContent);
        })"""
    with browser(tmp_path / "profile") as address:
        for width in (1200, 375):
            seen = look_at(address, path.as_uri(), width, [drawn, too_wide, text, touching])
            assert seen["complaints"] == []
            assert seen["urls"] == [path.as_uri()]
            assert seen["answers"][:2] == [5, False]
            assert seen["answers"][2] > 10  # pixels
            assert seen["answers"][3] == []
