"""Where tags stand: the compiled pass against `str` methods and regular expressions, on any characters."""

import re

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from lfpc_rewards._tags import Tags, both

TAGS = (*both("think", "answer"), "<|image_pad|><|vision_end|>")
PIECES = [*TAGS, "<answer", "</", "<", ">", "x", " ", "\n", "棕", "\U0001f600", "\ud800", "\0", "y" * 70]
texts = st.lists(st.lists(st.sampled_from(PIECES), max_size=12).map("".join), max_size=5)


@given(texts, st.integers(-1, 20))
@example(["<answer></answer>" * 3], 9)
def test_tags_are_where_str_finds_them(rows, since):
    tags = Tags(rows, TAGS)
    start = np.full(len(rows), since)
    begin = max(since, 0)
    for tag in TAGS:
        assert tags.count(tag).tolist() == [row.count(tag) for row in rows]
        assert tags.first(tag).tolist() == [row.find(tag) for row in rows]
        assert tags.last(tag).tolist() == [row.rfind(tag) for row in rows]
        assert tags.first(tag, start).tolist() == [row.find(tag, begin) for row in rows]
        assert tags.count(tag, start).tolist() == [row.count(tag, begin) for row in rows]
        behind = [row.find(tag) + len(tag) if tag in row else -1 for row in rows]
        assert tags.after_first(tag).tolist() == behind
        behind = [row.rfind(tag) + len(tag) if tag in row else -1 for row in rows]
        assert tags.after_last(tag).tolist() == behind
    assert tags.lengths.tolist() == list(map(len, rows))
    uneven = [row.count("<think>", begin) != row.count("</think>", begin) for row in rows]
    assert tags.unbalanced("think", start).tolist() == uneven


@given(texts)
@example(["<answer>\n</answer><answer>x</answer>", "<answer>x</answer><answer>\n</answer>"])
def test_pairs_are_what_regular_expressions_find(rows):
    tags = Tags(rows, TAGS)
    pattern = re.compile("<answer>(.*?)</answer>", re.DOTALL)
    found = [pattern.search(row) for row in rows]
    last = [(list(pattern.finditer(row)) or [None])[-1] for row in rows]
    line = [re.search("<answer>(.*?)</answer>", row) for row in rows]
    for pair, matches in (
        (tags.pair("answer"), found),
        (tags.last_pair("answer"), last),
        (tags.line_pair("answer"), line),
    ):
        assert list(zip(*(each.tolist() for each in pair), strict=True)) == [
            match.span(1) if match else (-1, -1) for match in matches
        ]
    assert tags.cut(*tags.pair("answer")) == [match[1] if match else "" for match in found]


@given(texts, st.integers(-1, 9), st.integers(-1, 9))
def test_parts_are_cut_as_slices_are(rows, start, stop):
    parts = [row[start : stop if stop >= 0 else None] if start >= 0 else "" for row in rows]
    places = np.full(len(rows), start), np.full(len(rows), stop)
    tags = Tags(rows, TAGS)
    assert tags.cut(*places) == parts
    assert tags.stripped(*places) == [part.strip() for part in parts]


def test_batches_of_more_than_one_chunk_keep_their_order():
    rows = ["<think>" * 50, "棕<think>", "x"] * 100
    tags = Tags(rows, TAGS)
    assert tags.count("<think>").tolist() == [50, 1, 0] * 100
    assert tags.first("<think>").tolist() == [0, 1, -1] * 100
