import dataclasses
import itertools

import pytest
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from lfpc_trl.data.rows import read_rows, write_rows
from lfpc_trl.pictures.sizes import tokens_of
from lfpc_trl.select.ask import select_resolution
from lfpc_trl.select.ladder import Ladder, exact_answer, same_answer, select_by_answers
from tests.evaluate.conftest import COLOURS, SIZE
from tests.evaluate.scripted import Prompt, ScriptedModel

BUDGETS = [48, 24, 12, 6, 4]  # 224 x 168 pixels have 48 visual tokens
TOKENS = [48, 20, 12, 4, 2]  # what fits into the budgets in whole tokens of the right shape
SIZES = [(224, 168), (140, 112), (112, 84), (56, 56), (56, 28)]


def says(answers):
    """A script that answers by level, finest first; None writes no answer."""

    def script(prompt: Prompt) -> str:
        text = answers[TOKENS.index(prompt.tokens[0])]
        return "I do not know" if text is None else f"<think>hm</think><answer>{text}</answer>"

    return script


def select(answers, processor, rows, **options):
    model = ScriptedModel(processor, says(answers))
    return select_resolution(model, processor, rows, **({"coarsest": 4} | options)), model


def test_the_ladder_of_the_tests(rows):
    sizes = Ladder(1000, 4).sizes(rows[0].size, factor=28, limit=16384)
    assert list(sizes) == SIZES
    assert [tokens_of(size, 28) for size in sizes] == TOKENS
    assert all(tokens_of(size, 28) <= budget for size, budget in zip(sizes, BUDGETS, strict=True))


TABLE = [  # id, answers by level (finest first; "red" is right), selected level, diverged, right at full
    ("changes at level 2", ["red", "red", "blue", "blue", "blue"], 2, True, True),
    ("changes at once", ["red", "blue", "blue", "blue", "blue"], 1, True, True),
    ("changes at the coarsest", ["red", "red", "red", "red", "green"], 4, True, True),
    ("comes back later", ["red", "blue", "red", "red", "red"], 1, True, True),
    ("never changes", ["red", "red", "red", "red", "red"], 4, False, True),
    ("wrong at full, changes", ["blue", "blue", "blue", "red", "red"], 3, True, False),
    ("wrong at full, never changes", ["blue"] * 5, 4, False, False),
    ("the same in other words", ["red", "Red.", "The answer is red", "it is red", "blue"], 4, True, True),
    ("loses its answer", ["red", "red", None, "red", "red"], 2, True, True),
    ("an empty answer is none", ["red", "", "red", "red", "red"], 1, True, True),
    ("finds an answer", [None, None, "red", "red", "red"], 2, True, False),
    ("never answers", [None] * 5, 4, False, False),
]


@pytest.mark.parametrize(
    ("answers", "level", "diverged", "right"), [case[1:] for case in TABLE], ids=[case[0] for case in TABLE]
)
def test_the_first_level_with_another_answer_is_selected(processor, rows, answers, level, diverged, right):
    selection, _ = select(answers, processor, rows[:1])
    (row,) = selection.rows
    assert row.shown_size == SIZES[level]
    assert row.extras == {"selected_level": level, "diverged": diverged, "right_at_full": right}
    assert selection.summary["never_diverged"] == (not diverged)
    assert selection.summary["wrong_at_full"] == (not right)


def test_only_rows_that_still_agree_are_asked_again(processor, rows):
    def script(prompt: Prompt) -> str:
        level = TOKENS.index(prompt.tokens[0])
        row = next(row for row in rows if row.id in prompt.text)
        # row0 changes at level 1, row1 at level 2, ...; row5 and later never.
        return f"<answer>{'other' if level > int(row.id[3:]) else row.answer[0]}</answer>"

    model = ScriptedModel(processor, script)
    told = []
    selection = select_resolution(model, processor, rows, coarsest=4, batch_size=100, progress=told.append)
    assert model.batches == [9, 9, 8, 7, 6]
    assert [row.extras["selected_level"] for row in selection.rows] == [1, 2, 3, 4, 4, 4, 4, 4, 4]
    assert [row.id for row in selection.rows] == [row.id for row in rows]
    assert sum(told) == len(rows)
    assert selection.summary == {
        "rows": 9,
        "method": "answer",
        "levels": {"1": 1, "2": 1, "3": 1, "4": 6},
        "tokens": {"2": 6, "4": 1, "12": 1, "20": 1},
        "mean_tokens": pytest.approx((20 + 12 + 4 + 6 * 2) / 9),
        "never_diverged": 5,
        "wrong_at_full": 0,
        "answers": 39,
    }


