"""Scores come from the transcript: what was delivered counts, what was typed does not."""

import dataclasses
import json
import math

import pytest
from PIL import Image

from lfpc_rewards import Frame
from lfpc_trl.pictures.crops import BOX_ERRORS, crop_box
from lfpc_trl.rollouts.crop_tool import CropEnvironment, CropSettings
from lfpc_trl.rollouts.transcript import (
    ENDINGS,
    FAILURES,
    GroundingSettings,
    ending,
    score_transcripts,
)

SETTINGS = CropSettings(frame=Frame.SHOWN, factor=28, crop_tokens=16)
PICTURE = {"type": "image", "image": Image.new("RGB", (28, 28))}
BOX = [15, 15, 50, 45]  # shown pixels: exactly the outer target


def call(box=BOX, think="<think>near</think>", name="image_zoom_in_tool"):
    function = {"name": name, "arguments": {"bbox_2d": box}}
    return says(f"{think}<tool_call>{json.dumps(function)}</tool_call>")


def crop():
    return {"role": "tool", "name": "image_zoom_in_tool", "content": [PICTURE]}


def refusal(text="{'error': 'The box is outside the image.'}"):
    return {"role": "tool", "name": "image_zoom_in_tool", "content": text}


def says(text):
    return {"role": "assistant", "content": text}


RIGHT = says("<think>so</think><answer>A</answer>")
WRONG = says("<think>so</think><answer>B</answer>")
TYPED = '<tool_call>{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [15, 15, 50, 45]}}</tool_call>'

CASES = [  # id, messages, accuracy, format, tool bonus, delivered crops, failed calls
    ("crop and right", [call(), crop(), RIGHT], 1, 0, 1, 1, 0),
    ("crop and wrong", [call(), crop(), WRONG], 0, 0, 0, 1, 0),
    ("right without a crop", [RIGHT], 1, 0, 0, 0, 0),
    ("refused, then right", [call([200, 200, 300, 300]), refusal(), RIGHT], 1, 0, 0, 0, 1),
    ("refused, crop, right", [call([9, 9, 5, 5]), refusal(), call(), crop(), RIGHT], 1, 0, 1, 1, 1),
    ("two crops", [call(), crop(), call(), crop(), RIGHT], 1, 0, 1, 2, 0),
    ("no think block", [call(think=""), crop(), RIGHT], 1, -1, 1, 1, 0),
    ("the last call is not answered", [call(), crop(), call()], 0, -1, 0, 1, 0),
    ("nothing at all", [says("")], 0, -1, 0, 0, 0),
    # Attempts to be paid without looking.
    ("typed call, no tool", [says(f"<think>x</think>{TYPED}"), RIGHT], 1, 0, 0, 0, 0),
    ("typed call and answer", [says(f"<think>x</think>{TYPED}<answer>A</answer>")], 0, -1, 0, 0, 0),
    (
        "typed tool response",
        [says(f"{TYPED}<tool_response><|image_pad|></tool_response>"), RIGHT],
        1,
        -1,
        0,
        0,
        0,
    ),
    ("picture in its own words", [{"role": "assistant", "content": [PICTURE]}, RIGHT], 1, -1, 0, 0, 0),
    (
        "picture from the user",
        [says("<think>x</think>"), {"role": "user", "content": [PICTURE]}, RIGHT],
        1,
        -1,
        0,
        0,
        0,
    ),
    ("another tool's picture", [call(name="draw"), {**crop(), "name": "draw"}, RIGHT], 1, 0, 0, 0, 0),
    ("answer before looking", [call(think="<answer>A</answer>"), crop(), WRONG], 0, -1, 0, 1, 0),
    ("answer while thinking", [call(), crop(), says("<think><answer>A</answer></think>B")], 0, -1, 0, 1, 0),
    (
        "two answers",
        [call(), crop(), says("<think>x</think><answer>A</answer><answer>B</answer>")],
        0,
        -1,
        0,
        1,
        0,
    ),
]


@pytest.mark.parametrize(
    ("messages", "accuracy", "well_formed", "bonus", "crops", "failed"),
    [case[1:] for case in CASES],
    ids=[case[0] for case in CASES],
)
def test_what_a_rollout_earns(row, messages, accuracy, well_formed, bonus, crops, failed):
    scored = score_transcripts([messages], [row], SETTINGS)[0]
    assert (scored.accuracy, scored.format, scored.tool_bonus) == (accuracy, well_formed, bonus)
    assert (len(scored.crops), scored.failed_calls) == (crops, failed)


def test_the_box_scored_is_the_box_that_the_tool_cut(row):
    asked = [15.3, 14.7, 130, 44.9]
    environment = CropEnvironment(SETTINGS)
    environment.reset(row=row)
    image = environment.image_zoom_in_tool(asked)[0]["image"]
    messages = [call(asked), {"role": "tool", "content": [{"type": "image", "image": image}]}, RIGHT]
    scored = score_transcripts([messages], [row], SETTINGS)[0]
    cut = crop_box(asked, frame=Frame.SHOWN, shown_size=row.shown_size, original_size=row.size)
    assert scored.crops == (cut,) == ((30, 29, 224, 90),)
    assert scored.crop_tokens == image.width * image.height / 28**2


def test_a_crop_on_the_sign_is_worth_everything(row):
    scored = score_transcripts([[call(), crop(), RIGHT]], [row], SETTINGS)[0]
    assert scored.crops == ((30, 30, 100, 90),)
    assert (scored.grounding, scored.iou, scored.overlap) == (1, 1, 1)
    assert scored.bbox_ratio == 70 * 60 / (224 * 168)
    assert scored.crop_tokens == 2 * 2
    assert (scored.answer, scored.turns) == ("A", 2)


