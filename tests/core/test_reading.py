"""One rollout, told as messages or as one text: who said what, and what a text can prove."""

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numba import config

from lfpc_rewards import Crop, ParsedCompletion, lfpc_reward, parse_completion, parse_completions
from lfpc_rewards.adapters import CropsOf, TrlReward, VerlScore, swift_orm
from lfpc_rewards.adapters.binding import Binding
from lfpc_rewards.parsing import opens_thinking
from tests.core.strategies import turn_texts

BOX = (10.0, 20.0, 30.0, 40.0)
JSON = '{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [10, 20, 30, 40]}}'
XML = (
    "\n<function=image_zoom_in_tool>\n<parameter=bbox_2d>\n[10, 20, 30, 40]\n</parameter>\n"
    "<parameter=label>\nthe sign\n</parameter>\n</function>\n"
)
CALL = f"<think>near</think>\n<tool_call>\n{JSON}\n</tool_call>"
ANSWER = "<think>a sign</think><answer>B</answer>"
PICTURE = {"type": "image", "image": object()}
TOKENS = "<|vision_start|><|image_pad|><|image_pad|><|vision_end|>"
LOOKED = ParsedCompletion("B", (Crop(BOX, delivered=True, turn=0),), well_formed=True, turns=2)
REQUESTED = ParsedCompletion("B", (Crop(BOX, delivered=False, turn=0),), well_formed=True, turns=2)


def assistant(content, **more):
    return {"role": "assistant", "content": content, **more}


def tool(*content):
    return {"role": "tool", "content": list(content)}


ZOOMED = "Zoomed in on the image to the region [10, 20, 30, 40]."


# --- the same rollout as messages and as a text -------------------------------------------------------


def with_tokens(rollout, end="<|im_end|>"):
    """As Qwen's template writes a rollout and a decoder that keeps special tokens gives it back."""
    text = ""
    for turn, answers in rollout:
        text += turn + end
        if answers:
            told = "\n".join(
                f"<tool_response>\n{TOKENS if a is None else a}\n</tool_response>" for a in answers
            )
            text += f"\n<|im_start|>user\n{told}<|im_end|>\n<|im_start|>assistant\n"
    return text


def without_tokens(rollout):
    """As verl 0.9.1 hands it over: a tool's answer follows the turn without a line break."""
    text = ""
    for turn, answers in rollout:
        text += turn
        if answers:
            told = "\n".join(f"<tool_response>\n{'' if a is None else a}\n</tool_response>" for a in answers)
            text += f"user\n{told}\nassistant\n"
    return text


def as_messages(rollout):
    said = []
    for turn, answers in rollout:
        said.append(assistant(turn))
        said += [tool(PICTURE if each is None else {"type": "text", "text": each}) for each in answers]
    return said


def undelivered(rollout):
    crops = tuple(Crop(crop.box, delivered=False, turn=crop.turn) for crop in rollout.crops)
    return ParsedCompletion(rollout.answer, crops, rollout.well_formed, rollout.turns)


# A result is a picture (None) or words; a rollout is turns, all but the last of which got results.
results = st.lists(
    st.none() | st.sampled_from(["", "Error: empty box", "狗", "a < b"]), min_size=1, max_size=3
)
rollouts = st.builds(
    lambda turns, last: [*turns, (last, [])],
    st.lists(st.tuples(turn_texts | st.just(CALL), results), max_size=3),
    turn_texts | st.just(ANSWER),
)


@given(rollouts, st.sampled_from(["<|im_end|>", "<|endoftext|>"]))
@example([(CALL, [None]), (ANSWER, [])], "<|im_end|>")
@example([(f"{CALL}<tool_call>{XML}</tool_call>", ["no", None]), (ANSWER, [])], "<|im_end|>")
def test_a_text_gives_the_rollout_that_the_messages_give(rollout, end):
    expected = parse_completion(as_messages(rollout))
    text = with_tokens(rollout, end)
    assert parse_completion(text, picture_mark="<|vision_start|>") == expected
    assert parse_completion(text) == undelivered(expected)
    assert parse_completion(without_tokens(rollout)) == undelivered(expected)


