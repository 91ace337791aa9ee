"""One tool call in any of the known forms: which tool it names, and with which box."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from lfpc_rewards._json import json_or_none
from lfpc_rewards._packing import Box, four_numbers

TOOL_NAME = "image_zoom_in_tool"
"""The name of the crop tool, as in DeepEyes and the Qwen cookbooks."""

BOX_ARGUMENT = "bbox_2d"
"""The argument of the crop tool that holds the box."""

BoxArgument: TypeAlias = str | tuple[str, str, str, str]
"""The argument that holds the four numbers of a box, or the four arguments that hold one each."""

Tools: TypeAlias = Mapping[str, BoxArgument]
"""The names of the crop tools, each with the argument of its box."""

CROP_TOOL: Tools = {TOOL_NAME: BOX_ARGUMENT}

IMAGE_ARGUMENT = "image"
"""The argument of the crop tool that holds the number of an image, from 1, where there are several."""

Call: TypeAlias = tuple[bool, Box | None, int]
"""Whether it is a call of a crop tool; its box, None unless that is four finite numbers; the number of its
image, 1 if it names none and 0 if what it names is no number of an image."""

NO_CROP: Call = (False, None, 1)

_MOST_IMAGES = 1 << 31  # what a model writes may not fit into an array
_XML_CALL = re.compile(r"\s*<function=([^>\n]+)>(.*)</function>\s*", re.DOTALL)
_XML_ARGUMENT = re.compile(r"<parameter=([^>\n]+)>(.*?)</parameter>", re.DOTALL)
_GLM_CALL = re.compile(r"\s*([^\s<{\[]+)\s*(<arg_key>.*)", re.DOTALL)
_GLM_ARGUMENT = re.compile(r"<arg_key>([^<]+)</arg_key>\s*<arg_value>(.*?)</arg_value>", re.DOTALL)


def tools_of(tool: str | Mapping[str, str | Sequence[str]]) -> Tools:
    """The argument `tool` of `parse_completion`, checked.

    Raises:
        TypeError: A name is no text, or a box is declared as anything but one name or four.
    """
    if isinstance(tool, str):
        return {tool: BOX_ARGUMENT}
    if not isinstance(tool, Mapping) or not tool:
        raise TypeError(f"tool must be a name or a dict of names and their box arguments, got {tool!r}")
    tools: dict[str, BoxArgument] = {}
    for name, argument in tool.items():
        names = [argument] if isinstance(argument, str) else argument
        if not isinstance(name, str) or not isinstance(names, list | tuple) or len(names) not in (1, 4):
            raise TypeError(
                f"tool[{name!r}] must name the argument that holds the box, or the four with x0, y0, x1, "
                f"y1, got {argument!r}"
            )
        if not all(isinstance(each, str) for each in names):
            raise TypeError(f"tool[{name!r}] must name arguments by texts, got {argument!r}")
        tools[name] = names[0] if len(names) == 1 else (names[0], names[1], names[2], names[3])
    return tools


def read_written_call(text: str, tools: Tools) -> Call:
    """The call between ``<tool_call>`` and ``</tool_call>``.

    JSON, the XML of Qwen3-Coder and Qwen3.5, or that of GLM-4.5 and GLM-4.6V.
    """
    for form, argument in ((_XML_CALL, _XML_ARGUMENT), (_GLM_CALL, _GLM_ARGUMENT)):
        written = form.fullmatch(text)
        if written is not None:
            name, inside = written.groups()
            # A value is JSON or else text. Only numbers matter here, so any other text is left out.
            return _read(name, {key: json_or_none(value) for key, value in argument.findall(inside)}, tools)
    return read_call_object(json_or_none(text), tools)


def read_call_entry(entry: Any, tools: Tools) -> Call:
    """An entry of a message's `tool_calls`, nested in "function" or flat."""
    function = entry.get("function") if isinstance(entry, dict | Mapping) else None
    return read_call_object(function if isinstance(function, dict | Mapping) else entry, tools)


def read_call_object(function: Any, tools: Tools) -> Call:
    """A call that is an object with "name" and "arguments"; arguments may be JSON text once more."""
    if not isinstance(function, dict | Mapping):
        return NO_CROP
    arguments = function.get("arguments")
    return _read(
        function.get("name"), json_or_none(arguments) if isinstance(arguments, str) else arguments, tools
    )


def _read(name: Any, arguments: Any, tools: Tools) -> Call:
    declared = tools.get(name) if isinstance(name, str) else None
    if declared is None:
        return NO_CROP
    if not isinstance(arguments, dict | Mapping):
        return True, None, 1
    image = image_number(arguments.get(IMAGE_ARGUMENT, 1))
    if isinstance(declared, str):
        return True, _box(arguments.get(declared)), image
    return True, _box([arguments.get(each) for each in declared]), image


def image_number(value: Any) -> int:
    """The number of an image; 0 for what is none."""
    if isinstance(value, str):  # as for boxes
        value = json_or_none(value)
    is_number = isinstance(value, int) and not isinstance(value, bool) and 1 <= value < _MOST_IMAGES
    return int(value) if is_number else 0


def _box(numbers: Any) -> Box | None:
    if isinstance(numbers, str):  # some chat parsers leave the list as text
        numbers = json_or_none(numbers)
    if not isinstance(numbers, list | tuple):
        return None
    box = four_numbers(numbers)
    return box if all(map(math.isfinite, box)) else None
