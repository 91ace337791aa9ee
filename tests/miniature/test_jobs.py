"""What a job of the miniature works out itself, and what a run is said to cost."""

import json
from types import SimpleNamespace

import pytest

from benchmarks.miniature.cost import WITH_CROPS, estimate, one_of_each_kind
from benchmarks.miniature.jobs import FULL, PACE, answering_at_once, compare_with_forced
from benchmarks.miniature.plan import plan
from benchmarks.miniature.warm import WARM


def rollout(answer, accuracy, crops=1):
    return SimpleNamespace(answer=answer, accuracy=accuracy, crops=(None,) * crops)


def test_an_answer_is_fixed_where_it_stood_before_the_crop():
    final = [
        *(rollout("II", 1.0), rollout("OO", 0.0), rollout("XX", 1.0), rollout(None, 0.0)),
        rollout("II", 1.0, crops=0),  # never cropped: nothing to be before
    ]
    forced = [
        *(rollout("II", 1.0), rollout("OO", 0.0), rollout("II", 0.0), rollout(None, 0.0)),
        rollout("II", 1.0),
    ]
    assert compare_with_forced(final, forced) == {
        "fixed": 2 / 4,  # two rollouts without an answer do not agree
        "kept_wrong": 1 / 3,
        "forced_accuracy": 2 / 5,
        "forced_answers": 4 / 5,
    }


def test_without_a_crop_nothing_is_fixed_or_kept():
    found = compare_with_forced([rollout("II", 1.0, crops=0)], [rollout("II", 1.0)])
    assert (found["fixed"], found["kept_wrong"]) == (None, None)


def test_the_turn_of_the_model_begins_with_the_word_for_answering():
    template = (WARM / "chat_template.jinja").read_text(encoding="utf-8")
    begun = answering_at_once(template)
    assert r"'<|im_start|>assistant\n<think>now</think>'" in begun
    assert begun.replace("<think>now</think>", "") == template
    with pytest.raises(ValueError, match="must be that of the small model"):
        answering_at_once(template.replace("add_generation_prompt", "begin"))


def test_the_cost_grows_with_the_work(tmp_path):
    measured = one_of_each_kind(plan(tmp_path / "pace", [0], PACE, "cpu"))
    assert [job.name for job in measured] == [
        *("pictures", "warm", "selection", "gap", "no-gap", "stage2", "control"),
        *("warm-on-test-54", "warm-on-test-216"),
    ]
    for job in measured:
        job.marker.parent.mkdir(parents=True, exist_ok=True)
        job.marker.write_text(json.dumps({"outcome": None, "seconds": 99.0, "processor_seconds": 2.0}))
    run = tmp_path / "run"
    one = estimate(plan(run, [11], FULL, "cpu"), measured)
    assert estimate(plan(run, [11, 12], FULL, "cpu"), measured) == pytest.approx(2 * one)
    gap = [job for job in plan(run, [11], FULL, "cpu") if job.name == "gap"]
    # One step took two seconds; there are 14.
    assert estimate(gap, measured) == pytest.approx(28.0)
    stage2 = [job for job in plan(run, [11], FULL, "cpu") if job.name == "stage2-on-test-54"]
    # 30 questions as they are and once more answering at once; in the end 480 as they are, with crops.
    assert estimate(stage2, measured) == pytest.approx(480 * WITH_CROPS * 2.0 / (30 * 2))
    with pytest.raises(ValueError, match="none of training of gap"):
        estimate(gap, [job for job in measured if job.name != "gap"])