@given(st.lists(rollouts, min_size=1, max_size=4))
def test_rewards_are_the_same_from_texts_and_from_messages(batch):
    """But for the tool bonus, which only a delivered picture earns."""
    count = len(batch)
    targets = {"targets": [[[10, 20, 30, 40]]] * count, "image_sizes": (100, 100), "crops": "requested"}
    totals = [
        lfpc_reward(list(map(told, batch)), ["B"] * count, tool_weight=0.0, **targets).tolist()
        for told in (as_messages, with_tokens, without_tokens)
    ]
    assert totals[0] == totals[1] == totals[2]


def test_a_rollout_may_end_with_a_result():
    cut = [assistant(CALL), tool(PICTURE)]
    for text in (
        f"{CALL}<|im_end|>\n<|im_start|>user\n<tool_response>\n{TOKENS}\n</tool_response><|im_end|>\n",
        f"{CALL}user\n<tool_response>\n{TOKENS}\n</tool_response>\n",
        f"{CALL}user\n<tool_response>\n{TOKENS}",
    ):
        assert parse_completion(text, picture_mark="<|vision_start|>") == parse_completion(cut), text


RESULT, NEXT = "<tool_response>x</tool_response>", "<|im_start|>assistant\n"
MARKS = [
    ("role markers from the first turn on", f"<|im_start|>assistant\n{ANSWER}<|im_end|>", 1, "B"),
    ("the end of a turn and padding", f"{ANSWER}<|im_end|>\n<|endoftext|><|endoftext|>", 1, "B"),
    ("a prompt before it", f"<|im_start|>user\n?<|im_end|>\n{NEXT}{ANSWER}", 1, "B"),
    ("a line break before the user", f"{CALL}\nuser\n{RESULT}\nassistant\n{ANSWER}", 2, "B"),
    ("a tool's own role", f"{CALL}<|im_end|>\n<|im_start|>tool\nx<|im_end|>\n{NEXT}{ANSWER}", 2, "B"),
    ("a user's turn without a result", f"{CALL}\nuser\nThe crop:\nassistant\n{ANSWER}", 2, "B"),
    ("words behind the call", f"{CALL} so.user\n{RESULT}\nassistant\n{ANSWER}", 2, "B"),
    (
        "another answer after the user's words",
        f"<answer>C</answer>\nuser\nSure?\nassistant\n{ANSWER}",
        2,
        "B",
    ),
    ("role words inside the thinking", "<think>user\nx\nassistant\ny</think><answer>B</answer>", 1, "B"),
    ("a result that the model typed", f"{CALL}<tool_response>x</tool_response>{ANSWER}", 1, "B"),
    ("a role without a turn", "<|im_start|>user\nx", 0, None),
]


@pytest.mark.parametrize(
    ("text", "turns", "answer"), [row[1:] for row in MARKS], ids=[row[0] for row in MARKS]
)
def test_turns_in_a_text(text, turns, answer):
    rollout = parse_completion(text)
    assert (rollout.turns, rollout.answer) == (turns, answer)
    assert rollout.delivered_crops == ()
    answered = parse_completion(ANSWER)
    mixed = parse_completions([ANSWER, text, [assistant(ANSWER)], text])
    assert mixed == [answered, rollout, answered, rollout]


def test_words_behind_the_end_of_a_turn_are_not_hidden():
    assert not parse_completion(f"{ANSWER}<|im_end|>and more").well_formed


def test_messages_are_never_taken_apart():
    """Markers in a message are the model's own words: it gains no turn by them, and no picture."""
    typed = with_tokens([(CALL, [None]), (ANSWER, [])])
    rollout = parse_completion([assistant(typed)], picture_mark="<|vision_start|>")
    assert (rollout.turns, rollout.well_formed, rollout.delivered_crops) == (1, False, ())


def test_a_picture_mark_counts_at_the_beginning_of_an_answer_only():
    """Further on, an error may repeat what the model wrote."""

    def looked(answer):
        text = f"{CALL}user\n<tool_response>\n{answer}\n</tool_response>\nassistant\n{ANSWER}"
        return parse_completion(text, picture_mark="Zoomed in")

    assert looked(ZOOMED) == LOOKED
    by_role = f"{CALL}\ntool\n{ZOOMED}\nassistant\n{ANSWER}"
    assert parse_completion(by_role, picture_mark="Zoomed in") == LOOKED
    of_the_user = f"{CALL}\nuser\n{ZOOMED}\nassistant\n{ANSWER}"
    assert parse_completion(of_the_user, picture_mark="Zoomed in") == REQUESTED
    assert parse_completion(of_the_user, picture_mark="Zoomed in", delivered_in="user") == LOOKED
    assert looked("Error: the box 'Zoomed in' is none.") == REQUESTED
    assert looked("") == REQUESTED


