"""EasyR1: recorded calls, loopholes, the rules every preset keeps, borders."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lfpc_rewards import presets
from lfpc_rewards._tags import Tags, both
from lfpc_rewards.presets._final_answer import normalize_final_answer, same_answer_line
from lfpc_rewards.presets._layout import thought_and_answer
from lfpc_rewards.presets._math import last_box
from lfpc_rewards.presets.systems.easyr1 import SYSTEM, _is_boxed
from tests.presets.contract import PIECES, fools_exact_but_not_strict, keeps_the_contract, texts
from tests.presets.replay import close, first, recorded

THOUGHT = "<think>so</think>"


class Plain:
    @staticmethod
    def grade_answer(answer, gold):
        if "NaN" in answer:
            raise ValueError(answer)
        return answer == gold


# --- recorded calls ----------------------------------------------------------------------------------


def by_grader(preset):
    def score(call):
        grader = pytest.importorskip("mathruler.grader")
        parts = first(preset([call["response"]], [call["ground_truth"]], grader=grader))
        return [parts["total"], parts["accuracy"], parts["format"]]

    return score


def by_dapo(call):
    parts = first(
        presets.easyr1_dapo(
            [call["response"]],
            [call["ground_truth"]],
            lengths=[call["response_length"]],
            longest=call["max_response_length"],
            overlong_buffer=call["overlong_buffer_length"],
            overlong_factor=call["overlong_penalty_factor"],
        )
    )
    return [parts["total"], parts["accuracy"], parts["overlong"]]


REPLAY = {
    "r1v.compute_score": (by_grader(presets.easyr1_r1v), "format"),
    "math.compute_score": (by_grader(presets.easyr1_math), "format"),
    "dapo.compute_score": (by_dapo, "overlong"),
}


@pytest.mark.parametrize("row", recorded("easyr1"))
def test_exact_gives_what_easyr1_gave(row):
    score, third = REPLAY[row["function"]]
    expected = row["expected"]
    assert close(score(row["input"]), [expected["overall"], expected["accuracy"], expected[third]])


# --- loopholes ---------------------------------------------------------------------------------------


def r1v(mode, *said):
    return presets.easyr1_r1v(list(said), ["4"] * len(said), grader=Plain, mode=mode).total


def boxed(mode, *said):
    return presets.easyr1_math(list(said), ["4"] * len(said), grader=Plain, mode=mode).total


def dapo(mode, *said):
    lengths = [1] * len(said)
    return presets.easyr1_dapo(
        list(said), ["4"] * len(said), lengths=lengths, longest=9, overlong_buffer=2, mode=mode
    ).total


def test_tricks_fool_exact_and_not_strict():
    fools_exact_but_not_strict(
        SYSTEM,
        {
            "answer without tags": lambda mode: r1v(mode, "4", "5"),
            "several answers": lambda mode: r1v(
                mode,
                f"{THOUGHT}<answer>4</answer><answer>5</answer>",
                f"{THOUGHT}<answer>5</answer>",
            ),
            "answer in the thinking": lambda mode: boxed(
                mode, "<think>\\boxed{4}</think>", f"{THOUGHT}\\boxed{{5}}"
            ),
            "several answer lines": lambda mode: dapo(mode, "Answer: 5\nAnswer: 4", "Answer: 5"),
        },
    )
    several = (f"{THOUGHT}\\boxed{{5}} \\boxed{{4}}", f"{THOUGHT}\\boxed{{5}}")
    assert boxed("exact", *several).tolist() == [1.0, 0.1]
    assert boxed("strict", *several).tolist() == [0.0, 0.1]


# --- the rules every preset keeps --------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["exact", "strict"])
@given(rows=st.lists(texts | st.lists(texts, max_size=2).map("Answer: ".join), max_size=6))
def test_any_text_gets_a_score_of_its_own(mode, rows):
    options = {"grader": Plain, "mode": mode}
    keeps_the_contract(lambda said: presets.easyr1_r1v(said, ["4"] * len(said), **options), rows)
    keeps_the_contract(lambda said: presets.easyr1_math(said, ["4"] * len(said), **options), rows)
    keeps_the_contract(
        lambda said: presets.easyr1_dapo(
            said, ["4"] * len(said), lengths=[5] * len(said), longest=9, overlong_buffer=5, mode=mode
        ),
        rows,
    )


# --- against the regular expressions -------------------------------------------------------------------

parts = st.sampled_from(
    [*PIECES[:4], "</think> <answer>", "\n", " ", "\u3000", "<", "/", "think", ">", "x", "\\boxed{", "}"]
)


@example("\\boxed{ a < b / c }", False)
@example(" < think >x</\nthink >\\boxed{}", False)
@given(st.lists(parts, max_size=8).map("".join), st.booleans())
def test_layouts_are_those_of_the_regular_expressions(inside, whole):
    text = f"<think></think><answer>{inside}</answer>" if whole else inside
    found = re.fullmatch(r"<think>.*?</think>\s*<answer>.*?</answer>", text, re.DOTALL)
    assert thought_and_answer(Tags([text, text], both("think", "answer"))).tolist() == [bool(found)] * 2
    bare = re.sub(r"\s*(<|>|/)\s*", r"\1", text)
    found = re.fullmatch(r"<think>.*</think>.*\\boxed\{.*\}.*", bare, re.DOTALL)
    assert _is_boxed(text) == bool(found)
    box = last_box(bare)
    scores = presets.easyr1_math([text], ["None" if box is None else box], grader=Plain)
    assert (scores.accuracy[0], scores.format[0]) == (1, bool(found))


@given(st.lists(parts, max_size=8).map("".join))
@example("<answer>\n</answer>")
@example("<answer>\n</answer> <answer>x</answer>\n")
def test_an_answer_on_one_line_is_that_of_the_regular_expression(text):
    found = re.search(r"<answer>(.*?)</answer>", text)
    span = tuple(int(place[0]) for place in Tags([text], both("answer")).line_pair("answer"))
    assert span == (found.span(1) if found else (-1, -1))


# --- borders and details -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "box"),
    [
        (r"\boxed{1} \boxed{ \frac{1}{2} }", r"\frac{1}{2}"),
        (r"\boxed{1} \boxed{2", None),
        (r"\boxed{}", ""),
        ("4", None),
    ],
)
def test_the_last_box_has_balanced_braces(text, box):
    assert last_box(text) == box


def test_a_grader_that_raises_makes_an_answer_wrong_or_unknown():
    assert r1v("exact", f"{THOUGHT}<answer>NaN</answer>").tolist() == [0.5]
    assert close(boxed("exact", f"{THOUGHT}\\boxed{{NaN}}").tolist(), [float("nan")])


@pytest.mark.parametrize(("length", "price"), [(80, 0.0), (81, -0.05), (100, -1.0), (101, -1.0)])
def test_long_responses_have_a_price(length, price):
    options = {"lengths": [length], "longest": 100, "overlong_buffer": 20}
    assert close(presets.easyr1_dapo(["Answer: 4"], ["4"], **options).overlong[0], price)


def test_dapo_reads_the_last_300_characters():
    assert dapo("exact", "Answer: 4\n" + "x" * 290, "Answer: 4\n" + "x" * 300).tolist() == [1.0, -1.0]


def test_bad_lengths_are_named():
    for lengths in ([1.5], [-1], "12", [[1]]):
        with pytest.raises((ValueError, TypeError), match="lengths must"):
            presets.easyr1_dapo(["x"], ["4"], lengths=lengths, longest=9, overlong_buffer=2)


lines = st.sampled_from(["Answer:", "ANSWER :", "an\u017fwer: 4", "answer", " ", "\n", ":", "4", "5 cm", "İ"])


@given(st.lists(lines, max_size=7).map("".join))
@example("an\u017fwer: 4")
def test_the_last_answer_line_is_that_of_the_regular_expression(text):
    found = re.findall(r"(?i)Answer\s*:\s*([^\n]+)", text)
    for gold in ("4", "5", "[INVALID]"):
        right = normalize_final_answer(found[-1] if found else "[INVALID]") == normalize_final_answer(gold)
        assert same_answer_line(text, gold) == right
