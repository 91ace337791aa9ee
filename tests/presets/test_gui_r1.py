"""GUI-R1: recorded calls, loopholes, the rules every preset keeps, and that nothing is evaluated."""

import ast
import json
import re
import warnings

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lfpc_rewards import presets
from lfpc_rewards.presets.systems.gui_r1 import SYSTEM, _literal
from tests.presets.contract import fools_exact_but_not_strict, keeps_the_contract, texts
from tests.presets.replay import first, recorded

CLICK = {"action": "click", "gt_bbox": [100, 100, 200, 200], "input_text": "no input text"}
CORNER = CLICK | {"gt_bbox": [-5, -5, 20, 20]}
TYPE = {"action": "type", "gt_bbox": [0, 0], "input_text": "hello world"}
WORD = TYPE | {"input_text": "hello"}


def item(action="click", point="[150, 150]", text="x"):
    return f"{{'action': '{action}', 'point': {point}, 'input_text': '{text}'}}"


def answer(*items):
    return f"<think>so</think><answer>[{', '.join(items)}]</answer>"


def score(text, mode="exact", gold=CLICK):
    return presets.gui_r1([text], [gold], mode=mode)


def replay(call):
    parts = first(score(call["predict_str"], gold=call["ground_truth"]))
    return {"overall": parts.pop("total"), **parts}


REPLAY = {"r1gui_compute_score": replay}


@pytest.mark.parametrize("row", recorded("gui_r1"))
def test_exact_gives_what_gui_r1_gave(row):
    assert REPLAY[row["function"]](row["input"]) == pytest.approx(row["expected"], abs=1e-6)


def test_tricks_fool_exact_and_not_strict():
    def right(mode, text, gold):
        return score(text, mode, gold).total[0]

    far = item(point="[900, 900]")
    fools_exact_but_not_strict(
        SYSTEM,
        {
            "several actions": lambda mode: (
                right(mode, answer(far, item()), CLICK),
                right(mode, answer(far), CLICK),
            ),
            "part of a word": lambda mode: (
                right(mode, answer(item("type", text="o")), WORD),
                right(mode, answer(item("type", text="x")), WORD),
            ),
            "half the words": lambda mode: (
                right(mode, answer(item("type", text="hello you")), TYPE),
                right(mode, answer(item("type", text="you there")), TYPE),
            ),
            "no point is the corner": lambda mode: (
                right(mode, answer("{'action': 'click'}"), CORNER),
                right(mode, answer("{'action': 'type'}"), CORNER),
            ),
            "answer in the thinking": lambda mode: (
                right(mode, f"<think><answer>[{item()}]</answer></think><answer>no</answer>", CLICK),
                right(mode, "<think></think><answer>no</answer>", CLICK),
            ),
            "nothing is well formed": lambda mode: (
                score(answer(), mode).format[0],
                score(answer("1"), mode).format[0],
            ),
        },
    )


@pytest.mark.parametrize("mode", ["exact", "strict"])
@given(rows=st.lists(texts, max_size=6))
def test_any_text_gets_a_score_of_its_own(mode, rows):
    for gold in (CLICK, TYPE):
        keeps_the_contract(lambda said, g=gold: presets.gui_r1(said, [g] * len(said), mode=mode), rows)


@pytest.mark.parametrize(
    ("text", "gold", "accuracy", "layout"),
    [
        (answer(item()), CLICK, 1, 1),
        (answer(item(point="[200, 150]")), CLICK, 0, 1),  # the edge is outside
        (answer(item(point="[100, 239]")), CLICK | {"gt_bbox": [100, 100]}, 1, 1),
        (answer(item(point="[100, 240]")), CLICK | {"gt_bbox": [100, 100]}, 0, 1),
        (answer(item(point="(150, 150)")), CLICK, 0, 1),
        (answer(item(point="[150.0, 150]")), CLICK, 0, 0),
        (answer(item(text="see [1, 2]")), CLICK, 0, 1),  # the last pair of the line is the point
        (answer(item("type", text="no input text")), TYPE, 0, 0),
        (answer(item("type", text="Hello")), TYPE, 1, 1),
        (answer(item("scroll", text="UP")), TYPE | {"action": "scroll", "input_text": "up"}, 1, 0),
        (answer(item("open_app", text="y")), TYPE | {"action": "open_app"}, 1, 1),
        (answer(item().replace("'action':", "'action' :")), CLICK, 0, 1),
        (answer(json.dumps({"action": "click", "point": [150, 150], "input_text": ""})), CLICK, 0, 1),
        (answer("dict(action='click', point=[150, 150], input_text='')"), CLICK, 0, 0),
    ],
)
def test_actions_are_graded_by_patterns_and_well_formed_by_value(text, gold, accuracy, layout):
    parts = score(text, gold=gold)
    assert (parts.accuracy[0], parts.format[0]) == (accuracy, layout)


