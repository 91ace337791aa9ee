"""VLM-R1: recorded calls, loopholes, the rules every preset keeps, what it reads."""

import json
import math
import re

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lfpc_rewards import presets
from lfpc_rewards.presets._boxes import INTEGER_BOX, numbers_in
from lfpc_rewards.presets._similarity import similarity
from lfpc_rewards.presets.systems.vlm_r1 import SYSTEM, named_option
from tests.presets.contract import fools_exact_but_not_strict, keeps_the_contract, texts
from tests.presets.replay import close, number, recorded

SIZES = {"image_sizes": (100, 100), "shown_sizes": (100, 100)}
BOX = "<think>so</think><answer>[10, 10, 60, 60]</answer>"


class Plain:
    parse = staticmethod(lambda text: [text])
    verify = staticmethod(lambda gold, answer: gold == answer)


# --- recorded calls ----------------------------------------------------------------------------------


def by_iou(row):
    call = row["input"]
    _, rows, columns = call["image_grid_thw"]
    sizes = {"image_sizes": call["image_size"], "shown_sizes": (columns * 14, rows * 14)}
    return presets.vlm_r1([call["content"]], [call["solution"]], **sizes).iou[0]


def by_rec_format(row):
    return presets.vlm_r1([row["input"]["content"]], [[0, 0, 9, 9]], **SIZES).format[0]


def by_method(method):
    def score(row):
        call = row["input"]
        math_verify = pytest.importorskip("math_verify") if method == "default" else None
        return presets.vlm_r1_accuracy([call["content"]], [call["sol"]], method=method, math=math_verify)[0]

    return score


def by_repetition(row):
    repair = pytest.importorskip("json_repair").repair_json if "{bad" in row["input"]["content"] else None
    return presets.vlm_r1_repetition([row["input"]["content"]], repair=repair)[0]


REPLAY = {
    "iou_reward": by_iou,
    "format_reward_rec": by_rec_format,
    "format_reward": lambda row: presets.vlm_r1_format([row["input"]["content"]])[0],
    "mcq_reward": by_method("mcq"),
    "yes_no_reward": by_method("yes_no"),
    "all_match_reward": by_method("all_match"),
    "default_accuracy_reward": by_method("default"),
    "detection_score": by_method("detection"),
    "repetition_reward": by_repetition,
}


@pytest.mark.parametrize("row", recorded("vlm_r1"))
def test_exact_gives_what_vlm_r1_gave(row):
    if row["function"] == "extract_choice":
        assert named_option(row["input"]["text"]) == row["expected"]
    else:
        assert close(REPLAY[row["function"]](row), number(row["expected"]))


# --- loopholes ---------------------------------------------------------------------------------------


def total(mode, said, part="total"):
    return getattr(presets.vlm_r1([said], [[10, 10, 60, 60]], mode=mode, **SIZES), part)[0]


def accuracy(mode, method, gold, *said):
    completions = [f"<think>so</think><answer>{text}</answer>" for text in said]
    return presets.vlm_r1_accuracy(completions, [gold] * len(said), method=method, math=Plain, mode=mode)


def detections(*items):
    return "```json\n" + json.dumps([{"bbox_2d": box, "label": label} for box, label in items]) + "\n```"


def test_tricks_fool_exact_and_not_strict():
    far = "<think>so</think><answer>[70, 70, 90, 90]</answer>"
    gold = detections(([0, 0, 50, 50], "cat"))
    fools_exact_but_not_strict(
        SYSTEM,
        {
            "format around anything": lambda mode: (
                total(mode, f"<tool_call>{BOX} {{[1, 2, 3, 4]}}</answer>{far}", "format"),
                total(mode, "no box", "format"),
            ),
            "several boxes": lambda mode: (
                total(mode, BOX.replace("60]", "60], [70, 70, 90, 90]"), "iou"),
                total(mode, far, "iou"),
            ),
            "first message": lambda mode: (
                total(mode, [{"role": "assistant", "content": BOX}, {"role": "assistant", "content": far}]),
                total(mode, [{"role": "assistant", "content": far}, {"role": "assistant", "content": far}]),
            ),
            "answer without tags": lambda mode: tuple(
                presets.vlm_r1_accuracy(["red", "blue"], ["red"] * 2, method="all_match", mode=mode)
            ),
            "yes or no inside a word": lambda mode: accuracy(mode, "yes_no", "no", "nobody, yes", "yes"),
            "several options": lambda mode: accuracy(mode, "mcq", "A", "I think A, but B.", "B."),
            "nearly the right word": lambda mode: accuracy(mode, "default", "brown", "crown", "xyz"),
            "boxes with wrong labels": lambda mode: accuracy(
                mode,
                "detection",
                gold,
                detections(([0, 0, 50, 50], "dog")),
                detections(([60, 60, 90, 90], "dog")),
            ),
        },
    )


# --- the rules every preset keeps --------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["exact", "strict"])
@given(rows=st.lists(texts, max_size=6))
def test_any_text_gets_a_score_of_its_own(mode, rows):
    gold = detections(([0, 0, 9, 9], "a"))
    keeps_the_contract(
        lambda said: presets.vlm_r1(said, [[0, 0, 9, 9]] * len(said), mode=mode, **SIZES), rows
    )
    keeps_the_contract(lambda said: presets.vlm_r1_format(said, mode=mode), rows)
    keeps_the_contract(presets.vlm_r1_repetition, rows)
    for method in ("default", "mcq", "yes_no", "all_match", "detection"):
        golds = gold if method == "detection" else "4"
        keeps_the_contract(
            lambda said, how=method, right=golds: presets.vlm_r1_accuracy(
                said, [right] * len(said), method=how, math=Plain, mode=mode
            ),
            rows,
        )


