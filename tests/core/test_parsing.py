"""Completions: what is a call, a delivered crop, an answer, a well-formed rollout. Text never raises."""

import json
import math
import sys
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numba import config

from lfpc_rewards import Crop, ParsedCompletion, _calls, _scan, parse_completion, parse_completions
from tests.core import oracles
from tests.core.strategies import completions, messages, turn_texts

BOX = (10.0, 20.0, 30.0, 40.0)
CALL = '{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [10, 20, 30, 40], "label": "sign"}}'
CALL_TURN = f"<think>near</think>\n<tool_call>\n{CALL}\n</tool_call>"
ANSWER_TURN = "<think>a sign</think><answer>B</answer>"
IMAGE = [{"type": "image", "image": object()}, {"type": "text", "text": "the crop"}]


def assistant(content, **more):
    return {"role": "assistant", "content": content, **more}


def tool(content, **more):
    return {"role": "tool", "content": content, **more}


def entry(arguments, name="image_zoom_in_tool"):
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


ENTRY = entry({"bbox_2d": [10, 20, 30, 40]})


def test_a_whole_rollout():
    rollout = parse_completion([assistant(CALL_TURN), tool(IMAGE), assistant(ANSWER_TURN)])
    assert rollout == ParsedCompletion("B", (Crop(BOX, delivered=True, turn=0),), well_formed=True, turns=2)
    assert rollout.delivered_crops == rollout.crops


def test_the_same_rollout_as_a_chat_parser_leaves_it():
    """Text before the call stays in the content; the call is an object; thinking may be moved away."""
    first = assistant("<think>near</think>", tool_calls=[ENTRY])
    assert parse_completion([first, tool(IMAGE), assistant(ANSWER_TURN)]) == parse_completion(
        [assistant(CALL_TURN), tool(IMAGE), assistant(ANSWER_TURN)]
    )
    moved = [
        assistant("", reasoning_content="near", tool_calls=[ENTRY]),
        tool(IMAGE),
        assistant("<answer>B</answer>", reasoning_content="a sign"),
    ]
    assert parse_completion(moved) == parse_completion([first, tool(IMAGE), assistant(ANSWER_TURN)])


def test_a_parsed_rollout_is_returned_as_it_is():
    rollout = parse_completion(ANSWER_TURN)
    assert parse_completion(rollout) is rollout
    assert parse_completions([rollout, ANSWER_TURN]) == [rollout, rollout]


WELL_FORMED = [
    ("think and answer", [ANSWER_TURN], True),
    ("white space around everything", [" \n<think>\n</think>\t\n<answer>\nB\n</answer>\n\n"], True),
    ("white space of other scripts", ["\u2003<think>x</think>\u00a0<answer>B</answer>"], True),
    ("line breaks and < inside", ["<think>a\nb < c</think><answer>x\ny</answer>"], True),
    ("an empty answer is still well formed", ["<think></think><answer></answer>"], True),
    ("no thinking", ["<answer>B</answer>"], False),
    ("no answer", ["<think>x</think>"], False),
    ("nothing", [""], False),
    ("words outside", ["<think>x</think>so<answer>B</answer>"], False),
    ("words before", ["so <think>x</think><answer>B</answer>"], False),
    ("words after", ["<think>x</think><answer>B</answer>."], False),
    ("two answers", ["<think>x</think><answer>B</answer><answer>B</answer>"], False),
    ("two thoughts", ["<think>x</think><think>y</think><answer>B</answer>"], False),
    ("an answer inside the thinking", ["<think><answer>A</answer></think><answer>B</answer>"], False),
    ("thinking inside the answer", ["<think>x</think><answer><think>y</think>B</answer>"], False),
    ("an answer inside an answer", ["<think>x</think><answer><answer>B</answer></answer>"], False),
    ("the tags in the wrong order", ["<answer>B</answer><think>x</think>"], False),
    ("an unclosed answer", ["<think>x</think><answer>B"], False),
    ("an unopened thought", ["x</think><answer>B</answer>"], False),
    ("another case of letters", ["<Think>x</Think><Answer>B</Answer>"], False),
    ("a call with an answer", ["<think>x</think><tool_call>{}</tool_call><answer>B</answer>"], False),
    ("a call at the end is unanswered", [CALL_TURN], False),
    ("an answer before the last turn", [ANSWER_TURN, ANSWER_TURN], False),
    ("two calls in one turn", [CALL_TURN + f"<tool_call>{CALL}</tool_call>", ANSWER_TURN], False),
    ("a call without thinking", [f"<tool_call>{CALL}</tool_call>", ANSWER_TURN], False),
    ("a call, then an answer", [CALL_TURN, ANSWER_TURN], True),
    (
        "what the call says is not the format's business",
        ["<think>x</think><tool_call>{</tool_call>", ANSWER_TURN],
        True,
    ),
]


