"""Two photographs per question: the rows, the starting model's examples, the smallest run, and the page."""

import json
import re

import numpy as np
import pytest

from benchmarks import two_photographs_page as page
from benchmarks.miniature.runner import outcome
from benchmarks.two_photographs import TINY, main, make_pictures
from benchmarks.two_photographs_start import PICTURE_SIZE, call_open, draw_pair, make_example
from lfpc_trl.data.rows import read_rows
from lfpc_trl.demo.world import COLOURS, draw_background

PAGE = f"# Two\n\nBefore.\n\n{page.BEGIN}old figures\n{page.END}\nAfter.\n"


def test_the_sign_is_in_one_picture_and_in_each_equally_often(tmp_path):
    assert make_pictures(tmp_path, TINY, 7) == {"train": 4 * TINY.training_pairs, "test": 4 * TINY.test_pairs}
    rows = read_rows(tmp_path / "data" / "train.jsonl", require_targets=True)
    for first in range(0, len(rows), 4):
        pair = rows[first : first + 4]
        assert [row.targets[0].image for row in pair] == [1, 1, 2, 2]
        assert len({row.pictures for row in pair}) == 1
        colours = {colour for row in pair for colour in COLOURS if colour in row.question}
        assert colours == set(COLOURS)
    other = tmp_path / "other"
    make_pictures(other, TINY, 8)
    test, train = ((other / "data" / f"{name}.jsonl").read_text() for name in ("test", "train"))
    assert test == (tmp_path / "data" / "test.jsonl").read_text()
    assert train != (tmp_path / "data" / "train.jsonl").read_text()


def test_examples_look_into_both_pictures_and_only_the_right_one_is_read():
    rng = np.random.default_rng(0)
    background = draw_background(rng, ["retina"], PICTURE_SIZE)
    scenes = draw_pair(rng, (background, background))
    seen = {(holds, image): 0 for holds in (1, 2) for image in (1, 2)}
    for _ in range(200):
        example = make_example(rng, scenes)
        [asked] = example.asked
        holds = 1 if asked in scenes[0].signs else 2
        last = example.messages[-1]["content"]
        if len(example.messages) == 2:
            assert "<think>now</think>" in last
            continue
        arguments = example.messages[1]["tool_calls"][0]["function"]["arguments"]
        said = json.dumps({"name": "image_zoom_in_tool", "arguments": arguments})
        assert said.startswith(call_open(arguments["image"]))
        seen[holds, arguments["image"]] += 1
        if arguments["image"] != holds:
            assert "<think>unclear</think>" in last
        elif "<think>read</think>" in last:
            assert f"<answer>{asked.text}</answer>" in last
    assert seen[1, 1] > seen[1, 2] > 0
    assert min(seen[2, 1], seen[2, 2]) > 10


@pytest.mark.slow
@pytest.mark.filterwarnings("default::ResourceWarning")
def test_the_smallest_run_from_pictures_to_the_page(tmp_path):
    target, output = tmp_path / "two-photographs.md", tmp_path / "run"
    target.write_text(PAGE)
    assert main([str(output), "--tiny", "--seeds", "0", "--page", str(target)]) == 0
    text = target.read_text()
    assert text.startswith("# Two\n\nBefore.\n")
    assert text.endswith("\nAfter.\n")
    assert "old figures" not in text
    assert (tmp_path / "two-photographs" / "training.svg").exists()
    look = outcome(output / "seed-0", "stage1-on-test")
    assert len(look["sampled"]["accuracy"]) == 4 * TINY.test_pairs
    assert look["conditions"]["questions"] == 4 * TINY.test_pairs
    assert len(outcome(output / "seed-0", "stage1")) == TINY.steps


def test_a_run_of_another_size_is_refused(tmp_path, capsys):
    before = {"date": "d", "commit": "c", "checkpoint": "x", "scale": {"steps": 3}}
    (tmp_path / page.RUN).write_text(json.dumps(before))
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--tiny"])
    assert "holds a run of another size" in capsys.readouterr().err


def made(gain):
    """Before and after stage 1, on twelve questions of which the model looks at eight before."""

    def look(share):
        values = {
            "accuracy": [float(number < 12 * share) for number in range(12)],
            "looked": [1.0] * 8 + [0.0] * 4,
            "first": [1.0] * 6 + [0.0] * 2 + [None] * 4,
            "overlap": [0.5] * 8 + [None] * 4,
        }
        figures = dict.fromkeys(page.OVER_ALL, 0.25) | {"accuracy_target_crop": None}
        return {"conditions": figures, "greedy": values, "sampled": values}

    return {"start": look(0.25), "stage1": look(0.25 + gain)}


def test_claims_compare_the_same_seed_and_leave_out_questions_without_a_look():
    seeds = [made(0.5), made(0.25)]
    found = {claim.text: page.differences(seeds, claim) for claim in page.CLAIMS}
    assert found["Accuracy rises"] == [0.5, 0.25]
    assert found["More first looks are into the right picture, sampled"] == [0.0, 0.0]
    assert found["Noise instead of the crops costs accuracy"] == [0.5, 0.25]
    assert page.value(seeds[0]["start"], "first", "sampled") == 0.75
    assert np.isnan(page.value(seeds[0]["start"], "accuracy_target_crop"))


def test_a_seed_has_its_interval_over_questions():
    [line] = [line for line in page.per_question({3: made(0.5)}) if line.startswith("| 3")]
    assert re.fullmatch(r"\| 3 \| \+0\.500 \(.*\) \| \+0\.500 .* \| \+0\.000 \| \+0\.000 \|", line)
