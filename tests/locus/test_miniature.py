"""LOCUS in miniature in the smallest size, from pictures to the page, and the figures of the page."""

import json
import re

import numpy as np
import pytest

from benchmarks import locus_page as page
from benchmarks.locus_miniature import TINY, main, make_pictures, other_cues, plan
from benchmarks.miniature.runner import outcome
from lfpc_trl.data.rows import read_rows

PAGE = f"# LOCUS\n\nBefore.\n\n{page.BEGIN}old figures\n{page.END}\nAfter.\n"


@pytest.mark.slow
@pytest.mark.filterwarnings("default::ResourceWarning")
def test_the_smallest_run_from_pictures_to_the_page(tmp_path):
    target, output = tmp_path / "locus.md", tmp_path / "run"
    target.write_text(PAGE)
    arguments = [str(output), "--tiny", "--seeds", "0", "--page", str(target)]
    assert main(arguments) == 0
    text = target.read_text()
    assert text.startswith("# LOCUS\n\nBefore.\n")
    assert text.endswith("\nAfter.\n")
    assert "old figures" not in text
    assert (tmp_path / "locus" / "cues.jpg").stat().st_size < 150_000
    folder = output / "seed-0"
    look = outcome(folder, "locus-on-test")
    assert len(look["greedy"]) == len(look["attention"]) == 3 * TINY.test_pictures
    assert len(outcome(folder, f"{page.EXACT}-on-test")["sampled"]) == 3 * TINY.test_pictures
    assert 0 < min(look["attention"]) < max(look["attention"]) < 1
    assert len(outcome(folder, "locus")) == len(outcome(folder, "control")) == TINY.steps


def test_a_run_of_another_size_is_refused(tmp_path, capsys):
    (tmp_path / page.RUN).write_text(json.dumps({"date": "d", "commit": "c", "scale": {"steps": 3}}))
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--tiny"])
    assert "holds a run of another size" in capsys.readouterr().err


def made(*, gain=0.1, count=12):
    """Two seeds in which the trained model is better by `gain` on every cue, and the control as before."""
    seeds = []
    for seed in (1, 2):
        before = np.linspace(0.2, 0.6, count) + 0.001 * seed
        look = {
            "greedy": before.tolist(),
            "sampled": before.tolist(),
            "alone": (before + 0.1).tolist(),
            "attention": before.tolist(),
            "answers": ["<think>near</think><answer>[1, 2, 30, 40]</answer>"] * count,
            "format": 1.0,
        }
        better = look | {"greedy": (before + gain).tolist()}
        seeds.append({"start": look, "locus": better, "control": look, page.EXACT: better})
    return seeds


def test_claims_compare_the_same_seed():
    seeds = made(gain=0.1)
    found = {claim.text: page.differences(seeds, claim) for claim in page.CLAIMS}
    assert found["Boxes fit better than before"] == pytest.approx([0.1, 0.1])
    assert found["Boxes fit better than the control's"] == pytest.approx([0.1, 0.1])
    assert found["Sampled boxes fit better than before"] == [0.0, 0.0]
    # A third of the cues crosses 0.5: from 4 of 12 to 7 of 12.
    assert found["More boxes have an IoU of 0.5 or more than before"] == pytest.approx([0.25, 0.25])
    # Alone it is as good as before: the surroundings cost 0.1 less.
    assert found["The surroundings cost less IoU than before"] == pytest.approx([-0.1, -0.1])


def test_a_seed_has_its_interval_over_cues():
    lines = page.per_cue(dict(enumerate(made(gain=0.1))))
    assert re.fullmatch(r"\| 0 \| \+0\.100.* \| \+0\.000 \| \+0\.100.* \|", lines[2])
    assert lines[3].startswith("| 1 |")


@pytest.mark.parametrize(
    ("answer", "box"),
    [
        ("<think>near</think><answer>[1, 2, 30, 40]</answer>", [1, 2, 30, 40]),
        ("<answer>[1, 2, 30]</answer>", [0, 0, 0, 0]),
        ("", [0, 0, 0, 0]),
    ],
)
def test_the_box_of_an_answer_that_is_drawn(answer, box):
    assert page.numbers(answer) == box


def test_the_control_is_paid_for_boxes_of_other_pictures(tmp_path):
    make_pictures(tmp_path, TINY, 1)
    rows = read_rows(tmp_path / "data" / "train-cues.jsonl")
    other = other_cues(rows)
    assert len(rows) == len(other) == 3 * TINY.training_pictures
    assert sorted(each.name for each in other.values()) == sorted(row.name for row in rows)
    assert all(other[row.name].image != row.image for row in rows)


def test_every_job_waits_for_what_it_needs(tmp_path):
    jobs = plan(tmp_path, [1, 2], TINY)
    names = [(job.folder.name, job.name) for job in jobs]
    assert len(names) == len(set(names)) == 2 * (2 + len(page.ARMS) + len(page.MODELS))
    assert {f"{model}-on-test" for model in page.MODELS} < {name for _, name in names}
    for job in jobs:
        assert all((job.folder.name, need) in names for need in job.needs)