@pytest.mark.parametrize(
    ("turns", "expected"), [row[1:] for row in WELL_FORMED], ids=[row[0] for row in WELL_FORMED]
)
def test_well_formed(turns, expected):
    assert parse_completion([assistant(turn) for turn in turns]).well_formed is expected
    assert (
        parse_completion([assistant([{"type": "text", "text": turn}]) for turn in turns]).well_formed
        is expected
    )


ENTRIES = [
    ("one entry after thinking", assistant("<think>x</think>", tool_calls=[ENTRY]), True),
    ("one entry, thinking moved", assistant("", reasoning_content="x", tool_calls=[ENTRY]), True),
    ("one entry, content None", assistant(None, reasoning_content="x", tool_calls=(ENTRY,)), True),
    ("two entries", assistant("<think>x</think>", tool_calls=[ENTRY, ENTRY]), False),
    ("an entry and a text call", assistant(CALL_TURN, tool_calls=[ENTRY]), False),
    ("an entry and an answer", assistant(ANSWER_TURN, tool_calls=[ENTRY]), False),
    ("no thinking", assistant("", tool_calls=[ENTRY]), False),
    ("blank thinking is none", assistant("", reasoning_content=" \n", tool_calls=[ENTRY]), False),
    ("words after the thinking", assistant("<think>x</think>look", tool_calls=[ENTRY]), False),
    ("words before the thinking", assistant("look<think>x</think>", tool_calls=[ENTRY]), False),
    ("thinking twice", assistant("<think>x</think>", reasoning_content="x", tool_calls=[ENTRY]), False),
    ("no entries", assistant("<think>x</think>", tool_calls=[]), False),
]


@pytest.mark.parametrize(("first", "expected"), [row[1:] for row in ENTRIES], ids=[row[0] for row in ENTRIES])
def test_well_formed_with_parsed_calls(first, expected):
    assert parse_completion([first, tool(IMAGE), assistant(ANSWER_TURN)]).well_formed is expected


ANSWERS = [
    ("stripped", ["<answer>\n B \n</answer>"], "B"),
    ("empty", ["<answer></answer>"], ""),
    ("malformed around it", ["well <answer>B</answer> yes"], "B"),
    ("no tags", ["B"], None),
    ("two answers", ["<answer>A</answer><answer>B</answer>"], None),
    ("the same answer twice", ["<answer>B</answer><answer>B</answer>"], None),
    ("nested", ["<answer><answer>B</answer></answer>"], None),
    ("a second opening tag", ["<answer>B</answer><answer>"], None),
    ("closed before it is opened", ["</answer>B<answer>"], None),
    ("unclosed", ["<answer>B"], None),
    ("only in the thinking", ["<think><answer>A</answer></think>"], None),
    ("also in the thinking", ["<think>A? <answer>A</answer></think><answer>B</answer>"], "B"),
    ("thinking left open", ["<think>so <answer>B</answer>"], "B"),
    ("not in the last turn", ["<answer>A</answer>", "<think>hm</think>"], None),
    ("the last turn wins", ["<answer>A</answer>", "<answer>B</answer>"], "B"),
    ("a call in the same turn", [f"<tool_call>{CALL}</tool_call><answer>B</answer>"], None),
    ("an opening tag is no call", ["<answer>B</answer><tool_call>"], "B"),
    (
        "a call that was only thought of",
        [f"<think><tool_call>{CALL}</tool_call></think><answer>B</answer>"],
        "B",
    ),
]