# --- against slow versions that share no code ----------------------------------------------------------

numbers = st.lists(st.integers(0, 60) | st.sampled_from(["007", "٣", "", "9" * 16]), min_size=4, max_size=4)
boxes = st.tuples(numbers, st.sampled_from([",", ", ", ",\n", ",\u00a0", " ,"])).map(
    lambda pair: f"[{pair[1].join(map(str, pair[0]))}]"
)


@given(st.lists(st.lists(boxes | texts, max_size=3).map("".join), max_size=5))
def test_integers_are_numbers_and_what_is_too_large_is_none(rows):
    for text in rows:
        found = INTEGER_BOX.search(text)
        expected = [math.nan] * 4
        if found and all(len(digits) < 300 for digits in found.groups()):
            expected = [float(int(digits)) for digits in found.groups()]
        np.testing.assert_array_equal(numbers_in(found, 4), expected)


parts = st.sampled_from(["{", "}", "[1, 2, 3, 4]", "[1, 2]", "</think>", "<answer>", "</answer>", " ", "x"])


@given(st.lists(parts, max_size=9).map("".join), st.sampled_from(["", "}", "}</answer>"]))
@example("{[1, 2, 3, 4]", "}")
def test_the_format_is_that_of_the_regular_expression(inside, behind):
    text = f"<think></think> <answer>{inside}</answer>{behind}"
    pattern = r"<think>.*?</think>\s*<answer>.*?\{.*\[\d+,\s*\d+,\s*\d+,\s*\d+\].*\}.*?</answer>"
    found = re.search(pattern, text, re.DOTALL) is not None
    assert presets.vlm_r1([text], [[0, 0, 9, 9]], **SIZES).format[0] == found


letters = st.text(st.sampled_from([*"aBzé[`1 \n.,?!:;", "ß", "\u0131", "\u3000"]), max_size=8)


@given(letters)
def test_lone_letters_are_those_of_the_regular_expression(text):
    text = re.sub(r"\s+", " ", text.upper())
    found = re.findall(r"(?<![A-Z])([A-Z])(?=[\.\,\?\!\:\;]|$)", text)
    assert named_option(text) in (found or [None])
    assert len(set(found)) > 1 or named_option(text) == (found or [None])[0]


@given(st.lists(st.tuples(letters, st.booleans()), max_size=6))
def test_the_options_of_a_batch_are_those_of_its_texts(rows):
    said = [f"<answer>{text}</answer>" if tagged else text for text, tagged in rows]
    for gold in ("A.", "B."):
        expected = [float(named_option(text.strip()) == gold[0]) for text, _ in rows]
        assert presets.vlm_r1_accuracy(said, [gold] * len(rows), method="mcq").tolist() == expected


@given(letters, letters)
def test_texts_match_when_tidied(text, gold):
    def tidied(text):
        for mark in ("\n", "\r"):
            text = re.sub(rf"(?<!\s){mark}", " ", re.sub(rf"(?<=\s){mark}", "", text))
        return text.strip().rstrip(".").lower()

    scores = presets.vlm_r1_accuracy([f"<answer>{text}</answer>", text], [gold] * 2, method="all_match")
    assert scores.tolist() == [float(tidied(text) == tidied(gold))] * 2


@given(st.text(alphabet="abc", max_size=8), st.text(alphabet="abcd", max_size=8))
def test_similarity_counts_the_longest_common_subsequence(text, other):
    def longest(a, b):
        if not a or not b:
            return 0
        if a[0] == b[0]:
            return 1 + longest(a[1:], b[1:])
        return max(longest(a[1:], b), longest(a, b[1:]))

    expected = 2 * longest(text, other) / (len(text) + len(other)) if text or other else 1.0
    assert similarity(text, other) == pytest.approx(expected)


# --- details -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ("no box", "answers\\[0\\] must be four numbers"),
        ([1, 2, 3], "answers\\[0\\] must be four numbers"),
        ("<answer>[1, 2, 3]</answer>", "answers\\[0\\] must be four numbers"),
        (["a", "b", "c", "d"], "answers must hold numbers"),
    ],
)
def test_a_bad_gold_box_is_named(answer, error):
    with pytest.raises((ValueError, TypeError), match=error):
        presets.vlm_r1([BOX], [answer], **SIZES)


def test_a_broken_gold_list_is_named():
    with pytest.raises(ValueError, match="answers must hold JSON lists"):
        presets.vlm_r1_accuracy(["x"], ["```json\n[{]\n```"], method="detection")


def test_the_box_is_brought_from_the_shown_image_to_the_original():
    said = "<answer>[10, 10, 60, 60]</answer>"
    parts = presets.vlm_r1([said], [[20, 30, 120, 180]], image_sizes=(200, 300), shown_sizes=(100, 100))
    assert close(parts.iou[0], 1.0)


def test_an_overlap_of_one_pixel_is_none():
    for width, expected in ((11, 0.0), (12, 2 / 20)):
        said = f"<answer>[0, 0, {width}, 10]</answer>"
        assert close(presets.vlm_r1([said], [[10, 0, 20, 10]], **SIZES).iou[0], expected)


def test_a_label_that_is_no_text_takes_the_label_of_the_match_before_or_stops_the_original():
    gold = detections(([0, 0, 50, 50], "cat"), ([60, 60, 90, 90], "cat"))
    said = [detections(([0, 0, 50, 50], "cat"), ([60, 60, 90, 90], 3)), detections(([0, 0, 50, 50], 3))]
    scores = presets.vlm_r1_accuracy(said, [gold] * 2, method="detection")
    assert close(list(scores), [1.0, math.nan])
