"""Answers without a judge."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lfpc_rewards import answers as module
from lfpc_rewards import answers_match

COLOURS = ["red", "blue", "dark red", "no colour"]
RIGHT = [  # answer, accepted, choices
    # Letters without known options.
    ("B", "B", None),
    ("b", "B", None),
    ("B", "b", None),
    ("(B)", "B", None),
    ("B.", "B", None),
    ("B)", "B", None),
    (" B \n", "B", None),
    ("**B**", "B", None),
    ("`B`", "B", None),
    ("\\boxed{B}", "B", None),
    ("$\\boxed{\\text{B}}$", "B", None),
    ("\uff08\uff22\uff09", "B", None),
    ("The answer is B", "B", None),
    ("The answer is (B).", "B", None),
    ("the final answer is: B", "B", None),
    ("Answer: B", "B", None),
    ("Option B", "B", None),
    ("So, the correct option is B.", "B", None),
    ("B. red", "B", None),
    ("B: red", "B", None),
    ("(B) red", "B", None),
    ("I think the answer is B", "B", None),
    ("It is B", "B", None),
    ("B is the answer", "B", None),
    ("B", "(B)", None),
    ("B", "B.", None),
    ('"B"', "B", None),
    ("A", "A", None),
    ("I would go with B", "B", None),
    ("A is correct", "A", None),
    # Letters and texts of known options.
    ("B", "B", COLOURS),
    ("blue", "B", COLOURS),
    ("Blue.", "B", COLOURS),
    ("B", "blue", COLOURS),
    ("B", "B. blue", COLOURS),
    ("B. blue", "B", COLOURS),
    ("B blue", "B", COLOURS),
    ("(B) Blue", "B", COLOURS),
    ("It's blue", "B", COLOURS),
    ("The answer is blue.", "B", COLOURS),
    ("dark red", "C", COLOURS),
    ("C. dark red", "C", COLOURS),
    ("B. It says blue on the sign", "B", COLOURS),
    ("B. A dog stands there", "B", COLOURS),
    ("The answer is clearly B", "B", COLOURS),
    ("A", ["A", "B"], COLOURS),
    ("b) blue", "B", COLOURS),
    ("A red car", "B", ["a dog", "a red car"]),
    ("two", "A", ["2", "3"]),
    ("Yes, it is", "A", ["yes", "no"]),
    ("C", "C", ["B", "A", "C"]),
    ("B", "B", ["B", "A", "C"]),
    # Numbers.
    ("3", "3.0", None),
    ("three", "3", None),
    ("Three.", "3", None),
    ("3", "three", None),
    ("1,000", "1000", None),
    ("1000000", "1,000,000", None),
    ("\u22123", "-3", None),
    ("+3", "3", None),
    (".5", "0.5", None),
    ("twenty-one", "21", None),
    ("Twenty one", "21", None),
    ("50 %", "50%", None),
    ("50 percent", "50%", None),
    ("fifty per cent", "50%", None),
    ("$5", "$5.00", None),
    ("\uff13", "3", None),
    ("The answer is 12.", "12", None),
    ("3 cats", "3", None),
    ("9" * 5000, "9" * 5000 + ".0", None),
    # Yes and no.
    ("Yes", "yes", None),
    ("Yes.", "yes", None),
    ("Yes, it is.", "yes", None),
    ("yes it is", "Yes", None),
    ("NO!", "no", None),
    ("No, there is not.", "no", None),
    ("No it is not", "no", None),
    ("(B) is right", "B", None),
    ("B. Not visible", "B", None),
    ("No, a dog", "no", None),
    ("no; they left", "no", None),
    ("The answer is yes", "yes", None),
    ("Yes, there is no car", "yes", None),
    # Short text.
    ("Stop sign", "stop-sign", None),
    ("a dog", "dog", None),
    ("The  Dog.", "dog", None),
    ("STRASSE", "straße", None),
    ("cafe\u0301", "café", None),
    ("\ufb01re", "fire", None),
    ("it\u2019s", "it's", None),
    ("salt & pepper", "salt and pepper", None),
    ("zero\u200bwidth", "zerowidth", None),
    ("dog", ["cat", "dog"], None),
    ("the", "the", None),
    ("?", "?", None),
    ("C++", "c++", None),
    ("It is a dog", "dog", None),
    ("狗", "狗", None),
    ("a", "a", None),
]
WRONG = [
    ("A red car", "B", ["a dog", "red car"]),
    ("A Not sure", "B", ["yes", "Not sure"]),
    ("", "B", None),
    (" ", "B", None),
    (None, "B", None),
    ("C", "B", None),
    ("A or B", "B", None),
    ("A and B", "B", None),
    ("A, B", "B", None),
    ("A/B", "B", None),
    ("A, B", "A", None),
    ("(A) and (B)", "B", None),
    ("(A)(B)", "B", None),
    ("A. or B", "A", None),
    ("A. B.", "A", None),
    ("B. or maybe (A)", "B", None),
    ("not B", "B", None),
    ("The answer is not B", "B", None),
    ("The answer is A or B", "B", None),
    ("Big", "B", None),
    ("B2", "B", None),
    ("BB", "B", None),
    ("B'", "C", None),
    ("the answer", "B", None),
    ("A dog", "A", None),
    ("I see it", "I", None),
    ("", "B", COLOURS),
    ("red", "B", COLOURS),
    ("red or blue", "B", COLOURS),
    ("red, blue", "B", COLOURS),
    ("B. red", "B", COLOURS),
    ("B. red", "A", COLOURS),
    ("B red", "B", COLOURS),
    ("B, or red", "B", COLOURS),
    ("not blue", "B", COLOURS),
    ("dark red", "A", COLOURS),
    ("red", "C", COLOURS),
    ("E", "B", COLOURS),
    ("colour", "D", COLOURS),
    ("The answer is B, red", "B", COLOURS),
    ("both", "B", COLOURS),
    ("A B C D", "B", COLOURS),
    ("B. not A but red", "B", COLOURS),
    ("A", "B", ["B", "A", "C"]),
    ("same", "A", ["same", "Same"]),
    ("Vitamin C", "C", ["x", "y", "z"]),
    ("The choice is A or C", "C", COLOURS),
    ("5", "C", ["1", "2", "3"]),
    ("4", "3", None),
    ("-3", "3", None),
    ("3.01", "3", None),
    ("50%", "50", None),
    ("50", "50%", None),
    ("1,00", "100", None),
    ("1.000", "1000", None),
    ("three four", "3", None),
    ("3 or 4", "3", None),
    ("$5", "5", None),
    ("1e4", "1000", None),
    ("yes and no", "yes", None),
    ("yes or no", "no", None),
    ("Yes/No", "yes", None),
    ("No dog is here", "no", None),
    ("not yes", "yes", None),
    ("(B) is wrong", "B", None),
    ("(B) isn't right", "B", COLOURS),
    ("B) is not it", "B", COLOURS),
    ("yesterday", "yes", None),
    ("No-one is there", "no", None),
    ("yes, but no", "yes", None),
    ("no / yes", "no", None),
    ("maybe", "yes", None),
    ("No", "yes", None),
    ("yes", "no", None),
    ("Yes, no", "yes", None),
    ("dogs", "dog", None),
    ("not a dog", "dog", None),
    ("dog or cat", "dog", None),
    ("cafe", "café", None),
    ("C", "C++", None),
    ("the", "dog", None),
    (".", "dog", None),
    ("!", "?", None),
    ("*", "dog", None),
    ("\ud800", "dog", None),
]


@pytest.mark.parametrize(("answer", "accepted", "choices"), RIGHT)
def test_right(answer, accepted, choices):
    assert answers_match(answer, accepted, choices) is True


@pytest.mark.parametrize(("answer", "accepted", "choices"), WRONG)
def test_wrong(answer, accepted, choices):
    assert answers_match(answer, accepted, choices) is False


def test_contracts_about_gold_data():
    for accepted in ("", " ", [], ["B", ""]):
        with pytest.raises(ValueError, match="accepted must hold at least one answer and no empty one, got"):
            answers_match("B", accepted)
    with pytest.raises(ValueError, match="accepted must name one of the 4 choices, got 'E'"):
        answers_match("B", ["B", "E"], COLOURS)
    with pytest.raises(ValueError, match="accepted must name one of the 4 choices, got 'A or B'"):
        answers_match("B", "A or B", COLOURS)
    with pytest.raises(ValueError, match="choices must be at most 26, got 27"):
        answers_match("B", "B", [str(i) for i in range(27)])
    for accepted in (7, None, [7], {"B": 1}):
        with pytest.raises(TypeError, match="accepted must be a string or a list of strings, got"):
            answers_match("B", accepted)
    for choices in ("AB", [1, 2], 7):
        with pytest.raises(TypeError, match="choices must be a list of strings, got"):
            answers_match("B", "B", choices)


def test_an_empty_list_of_choices_is_none():
    assert answers_match("dog", "a dog", [])


texts = st.text(max_size=30) | st.lists(
    st.sampled_from(
        [
            "A",
            "B",
            "(C)",
            "the answer is",
            "red",
            "blue",
            "dark",
            "no",
            "yes",
            "not",
            "3",
            "%",
            ",",
            ".",
            " ",
            "\\boxed{",
            "}",
            "\ud800",
        ]
    ),
    max_size=8,
).map(" ".join)


@given(
    texts, st.sampled_from(["B", "blue", "3", "yes", "no"]), st.none() | st.just(["3", "blue", "yes", "no"])
)
def test_no_answer_raises(answer, accepted, choices):
    assert answers_match(answer, accepted, choices) in (True, False)


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=12), min_size=1, max_size=5))
@example(["<ANSWER>", "red<br>"])
def test_an_accepted_text_matches_itself_unless_it_is_markup_alone(accepted):
    bare = [re.sub(r"</?answer>|<br\s*/?>", "", text, flags=re.IGNORECASE) for text in accepted]
    accepted = [text for text, left in zip(accepted, bare, strict=True) if any(map(str.isalnum, left))]
    for text in accepted:
        assert answers_match(text, accepted)


@given(
    st.integers(0, 3),
    st.sampled_from(["{}", "({})", "{}.", "{})", "Answer: {}", "The answer is ({}).", "**{}**", "Option {}"]),
)
def test_each_way_to_write_a_letter_names_that_option_and_no_other(index, form):
    letter = "ABCD"[index]
    for gold in "ABCD":
        assert answers_match(form.format(letter), gold, COLOURS) is (gold == letter)
        assert answers_match(form.format(letter), gold) is (gold == letter)


def test_long_answers_take_no_long_time():
    for answer in (
        "A" * 20_000,
        "the answer is " * 2_000,
        "( " * 10_000,
        "\\boxed{" * 3_000,
        "1," * 10_000,
        "9" * 20_000,
        "<b>" * 30_000,
    ):
        assert answers_match(answer, "B", COLOURS) is False
        assert answers_match(answer, "7") is False


def test_plain_letters_take_a_shorter_way_to_the_same_verdict():
    forms = [*module._LETTER_FORMS, "BB", "red", "A or B", " "]
    forms = [form for form in forms if form is None or len(form) != 1 or form.lower() in "abcz"]
    for choices in (None, ["red", "blue", "red b"], ("B", "A"), ["x"] * 26):
        count = 26 if choices is None else len(choices)
        for accepted in ("A", "b", "(B)", "C.", "Z"):
            if module._LETTER_FORMS[accepted] >= count:
                continue
            rows = len(forms)
            found = module.match_letters(
                forms, [accepted] * rows, None if choices is None else [choices] * rows
            )
            for form, verdict in zip(forms, found, strict=True):
                assert verdict in (None, answers_match(form, accepted, choices)), (form, accepted, choices)
            assert sum(verdict is not None for verdict in found) > 10


def test_the_short_way_leaves_everything_unusual_to_the_rules():
    accepted = ["A", "A", "C", None, ["A"], 7, "red", "A", "A", "A"]
    choices = [["x", "y"], None, ["x", "y"], ["x"], ["x"], ["x"], ["x"], [7], "xy", ["x"] * 27]
    assert module.match_letters(["B"] * 10, accepted, choices) == [False, False] + [None] * 8
    assert module.match_letters(["B"] * 2, ["A"] * 2, [["x"], ["x"] * 27]) == [None, None]
    assert module.match_letters(["B"], ["A"], [[]]) == [None]


VERDICTS = [
    ("the accepted words", "a Red car", "red car", None, True),
    ("other words", "crimson car", "red car", None, None),
    ("nothing", " ", "red", None, False),
    ("no answer at all", None, "red", None, False),
    ("another number", "seven", "8", None, False),
    ("words for a number", "a dozen", "12", None, None),
    ("no for yes", "No, it is not.", "yes", None, False),
    ("words for yes", "certainly", "yes", None, None),
    ("another letter", "the answer is C", "B", None, False),
    ("words for a letter", "the second", "B", None, None),
    ("another option", "red", "B", ["red", "blue"], False),
    ("two options", "A or B", "B", ["red", "blue"], False),
    ("words for an option", "azure", "B", ["red", "blue"], None),
    ("one of several could be meant", "seven", ["8", "eight birds"], None, None),
    ("none of several numbers", "seven", ["8", "9"], None, False),
]


@pytest.mark.parametrize(
    ("answer", "accepted", "choices", "expected"),
    [row[1:] for row in VERDICTS],
    ids=[row[0] for row in VERDICTS],
)
def test_when_the_rules_decide(answer, accepted, choices, expected):
    assert module.answer_verdict(answer, accepted, choices) is expected
    assert answers_match(answer, accepted, choices) is (expected is True)