@pytest.mark.parametrize(("turns", "expected"), [row[1:] for row in ANSWERS], ids=[row[0] for row in ANSWERS])
def test_answer(turns, expected):
    assert parse_completion([assistant(turn) for turn in turns]).answer == expected


def test_the_answer_is_read_from_assistant_turns_only():
    quoted = "<think>x</think><answer>A</answer>"
    rollout = parse_completion([assistant(ANSWER_TURN), tool(quoted), {"role": "user", "content": quoted}])
    assert (rollout.answer, rollout.well_formed, rollout.turns) == ("B", True, 1)
    assert parse_completion([{"role": "user", "content": quoted}]) == ParsedCompletion(
        None, (), well_formed=False, turns=0
    )
    assert parse_completion([]) == ParsedCompletion(None, (), well_formed=False, turns=0)


def test_a_parsed_call_in_the_last_turn_leaves_no_answer():
    assert parse_completion([assistant("<answer>B</answer>", tool_calls=[ENTRY])]).answer is None


def delivered(*messages):
    return [crop.delivered for crop in parse_completion(list(messages)).crops]


def test_only_an_image_in_the_matching_tool_message_delivers():
    calls = assistant("", tool_calls=[ENTRY, ENTRY])
    assert delivered(calls, tool(IMAGE), tool(IMAGE)) == [True, True]
    assert delivered(calls, tool("Error: empty box"), tool(IMAGE)) == [False, True]
    assert delivered(calls, tool(IMAGE)) == [True, False]
    assert delivered(calls) == [False, False]
    assert delivered(calls, tool(IMAGE), tool("no"), tool(IMAGE)) == [
        True,
        False,
    ]  # a third result answers nothing
    assert delivered(tool(IMAGE), calls) == [False, False]  # a result cannot come before its call
    assert delivered(calls, {"role": "user", "content": IMAGE}) == [False, False]
    assert delivered(assistant(IMAGE, tool_calls=[ENTRY])) == [False]
    assert delivered(calls, tool('[{"type": "image"}]')) == [False, False]
    assert delivered(calls, tool([{"type": "image_url", "image_url": {}}])) == [True, False]
    assert delivered(calls, assistant("hm"), tool(IMAGE)) == [
        False,
        False,
    ]  # answers the later turn, which asked nothing


def test_other_tools_keep_their_place_in_the_count():
    first = assistant("", tool_calls=[entry({}, name="rotate"), ENTRY, {"broken": 1}, ENTRY])
    assert delivered(first, tool(IMAGE), tool("no"), tool(IMAGE), tool(IMAGE)) == [False, True]
    texts = assistant(f"<tool_call>{{</tool_call><tool_call>{CALL}</tool_call>")
    assert delivered(texts, tool(IMAGE)) == [False]
    assert delivered(texts, tool("not JSON"), tool(IMAGE)) == [True]


def test_a_string_delivers_nothing_whatever_it_says():
    text = CALL_TURN + '<tool_response><image></tool_response>{"type": "image"}' + ANSWER_TURN
    rollout = parse_completion(text)
    assert rollout.delivered_crops == ()
    assert rollout.turns == 1
    assert not rollout.well_formed
    assert parse_completion(CALL_TURN).crops == (Crop(BOX, delivered=False, turn=0),)


def test_crops_know_their_turn():
    rollout = parse_completion(
        [
            assistant(CALL_TURN),
            tool("no"),
            {"role": "user", "content": "go on"},
            assistant("hm"),
            assistant(CALL_TURN),
            tool(IMAGE),
        ]
    )
    assert [(crop.turn, crop.delivered) for crop in rollout.crops] == [(0, False), (2, True)]
    assert rollout.turns == 3