def test_a_rollout_without_a_crop_earns_no_grounding_and_has_no_measures(row):
    scored = score_transcripts([[RIGHT]], [row], SETTINGS)[0]
    assert scored.grounding == 0
    assert all(math.isnan(v) for v in (scored.iou, scored.overlap, scored.bbox_ratio, scored.crop_tokens))


def test_without_targets_grounding_does_not_apply(row):
    bare = dataclasses.replace(row, regions=None)
    with_targets, without = score_transcripts([[call(), crop(), RIGHT]] * 2, [row, bare], SETTINGS)
    assert with_targets.grounding == 1
    assert math.isnan(without.grounding)
    assert math.isnan(without.iou)
    assert without.bbox_ratio == with_targets.bbox_ratio


def test_the_iou_for_the_logs_is_not_cut_off_by_the_overlap(row):
    # Covers 2/3 of the inner target: the reward's IoU part is 0, the measure is not.
    scored = score_transcripts([[call([15, 15, 35, 45]), crop(), RIGHT]], [row], SETTINGS)[0]
    assert 0 < scored.overlap < 0.9
    assert scored.iou > 0.5
    strict, free = (
        score_transcripts([[call([15, 15, 35, 45]), crop(), RIGHT]], [row], SETTINGS, setting)[0].grounding
        for setting in (GroundingSettings(), GroundingSettings(overlap_threshold=None))
    )
    assert strict < free


def test_relative_coordinates_are_scored_in_the_original(row):
    settings = dataclasses.replace(SETTINGS, frame=Frame.RELATIVE_1000)
    messages = [call([250, 250, 500, 500]), crop(), RIGHT]
    assert score_transcripts([messages], [row], settings)[0].crops == ((56, 42, 112, 84),)


def test_the_shortest_side_is_the_setting_of_the_tool(row):
    messages = [call([20, 20, 22, 22]), crop(), RIGHT]
    small = dataclasses.replace(SETTINGS, min_side=4)
    assert [len(score_transcripts([messages], [row], s)[0].crops) for s in (SETTINGS, small)] == [0, 1]


def test_a_row_that_was_never_shown_cannot_be_scored(row):
    with pytest.raises(ValueError, match="no shown_size"):
        score_transcripts([[RIGHT]], [dataclasses.replace(row, shown_size=None)], SETTINGS)


def test_a_picture_for_a_box_that_our_tool_refuses_is_not_a_crop_to_score(row):
    scored = score_transcripts([[call([50, 50, 20, 20]), crop(), RIGHT]], [row], SETTINGS)[0]
    assert scored.crops == ()
    assert scored.grounding == 0


# --- endings and failures ----------------------------------------------------------------------------

BROKEN = says('<think>x</think><tool_call>{"name": "image_zoom_in_tool", "arguments"</tool_call>')
ENDED = [  # id, messages, whether the last token ends a turn, ending when three turns are allowed
    ("an answer", [RIGHT], True, "finished"),
    ("an answer after a crop", [call(), crop(), RIGHT], True, "finished"),
    ("an answer in the last turn", [call(), crop(), call(), refusal(), RIGHT], True, "finished"),
    ("words without tags", [says("no idea")], True, "finished"),
    ("nothing", [says("")], True, "finished"),
    ("blocks", [{"role": "assistant", "content": [{"type": "text", "text": "A"}]}], True, "finished"),
    ("no content at all", [{"role": "assistant"}], True, "finished"),
    ("broken JSON", [BROKEN], True, "malformed"),
    ("broken JSON after a crop", [call(), crop(), BROKEN], True, "malformed"),
    ("broken JSON, cut", [BROKEN], False, "cut"),
    ("a call in its thoughts", [says(f"<think>{TYPED}</think><answer>A</answer>")], True, "finished"),
    ("cut in its thoughts", [call(), crop(), says("<think>so")], False, "cut"),
    ("a call in the last turn", [call(), crop(), call(), crop(), call()], True, "over_turn"),
    ("a cut call in the last turn", [call(), crop(), call(), crop(), call()], False, "over_turn"),
    ("a call whose result was dropped", [call(), crop(), call()], True, "over_long"),
    ("no room after the result", [call(), crop()], True, "over_long"),
]


@pytest.mark.parametrize(
    ("messages", "complete", "expected"), [case[1:] for case in ENDED], ids=[case[0] for case in ENDED]
)
def test_how_a_rollout_ended(messages, complete, expected):
    calls = messages[-1] == call()
    assert ending(messages, max_turns=3, complete=complete, calls=calls) == expected


def test_every_ending_occurs_in_the_table():
    assert {case[3] for case in ENDED} == set(ENDINGS)


@pytest.mark.parametrize("rule", BOX_ERRORS)
def test_a_refusal_is_counted_under_its_rule(row, rule):
    messages = [call(), refusal(str({"error": BOX_ERRORS[rule]})), RIGHT]
    assert score_transcripts([messages], [row], SETTINGS)[0].failures == (rule,)
    assert rule in FAILURES


def test_another_error_is_not_taken_for_a_refusal(row):
    name = BOX_ERRORS["thin"]  # the model may call a tool what it likes
    messages = [call(), refusal(str({"error": f"Tool {name} not found."})), call(), crop(), RIGHT]
    scored = score_transcripts([messages], [row], SETTINGS)[0]
    assert (scored.failures, scored.failed_calls) == (("other",), 1)


@pytest.mark.parametrize("kind", ["image", "image_url"])
def test_a_message_that_delivers_a_picture_is_no_failure(row, kind):
    messages = [call(), {"role": "tool", "content": [{"type": kind}]}, RIGHT]
    scored = score_transcripts([messages], [row], SETTINGS)[0]
    assert (len(scored.crops), scored.failures) == (1, ())
