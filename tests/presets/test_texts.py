"""The batch reader against `str` methods and regular expressions, on texts of any characters."""

import math
import re
import sys

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lfpc_rewards.presets._objects import distinct
from lfpc_rewards.presets._shapes import Shape
from lfpc_rewards.presets._tags import Tags, both
from lfpc_rewards.presets._texts import cut, find_text, lower, readable, same_parts, stripped, without

ODD = ["?", "٣", "\u00a0", "\u3000", "\x1f", "\x85", "İ", "棕", "\U0001f600", "\ud800"]
"""Digits, white space, letters and others beyond ASCII, and what stands for them."""

SIGNS = [*"[](),.-'<>", " ", "\n", "7", "0", "12", "x_1", "9" * 15, "9" * 16, "9" * 400, "0.5", "-3", "<b>"]
texts = st.lists(st.lists(st.sampled_from([*SIGNS, *ODD]), max_size=12).map("".join), max_size=4)


def test_a_stand_in_keeps_every_place():
    rows = ["plain", "a棕b\u00a0c", "\ud800?", "", "\U0001f600\u3000d"]
    assert readable(rows) == ["plain", "a?b\x1fc", "??", "", "?\x1fd"]


@given(
    st.text(st.sampled_from([" ", "\t", "\x1c", "a", *ODD]), max_size=8), st.integers(0, 8), st.integers(0, 8)
)
def test_parts_are_stripped_as_str_strips_them(text, begin, end):
    begin, end = min(begin, len(text)), min(end, len(text))
    start, stop = stripped([text, text], np.array([begin, -1]), np.array([end, -1]))
    assert text[start[0] : stop[0]] == text[begin:end].strip()
    assert (start[1], stop[1]) == (0, 0)


@pytest.mark.parametrize("wanted", ["[", "<b", "<b>", "<box>x", "<b" + "o" * 70 + ">"])
@given(st.data(), st.integers(0, 5))
def test_a_text_is_where_str_finds_it(wanted, data, since):
    pieces = st.sampled_from([wanted, wanted[:-1], wanted[:-2] + "?" + wanted[-1], "x" * 60, *"[<bo>?", *ODD])
    rows = data.draw(st.lists(st.lists(pieces, max_size=6).map("".join), max_size=4))
    start = np.full(len(rows), since)
    assert find_text(rows, wanted, start).tolist() == [row.find(wanted, since) for row in rows]
    assert find_text(rows, wanted).tolist() == [row.find(wanted) for row in rows]


@given(st.lists(st.sampled_from(["<b>", "</b>", "x", " ", *ODD]), max_size=12).map("".join))
@example("<b>x<b>y</b></b><b>z</b>")
def test_pairs_are_all_that_a_regular_expression_finds(text):
    found = [match.span(1) for match in re.finditer("<b>(.*?)</b>", text, re.DOTALL)]
    owners, *places = Tags(["</b>", text, "<b>"], both("b")).pairs("b")
    assert list(zip(*(each.tolist() for each in places), strict=True)) == found
    assert owners.tolist() == [1] * len(found)


words = st.text(st.sampled_from(["a", "b", "?", "\x1f", "\u00a0", "棕", "é"]), max_size=3)


@example([("\x1f", "\u00a0", 0, 0)])
@given(st.lists(st.tuples(words, words, st.integers(0, 2), st.integers(0, 2)), max_size=6))
def test_parts_are_the_same_where_their_texts_are(rows):
    texts, others = ([f"{'.' * row[k + 2]}{row[k]}!" for row in rows] for k in range(2))
    spans, other_spans = (
        np.array([(row[k + 2], row[k + 2] + len(row[k])) for row in rows], np.int64).reshape(-1, 2)
        for k in range(2)
    )
    expected = [row[0] == row[1] for row in rows]
    assert same_parts(texts, spans, others, other_spans).tolist() == expected
    assert not same_parts(texts, spans, others, np.full_like(other_spans, -1)).any()


# template, the regular expression for it, what is likely to match
SHAPES = [
    ("[#, #]", r"\[(\d+),\s*(\d+)]", ["[1, 2]", "[12,\u30003]", "[٣, 4]", f"[{'9' * 16}, 1]", "[1, 2"]),
    (
        "( ~, ~)",
        r"\(\s*(-?\d+(?:\.\d+)?),\s*(-?\d+(?:\.\d+)?)\)",
        ["(-1, .5)", "( 1.5,-0)", "(1., 2)", "(1.٣,2)"],
    ),
    ("'a': '@'", r"'a':\s*'(\w+)'", ["'a': 'go_1'", "'a':'棕'", "'a': ''", "'a': 'x?'", "'a': 'x"]),
    ("<b>(#,#)</b>", r"<b>\((\d+),(\d+)\)</b>", ["<b>(1,2)</b>", "<b>(1,2)</b", f"<b>({'9' * 5000},2)</b>"]),
]