BOXES = [
    ("integers", [10, 20, 30, 40], BOX),
    ("floats", [10.0, 20.0, 3e1, 40], BOX),
    ("inverted, as the model wrote it", [30, 40, 10, 20], (30.0, 40.0, 10.0, 20.0)),
    ("negative", [-1, 0, 1, 2], (-1.0, 0.0, 1.0, 2.0)),
    ("large but finite", [1e308, 1e308, 1e308, 1e308], (1e308,) * 4),
    ("three numbers", [1, 2, 3], None),
    ("five numbers", [1, 2, 3, 4, 5], None),
    ("a tuple of text", ["1", "2", "3", "4"], None),
    ("a list as JSON text", "[10, 20, 30, 40]", BOX),
    ("a text", "10, 20, 30, 40", None),
    ("truth values", [True, False, True, True], None),
    ("None inside", [1, 2, None, 4], None),
    ("nested", [[10, 20, 30, 40]], None),
    ("not a number", [float("nan"), 0, 1, 1], None),
    ("infinite", [0, 0, float("inf"), 1], None),
    ("too large for a float", [0, 0, 10**400, 1], None),
    ("None", None, None),
    ("a dict", {"x": 1}, None),
]


@pytest.mark.parametrize(("written", "expected"), [row[1:] for row in BOXES], ids=[row[0] for row in BOXES])
def test_box(written, expected):
    arguments = {"bbox_2d": written}
    forms = [
        assistant("", tool_calls=[entry(arguments)]),
        assistant("", tool_calls=[entry(json.dumps(arguments))]),
        assistant("", tool_calls=[entry(arguments)["function"]]),
        assistant(
            f"<tool_call>{json.dumps({'name': 'image_zoom_in_tool', 'arguments': arguments})}</tool_call>"
        ),
    ]
    for form in forms:
        assert parse_completion([form]).crops == (Crop(expected, delivered=False, turn=0),)


ARGUMENTS = [
    "",
    "{",
    "[]",
    "7",
    None,
    7,
    [],
    [1, 2, 3, 4],
    {},
    {"bbox": [1, 2, 3, 4]},
    "[" * 100_000,
    '{"bbox_2d": [' + "9" * 5000 + ",1,1,1]}",
]


@pytest.mark.parametrize("arguments", ARGUMENTS, ids=range(len(ARGUMENTS)))
def test_strange_arguments_give_a_crop_without_a_box(arguments):
    assert parse_completion([assistant("", tool_calls=[entry(arguments)])]).crops == (
        Crop(None, delivered=False, turn=0),
    )


def test_strange_calls_give_no_crop():
    strange = [
        None,
        7,
        "x",
        [],
        {},
        {"function": None},
        {"function": {"name": 7}},
        entry({}, name="zoom"),
        {"name": None},
    ]
    for calls in ([one] for one in strange):
        rollout = parse_completion([assistant("<answer>B</answer>", tool_calls=calls)])
        assert (rollout.crops, rollout.answer) == ((), None)
    for no_list in (None, 7, "x", {"a": 1}):
        assert parse_completion([assistant("<answer>B</answer>", tool_calls=no_list)]).answer == "B"


def test_content_of_other_types_is_silence():
    for content in (None, 7, {}, [None, 7, {"type": "text"}, {"type": "text", "text": 7}]):
        assert parse_completion([assistant(content)]) == ParsedCompletion(
            None, (), well_formed=False, turns=1
        )
    assert parse_completion([assistant(["<answer>", {"type": "text", "text": "B</answer>"}])]).answer == "B"


def test_structure_errors_name_the_row():
    with pytest.raises(TypeError, match=r"completions\[1\] must be a string or a list of messages, got int"):
        parse_completions(["x", 7])
    with pytest.raises(TypeError, match=r"completions\[0\]\[1\] must be a message \(a dict\), got str"):
        parse_completions([[assistant("x"), "y"]])
    with pytest.raises(TypeError, match=r"^completion must be a string or a list of messages, got dict"):
        parse_completion(assistant("x"))
    for one in ("x", assistant("x"), parse_completion("x")):
        with pytest.raises(
            TypeError, match=r"^completions must be a list of completions, got (str|dict|ParsedCompletion)"
        ):
            parse_completions(one)