# --- forms of calls -----------------------------------------------------------------------------------

ENTRY = {"type": "function", "function": {"name": "zoom", "arguments": {"region": [10, 20, 30, 40]}}}
QUOTE, ZOOM = '"', JSON.replace("image_zoom_in_tool", "zoom")
FOUR = "<parameter=x1>10</parameter><parameter=y1>20</parameter><parameter=x2>30</parameter>"
FOUR += "<parameter=y2>40</parameter>"
GLM = (
    "image_zoom_in_tool\n<arg_key>bbox_2d</arg_key>\n<arg_value>[10, 20, 30, 40]</arg_value>\n"
    "<arg_key>label</arg_key>\n<arg_value>a sign</arg_value>\n"
)
FORMS = [
    ("JSON", f"<tool_call>{JSON}</tool_call>", {}),
    ("the XML of Qwen3.5", f"<tool_call>{XML}</tool_call>", {}),
    ("the XML of GLM-4.6V", f"<tool_call>{GLM}</tool_call>", {}),
    ("GLM's on one line", f"<tool_call>{''.join(GLM.split(chr(10)))}</tool_call>", {}),
    ("XML on one line", f"<tool_call>{''.join(XML.split(chr(10)))}</tool_call>", {}),
    (
        "a box as text",
        f"<tool_call>{JSON.replace('[', QUOTE + '[').replace(']', ']' + QUOTE)}</tool_call>",
        {},
    ),
    ("another tool", f"<tool_call>{ZOOM}</tool_call>", {"tool": "zoom"}),
    (
        "another argument",
        f"<tool_call>{ZOOM.replace('bbox_2d', 'region')}</tool_call>",
        {"tool": {"zoom": "region", "rotate": "by"}},
    ),
    (
        "four arguments",
        '<tool_call>{"name": "crop", "arguments": {"x1": 10, "y1": 20, "x2": 30, "y2": 40}}</tool_call>',
        {"tool": {"crop": ["x1", "y1", "x2", "y2"]}},
    ),
    (
        "four arguments in XML",
        f"<tool_call><function=crop>{FOUR}</function></tool_call>",
        {"tool": {"crop": ("x1", "y1", "x2", "y2")}},
    ),
    ("an entry of tool_calls", [ENTRY], {"tool": {"zoom": "region"}}),
]


@pytest.mark.parametrize(("call", "options"), [row[1:] for row in FORMS], ids=[row[0] for row in FORMS])
def test_every_form_of_a_call_is_a_crop_wherever_it_comes_from(call, options):
    if isinstance(call, list):
        first = assistant("<think>near</think>", tool_calls=call)
    else:
        first = assistant(f"<think>near</think>{call}")
        text = with_tokens([(first["content"], [None]), (ANSWER, [])])
        assert parse_completion(text, picture_mark="<|vision_start|>", **options) == LOOKED
    assert parse_completion([first, tool(PICTURE), assistant(ANSWER)], **options) == LOOKED


BROKEN = [
    GLM.replace("image_zoom_in_tool", ""),
    GLM.replace("image_zoom_in_tool", "rotate"),
    GLM.replace("\n<arg_key>bbox", " and\n<arg_key>bbox"),
    "image_zoom_in_tool",
    XML.replace("</function>", ""),
    XML.replace("<function=image_zoom_in_tool>", "<function=>"),
    XML.replace("image_zoom_in_tool", "rotate"),
    "x" + XML,
    "<function=image_zoom_in_tool" + ">" * 5000,
]


@pytest.mark.parametrize("call", BROKEN, ids=range(len(BROKEN)))
def test_a_broken_call_keeps_its_place(call):
    turn = f"<think>x</think><tool_call>{call}</tool_call><tool_call>{JSON}</tool_call>"
    rollout = parse_completion([assistant(turn), tool(PICTURE), tool("no")])
    assert rollout.crops == (Crop(BOX, delivered=False, turn=0),)


def test_the_crop_tool_of_another_name_is_no_crop_unless_the_caller_says_so():
    turn = f"<think>x</think><tool_call>{JSON.replace('image_zoom_in_tool', 'zoom')}</tool_call>"
    assert parse_completion(turn).crops == ()
    assert parse_completion(CALL, tool="zoom").crops == ()


# --- pictures in the user's turns ---------------------------------------------------------------------

