"""What the systems share: strict reading, judges, groups."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfpc_rewards.presets._groups import index_in_group, number_groups
from lfpc_rewards.presets._judging import ask
from lfpc_rewards.presets._strict import parse_strict_turns

CALL = "<grounding>x</grounding>"
LAST = "<think>b</think><answer>red</answer>"
STRICT = [
    ("one turn", [LAST], "red", 1),
    ("a call before it", [f"<think>a</think>{CALL}", LAST], "red", 1),
    ("white space around", [" <think>b</think>\n <answer> red\n</answer>\n"], "red", 1),
    ("text before the thinking", ["x" + LAST], "red", 0),
    ("text between the parts", ["<think>b</think> so <answer>red</answer>"], "red", 0),
    ("text behind the answer", [LAST + " bye"], "red", 0),
    ("a good turn after that", [LAST], "red", 1),
    ("no thinking", ["<answer>red</answer>"], "red", 0),
    ("two answers", ["<think>b</think><answer>red</answer><answer>red</answer>"], None, 0),
    ("an answer in the thinking", ["<think><answer>red</answer></think>"], None, 0),
    ("an answer and a call", [f"<think>b</think><answer>red</answer>{CALL}"], None, 0),
    ("an early answer", ["<think>b</think><answer>red</answer>", "<think>c</think>"], None, 0),
    ("an answer where a call should be", [LAST, LAST], "red", 0),
    ("a turn without a call", ["<think>a</think>", LAST], "red", 0),
    ("no turns", [], None, 0),
]


def test_strict_reading():
    # All rows in one batch, each twice: what stands before a row must not matter.
    read = parse_strict_turns([turns for _, turns, *_ in STRICT for _ in range(2)], "grounding")
    for place, (what, _, answer, good) in enumerate(STRICT):
        for row in (2 * place, 2 * place + 1):
            assert (what, read.answers[row], read.well_formed[row]) == (what, answer, good)
    assert not read.images.any()


def test_a_judge_is_asked_again_about_texts_it_left_open_but_not_where_it_failed():
    asked = []

    def judge(questions, answers, golds):
        asked.append(answers)
        return [{"a": "yes", "b": "?", "c": None, "d": False}[answer] for answer in answers]

    def read(reply):
        return 1.0 if reply == "yes" else math.nan

    scores = ask(judge, None, list("abcd"), list("abcd"), read, tries=3, unreadable=0.5)
    assert np.array_equal(scores, [1.0, 0.5, math.nan, 0.0], equal_nan=True)
    assert asked == [list("abcd"), ["b"], ["b"]]
    with pytest.raises(TypeError, match="judge must reply with a text, True, False or None, got 3"):
        ask(lambda *_: [3], None, ["a"], ["a"], read)


group_lists = st.lists(st.integers(-2, 3) | st.sampled_from([True, 2**70, "a", 2.0]), max_size=12)


@given(group_lists | group_lists.filter(lambda row: "a" not in row).map(sorted))
def test_groups_are_numbered_as_they_appear(groups):
    numbers, count = number_groups(groups)
    different = list(dict.fromkeys(groups))
    assert (numbers.tolist(), count) == ([different.index(group) for group in groups], len(different))
    if not {"a", 2**70} & set(groups):
        assert number_groups(np.array(groups))[0].tolist() == numbers.tolist()


@given(st.lists(st.integers(0, 3), max_size=12))
def test_places_count_the_members_before(groups):
    numbers, count = number_groups(groups)
    expected = [groups[:place].count(group) for place, group in enumerate(groups)]
    assert index_in_group(numbers, count).tolist() == expected