@given(st.lists(turn_texts, min_size=1, max_size=3))
@example([CALL_TURN, ANSWER_TURN])
@example(["<think>\u2003</think><answer>\x1f</answer>\x85"])
def test_texts_agree_with_re_and_json(turns):
    rollout = parse_completion([assistant(turn) for turn in turns])
    expected = oracles.parse_texts(turns)
    assert (rollout.answer, [crop.box for crop in rollout.crops], rollout.well_formed) == expected
    assert rollout.turns == len(turns)


@given(completions)
def test_no_text_raises_and_what_comes_out_is_sound(completion):
    rollout = parse_completion(completion)
    assert rollout.answer is None or rollout.answer == rollout.answer.strip()
    for crop in rollout.crops:
        assert 0 <= crop.turn < rollout.turns
        assert crop.box is None or (len(crop.box) == 4 and all(map(math.isfinite, crop.box)))
    if isinstance(completion, str):
        assert rollout.delivered_crops == ()
        assert rollout == parse_completion([assistant(completion)])


@given(messages)
def test_delivered_crops_never_outnumber_tool_messages_with_an_image(completion):
    def has_image(message):
        blocks = message["content"] if isinstance(message["content"], list) else []
        return message["role"] == "tool" and any(
            isinstance(b, dict) and b.get("type") == "image" for b in blocks
        )

    assert len(parse_completion(completion).delivered_crops) <= sum(map(has_image, completion))


PLAIN = '{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [1, 2.5, -3, 40]}}'
CALLS = [
    PLAIN,
    PLAIN.replace(" ", ""),
    PLAIN.replace(" ", "\n\t\r "),
    f" \n{PLAIN}\t",
    f"\u00a0{PLAIN}",
    f"\x0b{PLAIN}",
    PLAIN + "}",
    PLAIN + " x",
    PLAIN[:-1],
    PLAIN[:-2],
    PLAIN[:40],
    '{"arguments": {"bbox_2d": [1, 2, 3, 4]}, "name": "image_zoom_in_tool"}',
    '{"arguments": {"bbox_2d": [1, 2, 3, 4]}, "name": "rotate"}',
    '{"name": "image_zoom_in_tool", "name": "rotate", "arguments": {"bbox_2d": [1, 2, 3, 4]}}',
    '{"name": "rotate", "name": "image_zoom_in_tool", "arguments": {"bbox_2d": [1, 2, 3, 4]}}',
    '{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [1, 2, 3, 4]}, "arguments": {}}',
    '{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [1, 2, 3, 4], "bbox_2d": [5, 6, 7, 8]}}',
    '{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [1, 2, 3, 4], "label": "a sign"}}',
    '{"name": "image_zoom_in_tool", "arguments": {"label": "\\u0061 \\"", "bbox_2d": [1, 2, 3, 4]}}',
    '{"name": "image_zoom_in_tool", "arguments": {"label": "a\nb", "bbox_2d": [1, 2, 3, 4]}}',
    '{"name": "image_zoom_in_tool", "arguments": {"label": "\u72d7\ud800", "bbox_2d": [1, 2, 3, 4]}}',
    '{"name": "image_zoom_in_tool", "arguments": {"label": 7, "bbox_2d": [1, 2, 3, 4]}}',
    '{"name": "image_zoom_in_tool", "arguments": {"label": "open, "bbox_2d": [1, 2, 3, 4]}}',
    '{"name": "image_zoom_in_tool", "arguments": {"label": "x"}}',
    '{"name": "image_zoom_in_tool", "arguments": {}}',
    '{"name": "image_zoom_in_tool", "arguments": "{\\"bbox_2d\\": [1, 2, 3, 4]}"}',
    '{"name": "image_zoom_in_tool", "id": 1, "arguments": {"bbox_2d": [1, 2, 3, 4]}}',
    '{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [1, 2, 3, 4]},}',
    '{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [1, 2, 3, 4],}}',
    '{"name" "image_zoom_in_tool", "arguments": {"bbox_2d": [1, 2, 3, 4]}}',
    '{"name": "image_zoom_in_tool", "arguments" {"bbox_2d": [1, 2, 3, 4]}}',
    '{"name": "image_zoom_in_tool", "arguments": {"bbox_2d" [1, 2, 3, 4]}}',
    '{"name": "image_zoom_in_tool"}',
    '{"name": 7, "arguments": {"bbox_2d": [1, 2, 3, 4]}}',
    "{}",
    "{",
    "",
    "null",
    "[" * 2000,
]
NUMBERS = [
    "0", "-0", "-0.0", "0.5", "-0.5", "00", "01", "-01", "1.", ".5", "-", "--1", "+1", "1e2", "1E2", "1e",
    "1e999", "123456789012345", "-123456789012345", "1234567890123456", "0.1234567890123", "9" * 400,
    "0.12345678901234", "9" * 5000, "0.30000000000000004", "1.7976931348623157e308", "4.35", "2.675", "1 2",
    "NaN", "Infinity", "-Infinity", "true", "null", '"7"', "[7]", "\u0663", "1x", "0x1", "1_0",
]  # fmt: skip
CALLS += [PLAIN.replace("2.5", number) for number in NUMBERS] + [
    PLAIN.replace("40", number) for number in NUMBERS
]
CALLS += [PLAIN.replace("1, 2.5", box) for box in ("1", "1, 2, 3", "", "1,, 2", "1 2")]


