"""What the model wrote stays as it was written; what anybody wrote stays words."""

import pytest
from trl.chat_template_utils import parse_response, qwen3_vl_chat_template

from lfpc_rewards import parse_completion
from lfpc_trl.models.escaping import escape_special_tokens
from lfpc_trl.models.processors import load_processor
from lfpc_trl.rollouts.turns import TurnWriter, parts_of, turns_of
from lfpc_trl.runs.reading import conversation
from tests import tiny

CALL = '<tool_call>{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [1, 2, 30, 40]}}</tool_call>'
MIXED = [  # id, a turn whose order a parser loses
    ("text after a call", f"<think>near</think>before {CALL} after"),
    ("thinking after a call", f"{CALL}<think>late</think>"),
    ("text between calls", f"<think>x</think>{CALL} between {CALL} after"),
]


@pytest.fixture(scope="module")
def processor(one_model_dir):
    return load_processor(one_model_dir)


def written(processor, text, end="<|im_end|>"):
    ids = processor.tokenizer(text + end, add_special_tokens=False)["input_ids"]
    processor.turn_ends = (processor.tokenizer.eos_token_id, processor.tokenizer.pad_token_id)
    return TurnWriter(processor).message(ids)


@pytest.mark.parametrize("text", [each[1] for each in MIXED], ids=[each[0] for each in MIXED])
@pytest.mark.parametrize("end", ["<|im_end|>", "<|endoftext|>", ""])
def test_a_turn_is_kept_in_its_order_without_its_end(processor, text, end):
    assert written(processor, text, end) == {"role": "assistant", "content": text}


@pytest.mark.parametrize("text", [each[1] for each in MIXED[::2]], ids=[each[0] for each in MIXED[::2]])
def test_the_library_loses_what_stood_before_a_call(processor, text):
    """Where this fails, the library has learned to keep it."""
    ids = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    parsed = parse_response(
        processor.tokenizer, ids, prefix=processor.tokenizer("<|im_start|>assistant\n")["input_ids"]
    )
    assert "near" not in parsed["content"]
    assert parsed["content"].strip() == "after"


def test_the_rewards_read_a_turn_as_it_was_written(processor):
    late, good = (written(processor, text) for text in (MIXED[1][1], f"<think>near</think>{CALL}"))
    answers = [
        {"role": "tool", "content": [{"type": "image"}]},
        written(processor, "<think>so</think><answer>A</answer>"),
    ]
    assert parse_completion([good, *answers]).well_formed
    assert not parse_completion([late, *answers]).well_formed
    assert parse_completion([good, *answers]).crops[0].delivered


def test_what_the_template_opens_stands_before_the_turn(one_model_dir):
    processor = load_processor(one_model_dir)
    processor.chat_template = qwen3_vl_chat_template.replace(
        "{{- '<|im_start|>assistant\\n' }}\n{%- endif %}",
        "{{- '<|im_start|>assistant\\n<think>\\n' }}\n{%- endif %}",
    )
    assert written(processor, "so</think>")["content"] == "<think>\nso</think>"


def test_turns_are_told_from_answers():
    assert turns_of([1, 2, 3, 4, 5, 6], [1, 1, 0, 0, 1, 1]) == [[1, 2], [5, 6]]
    assert turns_of([1, 2], [1, 0]) == [[1]]


def test_the_viewer_shows_text_and_calls_in_their_order():
    assert parts_of(f"a{CALL}b\n{CALL}") == [
        ("a", False),
        (CALL[11:-12], True),
        ("b\n", False),
        (CALL[11:-12], True),
    ]
    [message] = conversation('[{"role": "assistant", "content": "a<tool_call>b</tool_call>c"}]')
    assert message["parts"] == [{"text": "a"}, {"call": "b"}, {"text": "c"}]


@pytest.mark.parametrize("token", tiny.SPECIALS)
def test_a_special_token_in_a_message_becomes_words(processor, token):
    plain = processor.apply_chat_template([{"role": "user", "content": "word"}], tokenize=False)
    messages = [{"role": "user", "content": [{"type": "text", "text": f"a {token}{token} b"}]}]
    ids = processor.tokenizer(processor.apply_chat_template(messages, tokenize=False))["input_ids"]
    number = processor.tokenizer.convert_tokens_to_ids(token)
    assert ids.count(number) == processor.tokenizer(plain)["input_ids"].count(number)
    assert f"a < {token[1:]}< {token[1:]} b" in processor.tokenizer.decode(ids)


def test_half_a_surrogate_pair_is_a_question_mark():
    assert escape_special_tokens([{"name": "a\ud800b", "n": 1}], ()) == [{"name": "a?b", "n": 1}]
