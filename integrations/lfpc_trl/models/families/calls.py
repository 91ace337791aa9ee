"""The tool call formats of the families, and how calls are parsed.

A response template (transformers' response parsing) decides which calls of a turn are run: those that the
rewards read (`lfpc_rewards`), closed ones after the thinking. One broken call turns the whole turn into text,
so that the i-th tool message always belongs to the i-th call. The rest of the parser's output is not used;
see `rollouts.turns`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_AFTER_THINKING = r"<tool_call>(?!.*</think>)(?=.*</tool_call>)"
_INSIDE = r"(?:(?!</tool_call>).)*"


@dataclass(frozen=True)
class Calls:
    """A tool call format.

    Attributes:
        name: its usual name.
        response_template: parses the calls of a turn.
        vllm_parser: its name in `vllm serve` (`--tool-call-parser`).
    """

    name: str
    response_template: Mapping[str, Any]
    vllm_parser: str


def _template(calls: Mapping[str, Any], *, anchor: str, end: str) -> dict[str, Any]:
    return {
        "defaults": {"role": "assistant"},
        "start_anchor": anchor,
        "fields": {**calls, "content": {"close_pattern": rf"{end}\s*", "content": "text"}},
    }


def _in_tags(name: str, argument: str, *, ends: str) -> dict[str, Any]:
    """The fields for calls with arguments in tags. The tools give the types of values (transformers 5.15).

    Args:
        name: pattern of the start of a call, with a group `name`.
        argument: pattern of an argument, with the groups `key` and `value`.
        ends: pattern of the text between the last argument and </tool_call>.
    """
    whole = rf"\s*{name}(?={_INSIDE}{ends}</tool_call>)"
    unnamed = whole.replace("?P<name>", "?:")
    return {
        "tool_calls": {
            "open_pattern": _AFTER_THINKING + whole,
            "close_pattern": r"</tool_call>\s*",
            "repeats": True,
            "content": "xml-inline",
            "content_args": {"tag_pattern": argument, "value_parser": {"name": "text"}},
            "transform": {"type": "function", "function": {"name": "{name}", "arguments": "{content}"}},
        },
        # Any other call is parsed as an integer, which always fails, since the region holds its own opening
        # tag. The parser then rejects the turn, as it does for broken JSON.
        "broken_calls": {
            "open_pattern": rf"(?={_AFTER_THINKING}(?!{unnamed}))",
            "close_pattern": r"</tool_call>\s*",
            "repeats": True,
            "content": "int",
        },
    }


QWEN_ANCHOR, QWEN_END = "<|im_start|>assistant\n", r"<\|im_end\|>"

JSON = Calls(
    "JSON",
    _template(
        {
            "tool_calls": {
                "open_pattern": _AFTER_THINKING,
                "close_pattern": r"</tool_call>\s*",
                "repeats": True,
                "content": "json",
                "transform": {"type": "function", "function": "{content}"},
            }
        },
        anchor=QWEN_ANCHOR,
        end=QWEN_END,
    ),
    "hermes",
)
"""A JSON object with name and arguments, as in Qwen2.5-VL and Qwen3-VL."""

XML = Calls(
    "XML",
    _template(
        _in_tags(
            r"<function=(?P<name>[^>\n]+)>",
            r"<parameter=(?P<key>[^>\n]+)>(?P<value>.*?)</parameter>",
            ends=r"</function>\s*",
        ),
        anchor=QWEN_ANCHOR,
        end=QWEN_END,
    ),
    "qwen3_coder",
)
"""<function=NAME> with <parameter=NAME> for each argument, as in Qwen3.5."""

GLM_XML = Calls(
    "XML of GLM",
    _template(
        _in_tags(
            r"(?P<name>[^\s<{\[]+)\s*(?=<)",
            r"<arg_key>(?P<key>[^<]+)</arg_key>\s*<arg_value>(?P<value>.*?)</arg_value>",
            ends="",
        ),
        anchor="<|assistant|>\n",
        end=r"(?:<\|user\|>|<\|observation\|>|<\|endoftext\|>)",
    ),
    "glm45",
)
"""The name, then <arg_key> and <arg_value> for each argument, as in GLM-4.6V."""