def test_no_tool_is_offered_while_answering(processor, rows):
    seen = []

    def script(prompt: Prompt) -> str:
        seen.append(prompt.text)
        return "<answer>red</answer>"

    select_resolution(ScriptedModel(processor, script), processor, rows[:1], coarsest=4)
    assert not any("image_zoom_in_tool" in text for text in seen)


def test_finest_caps_the_ladder(processor, rows):
    selection, model = select(["red"] * 5, processor, rows[:1], finest=12)
    assert len(model.batches) == 3
    assert selection.rows[0].extras["selected_level"] == 2


def test_a_shown_size_of_before_is_replaced_and_other_extras_are_kept(processor, rows):
    row = dataclasses.replace(rows[0], shown_size=(28, 28), extras={"x_note": "kept"})
    selection, _ = select(["red", "blue", "", "", ""], processor, [row])
    assert selection.rows[0].shown_size == SIZES[1]
    assert selection.rows[0].extras["x_note"] == "kept"
    assert row.extras == {"x_note": "kept"}


def test_hard_takes_the_coarsest_and_needs_no_model(processor, rows):
    selection = select_resolution(None, processor, rows, method="hard", coarsest=4)
    assert {row.shown_size for row in selection.rows} == {SIZES[-1]}
    assert selection.rows[0].extras == {"selected_level": 4}
    assert selection.summary["levels"] == {"4": 9}


def test_random_depends_on_seed_and_id_alone(processor, rows):
    def levels(some, seed):
        chosen = select_resolution(None, processor, some, method="random", coarsest=4, seed=seed).rows
        return {row.id: row.extras["selected_level"] for row in chosen}

    assert levels(rows, 0) == levels(rows[::-1], 0)
    assert levels(rows[3:5], 0).items() <= levels(rows, 0).items()
    assert levels(rows, 0) != levels(rows, 1)
    many = [dataclasses.replace(rows[0], id=str(index)) for index in range(300)]
    drawn = list(levels(many, 0).values())
    assert min(drawn.count(level) for level in range(5)) > 30


def test_what_was_selected_survives_the_file(processor, rows, tmp_path):
    selection, _ = select(["red", "blue", "", "", ""], processor, rows)
    for name in ("rows.jsonl", "rows.parquet"):
        write_rows(selection.rows, tmp_path / name)
        back = read_rows(tmp_path / name)
        assert [row.shown_size for row in back] == [row.shown_size for row in selection.rows]
        assert [row.extras for row in back] == [row.extras for row in selection.rows]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "best"}, "method must be one of answer, hard, random, got 'best'"),
        ({"coarsest": 0}, "1 <= coarsest <= finest"),
        ({"coarsest": 64, "finest": 8}, "1 <= coarsest <= finest"),
    ],
)
def test_settings_out_of_range_are_named(processor, rows, options, message):
    with pytest.raises(ValueError, match=message):
        select_resolution(None, processor, rows, **({"method": "hard"} | options))


AGREE = [  # id, answer, reference, choices, same
    ("numbers by value", "three", "3.0", None, True),
    ("letter and text of one option", "B", "blue", ("red", "blue"), True),
    ("two options", "A", "blue", ("red", "blue"), False),
    ("reference outside the options", "purple", "Purple.", ("red", "blue"), True),
    ("one of them outside the options", "red", "purple", ("red", "blue"), False),
    ("missing against given", None, "red", None, False),
    ("given against missing", "red", None, None, False),
    ("both missing", None, "", None, True),
    ("punctuation alone equals itself", "**", "**", None, True),
]


@pytest.mark.parametrize(
    ("answer", "reference", "choices", "same"), [case[1:] for case in AGREE], ids=[case[0] for case in AGREE]
)
def test_same_answer(answer, reference, choices, same):
    assert same_answer(answer, reference, choices) is same