LABELS = [
    '\\"', "\\\\", "\\/\\b\\f\\n\\r\\t", "\\u72d7", "\\uD83D\\uDC15", "\\ud83d", "\\uABcd\\uef09",
    "\\x", "\\U0041", "\\", "\\u", "\\u12", "\\u004", "\\u00g1", "\\u00 1", "\\u004:", "\\u004/",
    "\\u004@", "\\u004`", "\\u004G", "a\\", "\\\n", "\\'", "\\\\\\", '\\\\"',
]  # fmt: skip
CALLS += [PLAIN.replace("40]", f'40], "label": "{label}"') for label in LABELS] + [
    PLAIN.replace("bbox_2d", written) for written in ("bbo\\u0078_2d", "bbox_2d\\u0020", "\\bbox_2d")
]
CALLS += [
    '{"name": "image_zoom_in_tool", "arguments": {"bbo\\u0078_2d": "x", "bbox_2d": [1, 2, 3, 4]}}',
    '{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [1, 2, 3, 4], "bbo\\u0078_2d": "x"}}',
]


@pytest.mark.parametrize("thought", ["x", "caf\u00e9", "\u72d7", "\U0001f415"])
def test_calls_are_read_as_json_reads_them(thought):
    """Plain calls are read in the compiled pass, the others by `json`: nobody can tell which."""
    texts = [f"<think>{thought}</think><tool_call>{call}</tool_call>" for call in CALLS]
    for text in texts:
        boxes = [crop.box for crop in parse_completion(text).crops]
        assert boxes == oracles.parse_texts([text])[1], text
    assert parse_completions(texts) == [parse_completion(text) for text in texts]
    zero = parse_completion(texts[0].replace("2.5", "-0")).crops[0].box
    assert math.copysign(1, zero[1]) == 1  # as json: the integer 0
    zero = parse_completion(texts[0].replace("2.5", "-0.0")).crops[0].box
    assert math.copysign(1, zero[1]) == -1


