"""Mini-o3: recorded calls, loopholes, the rules every preset keeps, its tool."""

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfpc_rewards import presets
from lfpc_rewards.presets._layout import answer_in, answers_in
from lfpc_rewards.presets.systems.mini_o3 import SYSTEM, read_score
from lfpc_rewards.presets.tools import mini_o3 as tool
from tests.presets.contract import fools_exact_but_not_strict, keeps_the_contract, texts
from tests.presets.replay import Recorded, close, first, recorded

CALL = '<grounding>{"bbox_2d": [0, 0, 1, 1], "source": "original_image"}</grounding>'


def judge(questions, answers, golds):
    """Says yes to whatever contains the gold answer."""
    return [f"Score: {int(gold in answer)}" for answer, gold in zip(answers, golds, strict=True)]


# --- recorded calls ----------------------------------------------------------------------------------


def options(extra):
    return {
        "accuracy_weight": extra["acc_reward_weight"],
        "format_weight": extra["format_reward_weight"],
        "tool_penalty": extra.get("tool_call_penalty", 0.1),
        "tool_weight": extra.get("use_tool_reward_weight", 0.0),
    }


def scored(parts, expected):
    """[total, accuracy, format] is what the original gives, or a dict that filters the rollout."""
    if isinstance(expected, dict):
        return all(math.isnan(part[0]) for part in parts)
    return close([parts.total[0], parts.accuracy[0], parts.format[0]], expected)


def by_judge(row):
    call = row["input"]
    extra = call["extra_info"]
    parts = presets.mini_o3(
        [call["predict_str_list"]],
        [call["ground_truth"]],
        questions=[call["prompt"]],
        judge=Recorded(row),
        answer_from=extra["extract_answer_tags"] if extra.get("gpt_extract_answer") else None,
        **options(extra),
    )
    return scored(parts, row["expected"])


def by_letter(row):
    call = row["input"]
    turns = [call["predict_str_list"]]
    parts = presets.mini_o3_choice(turns, [call["ground_truth"]], **options(call["extra_info"]))
    return scored(parts, row["expected"])


def by_format(call):
    def check(row):
        parts = first(presets.mini_o3_format([row["input"]["predict_str_list"]], call=call))
        expected = [math.nan, math.nan] if isinstance(row["expected"], dict) else row["expected"]
        return close([parts["format"], parts["calls"]], expected)

    return check


def by_crop(row):
    call = row["input"]
    box = tuple(call["bbox_2d"]) if call["is_tuple"] else call["bbox_2d"]
    used = None if call["use_relative_coordinates"] else call["used_sizes"]
    cut = tool.crop_box(box, call["source"], call["observation_sizes"], used_sizes=used)
    return cut is None if isinstance(row["expected"], dict) else list(cut) == row["expected"]


def by_request(row):
    found = tool.parse_request(row["input"]["text"])
    if row["expected"] is None:
        return found is None
    return found is not None and found.source in row["expected"]


def by_size(row):
    call = row["input"]
    size = tool.shown_size(call["size"], max_pixels=call["max_pixels"], min_pixels=call["min_pixels"])
    return size is None if isinstance(row["expected"], dict) else list(size) == row["expected"]


REPLAY = {
    "general_qa_tool.compute_score": by_judge,
    "general_qa_tool_mc.compute_score": by_letter,
    "grounding_format_reward": by_format("grounding"),
    "format_reward": by_format("tool_call"),
    "prepare_grounding_inputs_multi_turn": by_crop,
    "tool_call_regex": by_request,
    "process_image_size": by_size,
}


@pytest.mark.parametrize("row", recorded("mini_o3"))
def test_exact_gives_what_mini_o3_gave(row):
    assert REPLAY[row["function"]](row)


# --- loopholes ---------------------------------------------------------------------------------------


def total(mode, turns, **weights):
    return presets.mini_o3([turns], ["red"], judge=judge, mode=mode, **weights).total[0]


def test_tricks_fool_exact_and_not_strict():
    answer = "<think>so</think><answer>red</answer>"
    fools_exact_but_not_strict(
        SYSTEM,
        {
            "early answer": lambda mode: (
                total(mode, [f"<think>a</think><answer>red</answer>{CALL}", "<think>b</think>who knows"]),
                total(mode, [f"<think>a</think>{CALL}", "<think>b</think>who knows"]),
            ),
            "typed tool call": lambda mode: (
                total(mode, ["<think>a</think><grounding>x</grounding>", answer], tool_weight=1.0),
                total(mode, ["<think>a</think>", answer], tool_weight=1.0),
            ),
            "half a call": lambda mode: (
                total(mode, [f"<think>a</think><grounding>{CALL}", answer], format_weight=1.0),
                total(mode, [f"<think>a</think>{CALL}{CALL}", answer], format_weight=1.0),
            ),
            "two options at once": lambda mode: tuple(
                presets.mini_o3_choice(
                    [[f"<think>so</think><answer>{said}</answer>"] for said in ("(A) and (B)", "B")],
                    ["A", "A"],
                    mode=mode,
                ).total
            ),
        },
    )


