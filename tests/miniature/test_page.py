"""The miniature's results page."""

import json

import pytest

from benchmarks.miniature import page
from benchmarks.miniature.jobs import LOW, TINY
from benchmarks.miniature.plan import evaluation_name, plan
from benchmarks.miniature.verdicts import FAMILY, LEFT_OUT

METRICS = (
    *("accuracy", "accuracy_noise_crop", "accuracy_elsewhere", "format"),
    *("format_noise_crop", "format_elsewhere", "tool_calls", "iou", "overlap", "bbox_ratio", "crop_tokens"),
    *("fixed", "kept_wrong", "forced_accuracy", "forced_answers"),
)


@pytest.fixture
def run(tmp_path):
    """Three whole seeds; every metric is 0.5, but one."""
    output = tmp_path / "run"
    for seed in (1, 2, 3):
        for job in plan(output, [seed], TINY, "cpu"):
            content: object = dict.fromkeys(METRICS, 0.5)
            if job.name == evaluation_name("stage2", "test", LOW):
                content = dict.fromkeys(METRICS, 0.5) | {"iou": 0.7 + 0.001 * seed}
            if job.name == "selection":
                content = {"answer": {"tokens": {"96": 6}, "wrong_at_full": 1, "rows": 6}}
            if job.name == "warm":
                content = {"start": "other" if seed == 3 else "shipped"}
            job.marker.parent.mkdir(parents=True, exist_ok=True)
            job.marker.write_text(
                json.dumps({"outcome": content, "seconds": 30.0, "processor_seconds": 36.0})
            )
    about = {"date": "2026-01-01", "commit": "abc", "checkpoint": "fed", "machine": "m", "workers": 1}
    (output / page.RECORD).write_text(json.dumps(about | {"seeds": [1, 2, 3], "scale": "tiny"}))
    return output


def written(run, tmp_path, name="docs"):
    target = tmp_path / name / "miniature.md"
    target.parent.mkdir()
    page.write(run, target)
    return target


def row_of(text, claim):
    return next(line for line in text.splitlines() if line.startswith(f"| {claim} "))


def test_the_page_decides_every_claim_of_the_family_and_shows_the_others(run, tmp_path):
    text = written(run, tmp_path).read_text()
    for claim in FAMILY:
        assert f"| {claim.text} | {claim.paper} |" in text
    rises = row_of(text, "IoU rises")
    assert "| +0.202 (+0.200 to +0.204) | +0.000 (+0.000 to +0.000) |" in rises
    assert rises.endswith("| **held** | 1.00 |")
    assert row_of(text, "Accuracy rises").endswith("| 1.000 | **did not hold** | 0.01 |")
    assert f"Of {len(FAMILY)} claims: {text.count('**held** |')} held, " in text
    # What cannot be decided stands below with what the first run found.
    assert row_of(text, "Two stages are more accurate").endswith("| -0.011 (-0.144 to +0.122) | 125 |")
    assert all(f"| {claim.text} |" in text for claim in LEFT_OUT)
    assert "| stage 2, full reward | 0.500 ± 0.000 | 0.500 ± 0.000 | 0.702 ± 0.001 |" in text
    assert "Seeds that start from a checkpoint of their own: 3." in text
    assert "Whole seeds: 1, 2, 3 of 3." in text
    assert "0.8 processor hours" in text


def test_no_verdict_before_the_last_seed(run, tmp_path):
    (run / "seed-3" / "done" / "control-on-test-54-sampled.json").unlink()
    text = written(run, tmp_path).read_text()
    assert "no verdict before its last seed is whole" in text
    assert "Whole seeds: 1, 2 of 3." in text
    assert "**held**" not in text
    assert "**did not hold**" not in text
    assert "| +0.201 (+0.195 to +0.208) |" in row_of(text, "IoU rises")


def test_a_run_without_a_whole_seed_says_so(run, tmp_path):
    for seed in (1, 2, 3):
        (run / f"seed-{seed}" / "done" / "warm.json").unlink()
    assert "Whole seeds: none of 3." in written(run, tmp_path).read_text()


def test_the_plots_are_there_small_and_the_same_for_the_same_figures(run, tmp_path):
    contents = []
    for name in ("a", "b"):
        target = written(run, tmp_path, name)
        plots = sorted((target.parent / "miniature").glob("*.svg"))
        assert [plot.stem for plot in plots] == ["before", "curves", "stage1", "stage2"]
        assert all(f"(miniature/{plot.name})" in target.read_text() for plot in plots)
        assert all(plot.stat().st_size < 100_000 for plot in plots)
        contents.append([plot.read_bytes() for plot in plots])
    assert contents[0] == contents[1]


def test_what_was_never_measured_is_a_dash():
    assert page.spread([float("nan")]) == "-"
    assert page.spread([0.25, 0.75]) == "0.500 ± 0.354"
    assert page.spread([50.0]) == "50.0 ± 0.0"
