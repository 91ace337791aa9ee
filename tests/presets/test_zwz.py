"""ZwZ: recorded calls, loopholes, the rules every preset keeps, its cascade."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfpc_rewards import presets
from lfpc_rewards.presets.systems.zwz import SYSTEM, read_first_yes
from tests.presets.contract import fools_exact_but_not_strict, keeps_the_contract, texts
from tests.presets.replay import Recorded, close, first, recorded

CHOICE = "Which colour?\n(A) red\n(B) brown\n(C) blue"


class Plain:
    @staticmethod
    def grade_answer(answer, gold):
        if "NaN" in answer:
            raise ValueError(answer)
        return answer == gold


def judge(questions, answers, golds):
    """Says yes to whatever contains the gold answer."""
    return ["Yes" if gold in answer else "No" for answer, gold in zip(answers, golds, strict=True)]


def talked_over(questions, answers, golds):
    return ["\\boxed{Not Yes}"] * len(answers)


def talked_down(questions, answers, golds):
    return ["No"] * len(answers)


# --- recorded calls ----------------------------------------------------------------------------------


@pytest.mark.parametrize("row", recorded("zwz"))
def test_exact_gives_what_zwz_gave(row):
    call, expected = row["input"]["reward_input"], row["expected"]
    parts = first(
        presets.zwz(
            [call["response"]],
            [call["ground_truth"]],
            questions=[call["extra_info"]["question"]],
            judge=Recorded(row),
            grader=pytest.importorskip("mathruler.grader"),
            reasoning=[call["data_source"] == "reason"],
            format_weight=row["input"]["format_weight"],
        )
    )
    scores = [parts["total"], parts["format"], parts["accuracy"]]
    assert close(scores, [expected["overall"], expected["format"], expected["accuracy"]])


# --- loopholes ---------------------------------------------------------------------------------------


def total(mode, *said, gold="B", ask=judge, **options):
    options = {"questions": [CHOICE] * len(said), "grader": Plain, **options}
    return presets.zwz(list(said), [gold] * len(said), judge=ask, mode=mode, **options).total


def test_tricks_fool_exact_and_not_strict():
    fools_exact_but_not_strict(
        SYSTEM,
        {
            "answer without tags": lambda mode: total(mode, "B", "C"),
            "letter in a word": lambda mode: total(
                mode, "<answer>Blue</answer>", "<answer>blue</answer>", ask=talked_down
            ),
            "two options at once": lambda mode: total(
                mode, "<answer>(B) or (C)</answer>", "<answer>(C) or (B)</answer>", ask=talked_down
            ),
            "verdict in passing": lambda mode: (
                total(mode, "<answer>scarlet</answer>", gold="red", ask=talked_over)[0],
                total(mode, "<answer>scarlet</answer>", gold="red")[0],
            ),
        },
    )


# --- the rules every preset keeps --------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["exact", "strict"])
@given(rows=st.lists(texts, max_size=6))
def test_any_text_gets_a_score_of_its_own(mode, rows):
    for gold in ("B", "4"):
        keeps_the_contract(lambda said, right=gold: total_parts(mode, said, right), rows)


def total_parts(mode, said, gold):
    return presets.zwz(
        said,
        [gold] * len(said),
        questions=[CHOICE] * len(said),
        judge=judge,
        grader=Plain,
        format_weight=0.1,
        mode=mode,
    )


# --- the cascade -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "gold", "score", "judged"),
    [
        ("<answer>so\nAnswer: 1,000 cm</answer>", "1000", 0.0, ["so\nAnswer: 1,000 cm"]),  # on two lines
        ("<answer>Answer: 1,000 cm</answer>", "1000", 1.0, []),
        ("<answer>a\nb</answer> <answer>B</answer>", "(B) brown", 1.0, []),
        ("<answer>B or C</answer>", "B", 1.0, []),
        ("<answer>(C) not B</answer>", "B.", 0.0, ["(C) not B"]),
        ("<answer></answer>", "B", 0.0, []),
        (f"<answer>{'B' * 300}</answer>", "B", 0.0, []),
        ("<answer>NaN</answer>", "brown", float("nan"), []),
    ],
)
def test_the_first_comparison_that_agrees_decides(said, gold, score, judged):
    asked = []

    def no(questions, answers, golds):
        asked.extend(answers)
        return ["No"] * len(answers)

    if "\n" in said and "1,000" in said:
        # Without an answer on one line the whole response is the answer, and its last line decides.
        score, judged = 0.0, [said]
    assert close(total("exact", said, gold=gold, ask=no)[0], score)
    assert asked == judged


@pytest.mark.parametrize("said", ["(b) or (c)", "b or c", "(b), (c)", "b. c.", "(B) (c)"])
def test_strict_pays_no_two_options_in_any_case(said):
    def yes(questions, answers, golds):
        return ["Yes"] * len(answers)

    assert total("strict", f"<answer>{said}</answer>", ask=yes).tolist() == [0.0]


def test_without_two_line_breaks_there_are_no_options():
    assert close(total("exact", "<answer>Blue</answer>", questions=["A or B?\n"])[0], 1.0)
    assert close(total("exact", "<answer>(B)</answer>", questions=["A or B?\n"], ask=talked_over)[0], 1.0)


def test_reasoning_has_a_judge_of_its_own():
    said, replies = ["<answer>x</answer>"] * 2, ["TRUE Yes", "FALSE Yes"]

    def ask(questions, answers, golds):
        return replies[: len(answers)]

    scores = total("exact", *said, gold="y", ask=ask, reasoning=[True, True])
    assert scores.tolist() == [1.0, 0.0]
    assert total("exact", *said, gold="y", ask=ask, reasoning=[False, False]).tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("\\boxed{Yes}", 1.0),
        ("\\boxed{No} or \\boxed{Yes}", 0.0),
        ("<最终结果>\n\\boxed{No}\n<\\最终结果> Yes", 0.0),
        ("<最终结果>No</最终结果> Yes", 0.0),
        ("boxed{Yes", 1.0),
        ("yes", 0.0),
    ],
)
def test_replies_are_read_as_zwz_reads_them(reply, verdict):
    assert read_first_yes(reply) == verdict


def test_a_missing_grader_is_named():
    with pytest.raises(ValueError, match="grader must be given"):
        total("exact", "<answer>B</answer>", grader=None)