USER = {"role": "user", "content": [{"type": "text", "text": "The crop:"}, PICTURE]}
TWO = f"<think>x</think><tool_call>{JSON}</tool_call><tool_call>{JSON}</tool_call>"
TOLD = {"role": "user", "content": [{"type": "text", "text": "Nothing."}]}
DELIVERED = [
    ("a picture in the user's turn", [assistant(CALL), USER], [True]),
    ("no picture in it", [assistant(CALL), TOLD], [False]),
    ("the tool's words, then the picture", [assistant(CALL), tool("done"), USER], [True]),
    ("two calls, one picture: which?", [assistant(TWO), USER], [False, False]),
    ("two calls, two pictures", [assistant(TWO), USER, USER], [True, True]),
    ("two calls, three pictures", [assistant(TWO), USER, USER, USER], [False, False]),
    (
        "one from the tool, one from the user",
        [assistant(TWO), tool(PICTURE), tool("see below"), USER],
        [True, True],
    ),
    ("a picture for the turn after it", [USER, assistant(CALL)], [False]),
    ("a picture after a turn without a call", [assistant(CALL), assistant("x"), USER], [False]),
]


@pytest.mark.parametrize(
    ("messages", "expected"), [row[1:] for row in DELIVERED], ids=[r[0] for r in DELIVERED]
)
def test_pictures_in_the_users_turn_count_where_the_caller_says_so(messages, expected):
    rollout = parse_completion(messages, delivered_in="user")
    assert [crop.delivered for crop in rollout.crops] == expected
    by_tools = [crop.delivered for crop in parse_completion(messages).crops]
    assert all(by_user or not by_tool for by_user, by_tool in zip(expected, by_tools, strict=True))
    then = parse_completion([*messages, assistant(ANSWER)], delivered_in="user")
    assert [crop.delivered for crop in then.crops] == expected


# --- thinking that the prompt opened ------------------------------------------------------------------


def test_thinking_that_the_prompt_opened():
    said = "a sign</think><answer>B</answer>"
    assert not parse_completion(said).well_formed
    assert parse_completion(said, think_open=True) == parse_completion(ANSWER)
    assert parse_completion([assistant(said)], think_open=True) == parse_completion(ANSWER)
    text = with_tokens([("near" + CALL.removeprefix("<think>near"), [None]), (ANSWER, [])])
    assert parse_completion(text, think_open=True) == REQUESTED  # a later turn shows its own tag
    moved = assistant("<answer>B</answer>", reasoning_content="")
    assert not parse_completion([moved]).well_formed
    assert parse_completion([moved], think_open=True).well_formed
    marked = f"<|im_start|>assistant\n{ANSWER}<|im_end|>"
    assert parse_completion(marked, think_open=True) == parse_completion(ANSWER)


def test_prompts_say_whether_thinking_is_open():
    said = "a sign</think><answer>B</answer>"
    prompts = [
        "<|im_start|>assistant\n<think>\n",
        "<|im_start|>assistant\n<think>\n\n</think>\n\n",
        "<think>",
    ]
    assert [opens_thinking(prompt) for prompt in prompts] == [True, False, True]
    found = parse_completions([said, said, [assistant(said)]], prompts=prompts)
    assert [rollout.well_formed for rollout in found] == [True, False, True]
    rollout = parse_completion(ANSWER)
    mixed = parse_completions([rollout, said, said], prompts=[prompts[1], prompts[0], prompts[1]])
    assert [each.well_formed for each in mixed] == [True, True, False]
    assert [r.well_formed for r in parse_completions([said] * 3, prompts=prompts, think_open=False)] == [
        False
    ] * 3


# --- what a caller may get wrong ----------------------------------------------------------------------

WRONG = [
    ({"delivered_in": "assistant"}, ValueError, 'delivered_in must be "tool" or "user", got \'assistant\''),
    ({"picture_mark": ""}, ValueError, "picture_mark must be a text or None, got ''"),
    ({"picture_mark": 7}, ValueError, "picture_mark must be a text or None, got 7"),
    ({"tool": 7}, TypeError, "tool must be a name or a dict of names and their box arguments, got 7"),
    ({"tool": {}}, TypeError, "tool must be a name or a dict"),
    ({"tool": {"zoom": ["x1", "x2"]}}, TypeError, "tool\\['zoom'\\] must name the argument that holds"),
    ({"tool": {"zoom": [1, 2, 3, 4]}}, TypeError, "tool\\['zoom'\\] must name arguments by texts"),
    ({"prompts": ["x", "y"]}, ValueError, "prompts must have one entry per completion, got 2 for 1"),
    ({"prompts": [7]}, TypeError, "prompts\\[0\\] must be the text of a prompt, got int"),
]