def test_strict_wants_the_words_in_their_order():
    gold = TYPE | {"input_text": "to be or not to be"}
    for said, strict in [("to be or not to be", 1), ("not to be or to be", 0), ("be not or to", 0)]:
        text = answer(item("type", text=said))
        assert (score(text, "exact", gold).accuracy[0], score(text, "strict", gold).accuracy[0]) == (
            1,
            strict,
        )


def test_strict_reads_json_too():
    said = answer(json.dumps({"action": "type", "point": [1, 2], "input_text": "Hello World"}))
    assert score(said, "strict", TYPE).total.tolist() == [1.0]


@pytest.mark.parametrize(
    ("gold", "error"),
    [
        ("no json", "must have an action and a gt_bbox"),
        (CLICK | {"gt_bbox": [1, 2, 3]}, "must have a gt_bbox of two or four numbers"),
        (CLICK | {"gt_bbox": [1, 2, float("nan"), 3]}, "must have an action and a gt_bbox of numbers"),
        (CLICK | {"action": 3}, "must have an action and a gt_bbox of numbers"),
        (TYPE | {"input_text": None}, "must have an input_text"),
    ],
)
def test_a_bad_gold_action_is_named(gold, error):
    with pytest.raises(ValueError, match=rf"answers\[0\] {error}"):
        score("x", gold=gold)


SIGNS = [*" .-[]{},:'", "\n", "\t", ".0", "x", "é", "棕", "\u2028", "[3, 4]"]


@st.composite
def nearly_plain(draw):
    """One action in the plainest writing, but for signs that are put between its words and signs."""
    parts = re.findall(r"\w+|\W", f"[{item(draw(st.sampled_from(['click', 'type', 'naïve'])))}]")
    for sign in draw(st.lists(st.sampled_from(SIGNS), max_size=2)):
        parts.insert(draw(st.integers(0, len(parts))), sign)
    return "".join(parts)


def plainly_scored(text, gold):
    """(accuracy, format) by the original's patterns and by Python's own reader of literals."""
    text = text.strip()
    name = re.search(r"'action':\s*'(\w+)'", text)
    point = re.search(r"\{.*\[(\d+),\s*(\d+)]\s*.*\}", text)
    x, y = map(int, point.groups()) if point else (0, 0)
    x0, y0, x1, y1 = gold["gt_bbox"]
    try:
        items = ast.literal_eval(text)
        layout = isinstance(items, list) and all(
            isinstance(each["action"], str)
            and isinstance(each["input_text"], str)
            and isinstance(each["point"][0], int)
            and isinstance(each["point"][1], int)
            and (each["action"] != "type" or each["input_text"] != "no input text")
            for each in items
        )
    except (ValueError, SyntaxError, TypeError, LookupError):
        layout = False
    right = name is not None and name[1].lower() == gold["action"] and x0 < x < x1 and y0 < y < y1
    return float(right), float(layout)


@settings(max_examples=200)
@given(st.lists(nearly_plain(), min_size=5, max_size=20))
@example(["[{'action': 'click', 'point': [150, 150\t], 'input_text': 'x'}]"])
def test_what_is_read_at_once_is_what_patterns_and_parser_read(rows):
    parts = presets.gui_r1([f"<think></think><answer>{row}</answer>" for row in rows], [CLICK] * len(rows))
    expected = [plainly_scored(row, CLICK) for row in rows]
    assert list(zip(parts.accuracy, parts.format, strict=True)) == expected


# --- the parser that takes the evaluator's place -------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        *("[" * 10**5, "-" * 10**5, "1+" * 10**5 + "1", "print(1)", "__import__('os')", "[0] * 9", "'a' 'b"),
        *("\0", "{[]: 1}", "'a'\n'b'", "\ud800", "9" * 5000),
    ],
)
def test_what_is_no_literal_is_refused(text):
    assert _literal(text) is None


@pytest.mark.parametrize("text", [r"'\d \\d \' \n'", r"'\xe9\u00e9\101'", "[None, (1, 2.5), {'a': True}]"])
def test_a_literal_is_read_as_python_reads_it(text):
    with warnings.catch_warnings():  # Python warns of an unknown escape, which a model may well write
        warnings.simplefilter("ignore")
        expected = ast.literal_eval(text)
    assert _literal(text) == expected
