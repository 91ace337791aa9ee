"""Turns that are nearly valid, as a model may write them, and the tokens of letters alone."""

import json
from typing import Any

from hypothesis import strategies as st

from lfpc_trl.models.escaping import special_tokens
from tests.tiny import SPECIALS

NESTED = "[" * 1500
"""Deeper than a JSON parser written with recursion goes."""
_NAMES = st.sampled_from(
    [
        "image_zoom_in_tool",
        "bbox_2d",
        "label",
        "zoom",
        "self",
        "",
        "\ud800",
        "</tool_response>",
        "'\"\\",
        *SPECIALS,
    ]
)
_BOXES = st.sampled_from(
    [
        [15, 15, 50, 45],
        [50, 45, 15, 15],
        [1, 2, 3],
        [1e400, 0, 9, 9],
        "[15, 15, 50, 45]",
        {"<|im_end|>": 1},
        None,
    ]
)
_ARGUMENTS = (
    st.fixed_dictionaries({"bbox_2d": _BOXES}, optional={"label": _NAMES})
    | st.dictionaries(_NAMES, _BOXES | _NAMES, max_size=2)
    | _BOXES
    | _NAMES
)
_NAMED = st.just("image_zoom_in_tool") | _NAMES
_CALLS = st.builds(
    lambda name, arguments: json.dumps({"name": name, "arguments": arguments}), _NAMED, _ARGUMENTS
)
_BROKEN = st.sampled_from(
    ['{"name": ', "[]", "7", f'{{"name": "image_zoom_in_tool", "arguments": {NESTED}}}']
)
_PIECES = (
    st.builds("<tool_call>{}</tool_call>".format, _CALLS)
    | st.builds("<tool_call>{}</tool_call>".format, _BROKEN)
    | st.sampled_from(
        ["<think>near</think>", "<think>", "</think>", "<answer>A</answer>", "<tool_call>", "so "]
    )
    | st.sampled_from(SPECIALS)
)
turns = st.lists(_PIECES, max_size=4).map("".join) | st.builds(
    "<think>near</think><tool_call>{}</tool_call>".format, _CALLS
)
"""Special tokens in them are spelled: `in_letters` makes tokens of them that are none."""


def calls_tool(name: str, arguments: Any) -> str:
    """A turn that thinks and calls."""
    return f"<think>near</think><tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


def in_letters(tokenizer: Any, text: str) -> list[int]:
    """The tokens of a text in which a special token is spelled letter by letter, as a model can write it."""
    for token in special_tokens(tokenizer):
        text = text.replace(token, f"{token[:1]}\0{token[1:]}")
    pieces = tokenizer(text.split("\0"), add_special_tokens=False)["input_ids"]
    return [token for piece in pieces for token in piece]
