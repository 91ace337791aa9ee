import dataclasses
import json
import re

import pytest

from lfpc_trl.evaluate.in_process import RUNS, evaluate
from tests.evaluate.conftest import COLOURS, SHOWN, SIGN, SIZE
from tests.evaluate.scripted import Prompt, ScriptedModel, answer, call, read

SCALE = SHOWN[0] / SIZE[0]
SIGN_SHOWN = [round(side * SCALE) for side in SIGN]
EVERYTHING = [0, 0, *SHOWN]


def honest(prompt: Prompt) -> str:
    """Crops the sign and says what the crop shows; without a crop it has no idea."""
    if len(prompt.pictures) == 1 and "image_zoom_in_tool" in prompt.text:
        return call(SIGN_SHOWN)
    return answer(read(prompt.pictures[-1]) if len(prompt.pictures) > 1 else "grey")


def cheating(prompt: Prompt) -> str:
    """Knows every answer from the question and crops for show."""
    if len(prompt.pictures) == 1 and "image_zoom_in_tool" in prompt.text:
        return call(SIGN_SHOWN)
    number = int(re.search(r"row(\d)", prompt.text)[1])
    return answer(list(COLOURS)[number % 3])


def wild(prompt: Prompt) -> str:
    """Reads its crop, but its crop is the whole picture, in which the sign is lost."""
    if len(prompt.pictures) == 1 and "image_zoom_in_tool" in prompt.text:
        return call(EVERYTHING)
    return answer(read(prompt.pictures[-1]))


def score(script, processor, rows, settings, **options):
    model = ScriptedModel(processor, script)
    return evaluate(model, processor, rows, crop_settings=settings, **options)


def test_an_honest_model_falls_with_noise_and_without_the_tool(processor, rows, settings):
    metrics = score(honest, processor, rows, settings).metrics
    assert metrics == {
        "accuracy": 1.0,
        "accuracy_without_tool": 0.0,
        "accuracy_noise_crop": 0.0,
        "accuracy_target_crop": 1.0,
        "tool_calls": 1.0,
        "failed_calls": 0.0,
        "iou": pytest.approx(1.0),
        "overlap": pytest.approx(1.0),
        "bbox_ratio": pytest.approx(28 * 28 / (224 * 168)),
        "crop_tokens": 1.0,
        "format": 1.0,
        "format_noise_crop": 1.0,
        "questions": 9,
    }


def test_a_cheating_model_does_not_care_about_its_crops(processor, rows, settings):
    metrics = score(cheating, processor, rows, settings).metrics
    for name in ("accuracy", "accuracy_without_tool", "accuracy_noise_crop", "accuracy_target_crop"):
        assert metrics[name] == 1.0


def test_a_reader_with_bad_crops_gains_with_the_target_region(processor, rows, settings):
    metrics = score(wild, processor, rows, settings).metrics
    assert metrics["accuracy"] == 0.0
    assert metrics["accuracy_target_crop"] == 1.0
    assert metrics["overlap"] == 1.0
    assert metrics["bbox_ratio"] == 1.0
    assert metrics["iou"] == pytest.approx(28 * 28 / (224 * 168))


def test_a_model_that_loses_its_form_under_noise_is_told_apart(processor, rows, settings):
    def fragile(prompt: Prompt) -> str:
        return (
            "84 84 84" if len(prompt.pictures) > 1 and read(prompt.pictures[-1]) == "grey" else honest(prompt)
        )

    metrics = score(fragile, processor, rows, settings).metrics
    assert metrics["format"] == 1.0
    assert metrics["format_noise_crop"] == 0.0
    assert metrics["accuracy_noise_crop"] == 0.0


def test_crop_metrics_are_means_over_rollouts_with_a_crop(processor, rows, settings):
    def script(prompt: Prompt) -> str:
        number = int(re.search(r"row(\d)", prompt.text)[1])
        if number == 0 and len(prompt.pictures) == 1:
            return honest(prompt)
        return "no tags" if number == 1 else answer("red")

    metrics = score(script, processor, rows, settings).metrics
    assert metrics["tool_calls"] == pytest.approx(1 / 9)
    assert metrics["iou"] == pytest.approx(1.0)
    assert metrics["format"] == pytest.approx(8 / 9)


def test_without_a_single_crop_the_crop_metrics_are_none(processor, rows, settings):
    metrics = score(lambda _: answer("red"), processor, rows, settings).metrics
    assert metrics["tool_calls"] == 0.0
    for name in ("iou", "overlap", "bbox_ratio", "crop_tokens"):
        assert metrics[name] is None
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics


def test_the_runs_with_other_crops_begin_as_the_first_one_did(processor, rows, settings):
    turns = []

    def fickle(prompt: Prompt) -> str:
        """Crops only the first time a question is put."""
        if len(prompt.pictures) == 1:
            turns.append(prompt.text)
            return call(SIGN_SHOWN) if "image_zoom_in_tool" in prompt.text else answer("grey")
        return honest(prompt)

    score(fickle, processor, rows, settings)
    assert len(turns) == 2 * len(rows)  # as it is, and without the tool


def test_rows_without_targets_have_no_target_run(processor, rows, settings):
    bare = [dataclasses.replace(row, regions=None) for row in rows]
    told = []
    metrics = score(honest, processor, bare, settings, progress=told.append).metrics
    assert metrics["accuracy_target_crop"] is None
    assert metrics["iou"] is None
    assert metrics["accuracy"] == 1.0
    assert metrics["bbox_ratio"] is not None
    assert sum(told) == RUNS * len(rows)


def test_trajectories_are_of_the_run_as_the_model_is(processor, rows, settings):
    told = []
    evaluation = score(honest, processor, rows, settings, batch_size=4, progress=told.append)
    assert [trajectory.row for trajectory in evaluation.trajectories] == rows
    first = evaluation.trajectories[0]
    assert first.scored.crops == (SIGN,)
    assert first.scored.accuracy == 1.0
    crop = first.messages[1]["content"][0]["image"]
    assert crop.getpixel((5, 5)) == COLOURS["red"]
    assert sum(told) == RUNS * len(rows)
    assert evaluation.seconds > 0


def test_the_same_evaluation_twice(tiny_model, rows, settings):
    def once():
        return evaluate(
            tiny_model.model,
            tiny_model.processor,
            rows,
            crop_settings=settings,
            max_new_tokens=8,
            temperature=1.0,
        ).metrics

    assert once() == once()


def test_no_rows_are_refused(processor, settings):
    with pytest.raises(ValueError, match="rows must hold at least one row"):
        score(honest, processor, [], settings)