def numbers_of(found, pattern):
    kinds = [float if "." in group else int for group in re.findall(r"\((?!\?).*?\\d.*?\)", pattern)]
    try:
        return [float(kind(text)) for kind, text in zip(kinds, found.groups(), strict=True)]
    except (ValueError, OverflowError):
        return [math.nan] * len(kinds)


@pytest.mark.parametrize(("template", "pattern", "likely"), SHAPES, ids=[shape[0] for shape in SHAPES])
@given(st.data())
def test_a_shape_finds_what_its_regular_expression_finds(template, pattern, likely, data):
    piece = st.sampled_from([*likely, *SIGNS, *ODD])
    rows = data.draw(st.lists(st.lists(piece, max_size=6).map("".join), max_size=4))
    cut = data.draw(st.integers(0, 4))
    shape = Shape(template)
    bounds = [(min(cut, len(row)), max(len(row) - cut, 0)) for row in rows]
    start, stop = np.array(bounds, np.int64).reshape(-1, 2).T
    check(shape.first(rows), [re.search(pattern, row) for row in rows], pattern, "@" in template)
    search = re.compile(pattern).search
    between = [search(row, *bound) for row, bound in zip(rows, bounds, strict=True)]
    check(shape.first(rows, start, stop), between, pattern, "@" in template)
    lengths = np.array(list(map(len, rows)), np.int64)
    here = shape.at(rows, np.arange(len(rows)), lengths * 0, lengths)
    if "@" not in template:
        found = [re.match(pattern, row) for row in rows]
        check((here, None), found, pattern, False)


def check(ours, theirs, pattern, worded):
    numbers, spans = ours
    for row, found in enumerate(theirs):
        if not worded:
            expected = numbers_of(found, pattern) if found else [math.nan] * numbers.shape[1]
            np.testing.assert_array_equal(numbers[row], expected)
        if spans is not None:
            assert tuple(spans[row]) == (found.span(int(worded)) if found else (-1, -1))


@given(st.floats(-1e9, 1e9).map(lambda number: f"{number:.5f}"))
@example("-0")
@example("123456789012345.6")
@example("999999999999999.9")
def test_decimals_are_read_as_float_reads_them(digits):
    assert Shape("[~]").first([f"[{digits}]"])[0].tolist() == [[float(digits)]]


@pytest.mark.parametrize("unwanted", ["x", "<b>", "<b" + "o" * 70 + ">"])
@given(st.data())
def test_what_is_not_wanted_is_left_out(unwanted, data):
    pieces = st.sampled_from([unwanted, unwanted[:-1], unwanted[1:], "y" * 60, *ODD])
    rows = data.draw(st.lists(st.lists(pieces, max_size=6).map("".join), max_size=4))
    assert list(without(rows, unwanted).texts) == [row.replace(unwanted, "") for row in rows]


@given(st.lists(st.text(max_size=80) | st.text(st.sampled_from("aAzZ@[`{É"), max_size=80), max_size=5))
def test_lower_case_is_that_of_str(rows):
    assert lower(rows) == list(map(str.lower, rows))


@given(st.lists(st.sampled_from([None, True, 1, "a", ("a",), 2.5]), max_size=40))
def test_objects_are_numbered_once(things):
    numbers, different = distinct(things)
    assert [id(different[number]) for number in numbers.tolist()] == list(map(id, things))
    assert len(set(map(id, different))) == len(different)


def test_texts_are_made_and_dropped_without_a_trace():
    rows = [f"{row} <b>one</b> and <b>two</b> 棕" * 3 for row in range(50)]
    place = np.full(50, 4)
    before = [sys.getrefcount(row) for row in rows]
    for _ in range(3):
        cut(rows, place, place + 9), without(rows, "<b>"), without(rows, "nothing"), distinct(rows)
    assert [sys.getrefcount(row) for row in rows] == before
    for part in [*cut(rows, place, place + 9), *without(rows, "<b>").texts, *lower(rows)]:
        assert sys.getrefcount(part) == 3  # the list, the name and the question
