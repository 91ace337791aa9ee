"""What the systems share: tags against `str` methods and regular expressions, strict reading, judges."""

import math
import re

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lfpc_rewards.presets._groups import number_groups, places_in_groups
from lfpc_rewards.presets._judging import ask
from lfpc_rewards.presets._strict import read_strictly
from lfpc_rewards.presets._tags import Tags, both
from tests.presets.contract import texts

TAGS = (*both("think", "answer"), "<|image_pad|><|vision_end|>")


@given(st.lists(texts, max_size=5), st.integers(0, 20))
def test_tags_are_where_str_finds_them(rows, since):
    tags = Tags(rows, TAGS)
    for tag in TAGS:
        assert tags.count(tag).tolist() == [row.count(tag) for row in rows]
        assert tags.first(tag).tolist() == [row.find(tag) for row in rows]
        assert tags.last(tag).tolist() == [row.rfind(tag) for row in rows]
        start = np.full(len(rows), since)
        assert tags.first(tag, start).tolist() == [row.find(tag, since) for row in rows]
        assert tags.count(tag, start).tolist() == [row.count(tag, since) for row in rows]


@given(st.lists(texts, max_size=5))
def test_pairs_are_what_regular_expressions_find(rows):
    pattern = re.compile("<answer>(.*?)</answer>", re.DOTALL)
    tags = Tags(rows, TAGS)
    found = [pattern.search(row) for row in rows]
    assert list(zip(*(each.tolist() for each in tags.pair("answer")), strict=True)) == [
        each.span(1) if each else (-1, -1) for each in found
    ]
    last = [list(pattern.finditer(row))[-1:] for row in rows]
    assert list(zip(*(each.tolist() for each in tags.last_pair("answer")), strict=True)) == [
        each[0].span(1) if each else (-1, -1) for each in last
    ]


spaced = st.lists(st.sampled_from([*TAGS, " ", "\n", "\u3000", "x"]), max_size=9).map("".join)


@given(st.lists(spaced, max_size=5))
@example(["</think>x<answer></think> <answer>", "</think>x<answer></think>x<answer>", "<think>"])
def test_what_stands_before_a_tag(rows):
    tags = Tags(rows, TAGS)
    behind = [re.search(r"</think>\s*(<answer>)", row) for row in rows]
    assert tags.first_behind("<answer>", "</think>").tolist() == [
        found.start(1) if found else -1 for found in behind
    ]
    heads = [row.partition("<think>") for row in rows]
    assert tags.follows("<think>").tolist() == [
        bool(tag) and (not head.strip() or head.rstrip().endswith(TAGS)) for head, tag, _ in heads
    ]


def test_many_tags_in_one_text_find_room():
    rows = ["<think>" * 5000, "x", "<think>"] * 40
    assert Tags(rows, TAGS).count("<think>").tolist() == [5000, 0, 1] * 40


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
    read = read_strictly([turns for _, turns, *_ in STRICT for _ in range(2)], "grounding")
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
    assert places_in_groups(numbers, count).tolist() == expected