@given(text=st.text(), choices=st.none() | st.just(("red", "blue")))
def test_an_answer_is_the_same_as_itself(text, choices):
    assert same_answer(text, text, choices)


@given(one=st.text(max_size=9), other=st.text(max_size=9), choices=st.none() | st.just(("red", "blue")))
def test_whatever_two_models_answer_can_be_compared(one, other, choices):
    assert same_answer(one, other, choices) in (True, False)


@given(
    width=st.integers(30, 3000),
    height=st.integers(30, 3000),
    finest=st.integers(1, 20_000),
    share=st.floats(0, 1),
    factor=st.sampled_from([28, 32]),
)
@profile(max_examples=200, deadline=None)
def test_a_ladder_falls_in_whole_tokens_within_its_budgets(width, height, finest, share, factor):
    coarsest = max(1, int(finest * share))
    sizes = Ladder(finest, coarsest).sizes((width, height), factor=factor, limit=16384)
    tokens = [tokens_of(size, factor) for size in sizes]
    assert all(side % factor == 0 for size in sizes for side in size)
    assert len(set(sizes)) == len(sizes)
    assert all(after <= before for before, after in itertools.pairwise(tokens))
    longest = max(width, height) / min(width, height)
    if longest <= coarsest:  # otherwise the strip keeps one token across and may exceed its budget
        assert tokens[0] <= finest
        assert tokens[-1] <= coarsest
    assert len(sizes) <= 20


EXPLICIT = [  # id, size of the original, budgets, limit of the processor, tokens of the levels
    ("as named", (224, 168), [40, 12, 3], 1000, [35, 12, 2]),
    ("a picture smaller than the first budgets", (224, 168), [4096, 1024, 12, 3], 5000, [48, 12, 2]),
    ("a picture smaller than all", (28, 28), [4096, 64], 5000, [1]),
    ("above the limit", (224, 168), [4096, 1024, 12], 30, [24, 12]),
]


@pytest.mark.parametrize(
    ("size", "budgets", "limit", "tokens"),
    [case[1:] for case in EXPLICIT],
    ids=[case[0] for case in EXPLICIT],
)
def test_a_ladder_of_named_budgets(size, budgets, limit, tokens):
    sizes = Ladder.of(budgets).sizes(size, factor=28, limit=limit)
    assert [tokens_of(each, 28) for each in sizes] == tokens


@pytest.mark.parametrize("budgets", [[], [4, 4], [1, 2], [4, 0]])
def test_budgets_that_are_no_ladder_are_refused(budgets):
    with pytest.raises(ValueError, match="budgets must"):
        Ladder.of(budgets)


@pytest.mark.parametrize(
    ("answer", "reference", "same"),
    [
        ("red", " red\n", True),
        ("red", "Red", False),
        (None, "", True),
        (None, "red", False),
        ("3", "3.0", False),
    ],
)
def test_exact_answers(answer, reference, same):
    assert exact_answer(answer, reference, ("red", "blue")) is same
    assert exact_answer(reference, answer) is same


def test_a_selection_needs_the_answers_that_decide_and_no_others(rows):
    levels = [(size,) for size in SIZES]  # of one picture
    answers = {(rows[0].id, levels[0]): "red", (rows[0].id, levels[1]): "red"}
    with pytest.raises(ValueError, match="row row0: the answer at level 2 is missing"):
        select_by_answers(rows[:1], [levels], answers, factor=28)
    answers[rows[0].id, levels[2]] = "blue"
    first = select_by_answers(rows[:1], [levels], answers, factor=28)
    later = {(rows[0].id, level): "green" for level in levels[3:]} | {("another", levels[0]): "red"}
    again = select_by_answers(rows[:1], [levels], answers | later, factor=28)
    assert first.rows[0].shown_size == again.rows[0].shown_size == SIZES[2]
    assert first.summary == again.summary
    assert first.summary["answers"] == 3


def test_the_fixture_is_what_the_table_says(rows):
    assert rows[0].answer == ("red",)
    assert set(COLOURS) == {row.answer[0] for row in rows}
    assert all(row.size == SIZE for row in rows)