@pytest.mark.parametrize(("options", "kind", "message"), WRONG)
def test_what_cannot_be_read_so_is_said(options, kind, message):
    with pytest.raises(kind, match=message):
        parse_completions([ANSWER], **options)


# --- adapters -----------------------------------------------------------------------------------------

LOOKED_TEXT = without_tokens(
    [(CALL, ["Zoomed in on the image to the region [10, 20, 30, 40]."]), (ANSWER, [])]
)
GUESSED = ANSWER


def test_verl_pays_for_looking_what_it_pays_for_guessing_and_the_bonus_where_the_tool_is_trusted():
    """Before, all turns were one: 0.6 for looking and being right."""
    plain = VerlScore(lfpc_reward, columns={"answers": "ground_truth"})
    assert [plain("mine", text, "B") for text in (LOOKED_TEXT, GUESSED)] == pytest.approx([0.8, 0.8])
    trusting = VerlScore(
        lfpc_reward, columns={"answers": "ground_truth"}, reading={"picture_mark": "Zoomed in on the image"}
    )
    assert [trusting("mine", text, "B") for text in (LOOKED_TEXT, GUESSED)] == pytest.approx([2.0, 0.8])


def test_crops_of_earlier_turns_reach_the_grounding():
    score = VerlScore(
        lfpc_reward,
        columns={"answers": "ground_truth", "targets": "boxes"},
        crops=CropsOf("original", requested=True),
    )
    info = {"boxes": [list(BOX)], "image_sizes": (100, 100)}
    assert score("mine", LOOKED_TEXT, "B", info) == pytest.approx(1.8)


def test_adapters_read_as_they_are_told():
    said = "a sign</think><answer>B</answer>"
    columns = {"answers": "solution"}
    reward = TrlReward(lfpc_reward, columns=columns, reading={"think_open": True})
    assert reward(completions=[[assistant(said)]], solution=["B"]) == pytest.approx([0.8])
    orm = swift_orm(object, "Lfpc", lfpc_reward, columns=columns, reading={"think_open": True})
    assert orm()([said], solution=["B"]) == pytest.approx([0.8])
    found_out = TrlReward(lfpc_reward, columns=columns)
    for prompt, expected in (("<think>\n", 0.8), ("", 0.6)):
        scores = found_out(prompts=[prompt], completions=[said], solution=["B"])
        assert scores == pytest.approx([expected])


def test_a_reading_that_cannot_be_is_refused_before_training():
    from lfpc_rewards import presets

    with pytest.raises(TypeError, match="unexpected keyword argument 'thinking'"):
        Binding(lfpc_reward, reading={"thinking": True})
    with pytest.raises(ValueError, match="delivered_in must be"):
        TrlReward(lfpc_reward, reading={"delivered_in": "x"})
    with pytest.raises(TypeError, match="vlm_r1 does not use parse_completions: reading must be empty"):
        TrlReward(presets.vlm_r1, reading={"think_open": True})


# --- size ---------------------------------------------------------------------------------------------

GARBAGE = 1 if config.DISABLE_JIT else 5
PIECES = (
    "user\n<tool_response>",
    "user\n<tool_response>\nassistant\n",
    "<|im_start|>",
    "<|im_end|>",
    "<|im_end|>\n",
    "</think>user\n",
    "</think>\nuser\n\nassistant\n",
    "<tool_response>",
    "</tool_response>",
    "<function=",
    "\n",
    "<tool_call><function=image_zoom_in_tool><parameter=bbox_2d></function></tool_call>",
    "assistant\n",
)


@pytest.mark.parametrize("pieces", [*itertools.combinations(PIECES, 2)], ids=range(78))
def test_a_long_text_of_markers_is_read_in_one_go(pieces):
    text = "".join(pieces) * 500 * GARBAGE + pieces[0] * 500 * GARBAGE
    rollout = parse_completion(text, picture_mark="x", think_open=True)  # quadratic would take minutes
    assert rollout.delivered_crops == ()
    assert rollout == parse_completions([ANSWER, text], picture_mark="x", think_open=True)[1]