# --- the rules every preset keeps --------------------------------------------------------------------

turns = st.lists(texts, max_size=4)


@pytest.mark.parametrize("mode", ["exact", "strict"])
@given(rows=st.lists(turns, max_size=5))
def test_any_turns_get_a_score_of_their_own(mode, rows):
    weights = {"format_weight": 0.5, "tool_penalty": 0.1, "tool_weight": 0.3, "mode": mode}
    for answer_from in ("strict", "split", "strict_v2", None):
        keeps_the_contract(
            lambda said, way=answer_from: presets.mini_o3(
                said, ["A"] * len(said), judge=judge, answer_from=way, **weights
            ),
            rows,
        )
    keeps_the_contract(lambda said: presets.mini_o3_choice(said, ["A"] * len(said), **weights), rows)
    keeps_the_contract(presets.mini_o3_format, rows)


@given(text=texts, numbers=st.lists(st.floats() | st.integers() | st.text() | st.none(), max_size=5))
def test_the_tool_never_raises_on_what_a_model_writes(text, numbers):
    tool.parse_request(f'<grounding>{{"bbox_2d": {numbers}, "source": "{text}"}}</grounding>')
    tool.crop_box(numbers, text, [(640, 480)])
    tool.crop_box(numbers, "original_image", [(640, 480)], used_sizes=[(320, 240)])


# --- details -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("way", "text", "answer"),
    [
        ("strict", "<answer>a</answer> <answer>b</answer>", "a"),
        ("strict", "<answer>a\nb</answer>", "a\nb"),
        ("strict", "a</answer>", None),
        ("split", "<answer>a</answer> <answer> b </answer>", "b"),
        ("split", " a</answer>", "a"),
        ("strict_v2", "<answer>a</answer> <answer>b</answer>", "a</answer> <answer>b"),
        ("strict_v2", "<answer>a</answer>\n", "a"),
        ("strict_v2", "<answer>a</answer>\n\n", None),
        ("strict_v2", "<answer>a</answer>.", None),
        (None, " a ", " a "),
    ],
)
def test_where_the_answer_is_taken_from(way, text, answer):
    assert answer_in(text, way) == answer


@given(
    st.lists(
        st.lists(st.sampled_from(["<answer>", "</answer>", "x", " "]), max_size=4).map("".join), max_size=3
    )
)
def test_the_first_answer_of_the_turns_is_that_of_the_joined_text(turns):
    found = re.search("<answer>(.*?)</answer>", " ".join(turns), re.DOTALL)
    assert answers_in([["<answer>"], turns, []], "strict") == [None, found[1] if found else None, None]


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("Score: 1", 1),
        ("score:10 of 10", 1),
        ("Score: 0 1", 0),
        ("SCORE: 0\n1", 0),
        ("1", np.nan),
        ("Score: x", np.nan),
    ],
)
def test_replies_are_read_as_mini_o3_reads_them(reply, verdict):
    assert close(read_score(reply), verdict)


def test_without_a_verdict_the_group_is_dropped_after_five_tries():
    asked = []

    def silent(questions, answers, golds):
        asked.append(list(answers))
        return ["hm" if answer == "b" else "Score: 1" for answer in answers]

    said = [[f"<answer>{answer}</answer>"] for answer in "abc"]
    parts = presets.mini_o3(said, ["x"] * 3, judge=silent, groups=["p", "p", "q"])
    assert np.isnan(parts.total).tolist() == [True, True, False]
    assert asked == [["a", "b", "c"]] + [["b"]] * 4


def test_strict_counts_the_images_that_came_back():
    image, error = {"type": "image"}, {"type": "text", "text": "ERROR"}
    for content, expected in ((image, 1.3), (error, 1.0)):
        rollout = [
            {"role": "assistant", "content": f"<think>a</think>{CALL}"},
            {"role": "tool", "content": [content]},
            {"role": "assistant", "content": "<think>b</think><answer>red</answer>"},
        ]
        assert close(total("strict", rollout, tool_weight=0.3), expected)


def test_calls_are_counted_before_the_last_turn_and_up_to_the_first_that_is_malformed():
    call, answer = f"<think>a</think>{CALL}", "<think>b</think><answer>c</answer>"
    rows = [[call, call, answer], [call, call], [f"x{CALL}", call, answer], [call], [answer]]
    read = presets.mini_o3_format(rows)
    assert read.calls.tolist() == [2, 1, 1, 1, 0]
    assert read.format.tolist() == [1, 0, 0, 0, 1]


@pytest.mark.parametrize(("width", "cut"), [(199, (0, 0, 199, 1)), (200, None)])
def test_the_tool_refuses_a_side_200_times_the_other(width, cut):
    box = [0, 0, width, 1]
    sizes = [(1000, 1000)]
    assert tool.crop_box(box, "original_image", sizes, used_sizes=sizes) == cut


def test_an_unknown_place_for_the_answer_is_named():
    with pytest.raises(ValueError, match="answer_from must be"):
        presets.mini_o3([["a"]], ["a"], judge=judge, answer_from="last")
