"""The miniature's results page."""

import json

import pytest

from benchmarks.miniature import page
from benchmarks.miniature.jobs import LOW, TINY
from benchmarks.miniature.plan import evaluation_name, plan
from benchmarks.miniature.verdicts import EXPERIMENTS

METRICS = (
    *("accuracy", "accuracy_without_tool", "accuracy_noise_crop", "accuracy_elsewhere", "format"),
    *("format_noise_crop", "format_elsewhere", "tool_calls", "iou", "overlap", "bbox_ratio", "crop_tokens"),
)


@pytest.fixture
def run(tmp_path):
    """Two whole seeds and a third that lacks one evaluation; every metric is 0.5, but one."""
    output = tmp_path / "run"
    for seed in (1, 2, 3):
        for job in plan(output, [seed], TINY, "cpu"):
            metrics = dict.fromkeys(METRICS, 0.5)
            if job.name == evaluation_name("stage2", "test", LOW):
                metrics["iou"] = 0.7 + 0.001 * seed
            answer = {"tokens": {"96": 6}, "wrong_at_full": 1, "rows": 6}
            job.marker.parent.mkdir(parents=True, exist_ok=True)
            content = {"answer": answer} if job.name == "selection" else metrics
            job.marker.write_text(json.dumps({"outcome": content, "seconds": 30.0}))
    (output / "seed-3" / "done" / "pairs-mean-on-test-pairs-54.json").unlink()
    about = {
        "date": "2026-01-01",
        "commit": "abc",
        "checkpoint": "fed",
        "evaluation_commit": "def",
        "machine": "m",
        "workers": 2,
    }
    (output / page.RUN).write_text(json.dumps(about | {"seeds": [1, 2, 3]}))
    return output


def test_the_page_shows_every_claim_over_the_seeds_that_have_finished_it(run, tmp_path):
    target = tmp_path / "docs" / "miniature.md"
    target.parent.mkdir()
    page.write(run, target)
    text = target.read_text()
    for claims in EXPERIMENTS.values():
        for claim in claims:
            assert f"| {claim.text} | {claim.paper} |" in text
    rises = next(line for line in text.splitlines() if line.startswith("| IoU rises"))
    assert "+0.201, +0.202, +0.203 |" in rises
    assert "**held**" in rises
    last = text[text.index("## Several crops") :]
    assert "Seeds that have finished it: 1, 2." in last
    assert "+0.000, +0.000 |" in last
    assert text.count("Seeds that have finished it") == 1
    assert "| stage 2, full reward | 0.500 ± 0.000 | 0.500 ± 0.000 | 0.702 ± 0.001 |" in text
    assert "## The rule" in text
    count = sum(map(len, EXPERIMENTS.values()))
    assert f"Of {count} claims: {text.count('**held** |')} held, " in text


def test_the_plots_are_there_small_and_the_same_for_the_same_figures(run, tmp_path):
    contents = []
    for name in ("a", "b"):
        target = tmp_path / name / "miniature.md"
        target.parent.mkdir()
        page.write(run, target)
        plots = sorted((target.parent / "miniature").glob("*.svg"))
        assert all(f"(miniature/{plot.name})" in target.read_text() for plot in plots)
        assert len(plots) == len(EXPERIMENTS)
        assert all(plot.stat().st_size < 100_000 for plot in plots)
        contents.append([plot.read_bytes() for plot in plots])
    assert contents[0] == contents[1]


def test_what_was_never_measured_is_a_dash():
    assert page.spread([float("nan")]) == "-"
    assert page.spread([0.25, 0.75]) == "0.500 ± 0.354"
    assert page.spread([50.0]) == "50.0 ± 0.0"