def test_plain_calls_never_reach_the_json_parser(monkeypatch):
    plain = [PLAIN, PLAIN.replace("40]", '40], "label": "a sign \u72d7"')]
    escaped = PLAIN.replace("40]", '40], "label": "a \\"sign\\""')
    broken = PLAIN[:-1]
    asked = []
    monkeypatch.setattr(_scan, "read_written_call", lambda text, _: asked.append(text) or _calls.NO_CROP)
    for thought in ("x", "\u72d7"):
        texts = [
            f"<think>{thought}</think><tool_call>{call}</tool_call>" for call in [*plain, escaped, broken]
        ]
        assert [len(rollout.crops) for rollout in parse_completions(texts)] == [1, 1, 0, 0]
    assert asked == [escaped, broken] * 2


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**7), max_value=10**7, places=6))
def test_decimals_are_rounded_as_python_rounds_them(number):
    text = f"<tool_call>{PLAIN.replace('2.5', format(number, 'f'))}</tool_call>"
    assert parse_completion(text).crops[0].box[1] == float(number)


LONG = [
    "99999999999999.9", "999999999999999.9", "-999999999999999.9", "99999999999999.95", "9.999999999999999",
    "0.123456789012345", "0.1234567890123456", "999999999999999", "9007199254740993", "1000000000000000.1",
]  # fmt: skip


@pytest.mark.parametrize("number", LONG)
def test_a_number_of_more_digits_than_a_float_holds_is_rounded_as_python_rounds_it(number):
    text = f"<tool_call>{PLAIN.replace('2.5', number)}</tool_call>"
    assert parse_completion(text).crops[0].box[1] == float(number)


@given(st.integers(10**13, 10**17), st.integers(0, 17))
def test_numbers_with_as_many_digits_as_a_float_holds_are_rounded_as_python_rounds_them(digits, decimals):
    whole, part = divmod(digits, 10**decimals)
    number = f"{whole}.{part:0{decimals}d}" if decimals else str(whole)
    text = f"<tool_call>{PLAIN.replace('2.5', number)}</tool_call>"
    assert parse_completion(text).crops[0].box[1] == float(number)


def test_white_space_is_what_python_strips():
    """Every character that `str.strip` removes, and no other."""
    characters = [chr(code) for code in range(sys.maxunicode + 1)]
    assert max(c for c in characters if c.isspace()) < "\u3100"
    characters = characters[:0x3100] + characters[0x3100::997]
    answers = [rollout.answer for rollout in parse_completions([f"<answer>{c}</answer>" for c in characters])]
    assert answers == [c.strip() for c in characters]


def test_a_batch_is_as_good_as_one_by_one():
    """Many turns, so that they come in several portions, with characters of every width."""
    widths = ["", "caf\u00e9", "\u72d7", "\U0001f415", "\ud83d", "\udc15"]
    texts = []
    for i in range(700):
        calls = f"<tool_call>{PLAIN if i % 3 else PLAIN[:-1]}</tool_call>" * (i % 4)
        texts.append(f"<think>{widths[i % 6] * (i % 50)}</think>{calls}" + f"<answer>{i}</answer>" * (i % 3))
    assert parse_completions(texts) == [parse_completion(text) for text in texts]
    chats = [
        [assistant(text), tool(IMAGE), assistant(f"<answer>{i}</answer>")] for i, text in enumerate(texts)
    ]
    mixed = [row for pair in zip(texts, chats, strict=True) for row in pair]
    assert parse_completions(mixed) == [parse_completion(row) for row in mixed]


GARBAGE = 1 if config.DISABLE_JIT else 100  # the compiled pass is what must be fast


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>" * 2000 * GARBAGE,
        "<answer>" * 2000 * GARBAGE,
        "<think>" * 2000 * GARBAGE,
        "<" * 10_000 * GARBAGE,
        "</" * 10_000 * GARBAGE,
        " " * 10_000 * GARBAGE,
        "<tool_call>" * 500 * GARBAGE + "</tool_call>" * 500 * GARBAGE,
        "<tool_call>{</tool_call>" * 500 * GARBAGE,
    ],
)
def test_long_garbage_takes_no_long_time(text):
    parse_completion("")  # compiles
    start = time.process_time()
    assert parse_completion(text).well_formed is False
    assert time.process_time() - start < 5
