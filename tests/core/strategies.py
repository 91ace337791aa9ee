"""Shared Hypothesis strategies: boxes, nearly valid completions, nasty numbers."""

import json

import numpy as np
from hypothesis import strategies as st

IMAGE = (40, 30)
"""Width and height of the picture that the integer boxes live in."""


@st.composite
def int_boxes(draw, *, empty=True, width=IMAGE[0], height=IMAGE[1]):
    """Ordered integer boxes inside the image; zero area only if `empty`."""
    step = 0 if empty else 1
    x0 = draw(st.integers(0, width - step))
    y0 = draw(st.integers(0, height - step))
    return [x0, y0, draw(st.integers(x0 + step, width)), draw(st.integers(y0 + step, height))]


@st.composite
def float_boxes(draw):
    """Ordered float boxes with a side of at least 1e-3."""
    x0, y0 = draw(st.floats(-100, 100)), draw(st.floats(-100, 100))
    return [x0, y0, x0 + draw(st.floats(1e-3, 100)), y0 + draw(st.floats(1e-3, 100))]


@st.composite
def nested_boxes(draw):
    """One region: 1 to 4 boxes from inner to outer."""
    boxes = [draw(int_boxes(empty=False))]
    for _ in range(draw(st.integers(0, 3))):
        x0, y0, x1, y1 = boxes[-1]
        boxes.append(
            [
                draw(st.integers(0, x0)),
                draw(st.integers(0, y0)),
                draw(st.integers(x1, IMAGE[0])),
                draw(st.integers(y1, IMAGE[1])),
            ]
        )
    return boxes


NAN, INF = float("nan"), float("inf")
# The last three are boxes: huge, tiny, larger than any image.
BAD_CROPS = [
    None,
    [],
    [1, 2, 3],
    [1, 2, 3, 4, 5],
    [9, 9, 1, 1],
    [5, 5, 5, 9],
    [NAN, 0, 5, 5],
    [0, 0, INF, 5],
    [-INF, 0, 5, 5],
    [-1e308, -1e308, 1e308, 1e308],
    [0.0, 0.0, 1e-200, 1e-200],
    [-500, -500, 500, 500],
]
crops = st.lists(int_boxes(empty=False) | st.sampled_from(BAD_CROPS), max_size=4)

NASTY = [
    "-0",
    "007",
    "1e5",
    "1e999",
    "-1e999",
    "9" * 400,
    "9" * 5000,
    "NaN",
    "Infinity",
    "٣",
    "null",
    "true",
    '"7"',
    "",
]
number = st.integers(-20, 2000).map(str) | st.floats(-5, 2000).map(str) | st.sampled_from(NASTY)
box_text = st.lists(number, min_size=3, max_size=5).map(lambda numbers: f"[{', '.join(numbers)}]")
name = st.sampled_from(["image_zoom_in_tool"] * 4 + ["rotate", "", "IMAGE_ZOOM_IN_TOOL"])
key = st.sampled_from(["bbox_2d"] * 4 + ["bbox", "Bbox_2d"])
call_json = st.builds(
    lambda n, k, b: f'{{"name": {json.dumps(n)}, "arguments": {{"{k}": {b}, "label": "x"}}}}',
    name,
    key,
    box_text,
)
word = st.sampled_from(
    ["", " ", "near", "\n", "\u00a0", "\u2003", "\ud800", "狗", "a < b", "</", "<think", "B"]
)
tag = st.sampled_from(
    [
        "<think>",
        "</think>",
        "<tool_call>",
        "</tool_call>",
        "<answer>",
        "</answer>",
        "<tool_response>",
        "<Answer>",
    ]
)
space = st.sampled_from(["", "", " ", "\n\n", "\u2003", "x"])
think = st.builds(lambda w: f"<think>{w}</think>", word)
call = st.builds(lambda c: f"<tool_call>{c}</tool_call>", call_json | st.just("{") | word)
reply = st.builds(lambda w: f"<answer>{w}</answer>", word)
valid_turn = st.builds(lambda *parts: "".join(parts), space, think, space, call | reply, space)
tag_soup = st.lists(tag | word | call_json | call | reply | think, max_size=9).map("".join)


@st.composite
def mutated(draw, turns=valid_turn):
    """A valid turn with a piece cut out, doubled or put elsewhere."""
    text = draw(turns)
    a = draw(st.integers(0, len(text)))
    b = draw(st.integers(a, min(len(text), a + 12)))
    how = draw(st.sampled_from(["cut", "double", "insert"]))
    if how == "cut":
        return text[:a] + text[b:]
    if how == "double":
        return text[:b] + text[a:]
    return text[:a] + draw(tag) + text[a:]


turn_texts = valid_turn | mutated() | tag_soup

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**400),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["bbox_2d", "x"]), inner, max_size=2)
    ),
    max_leaves=6,
)
arguments = (
    st.builds(lambda b: {"bbox_2d": b}, st.lists(st.integers(0, 9) | json_values, min_size=4, max_size=4))
    | json_values
    | box_text.map(lambda b: f'{{"bbox_2d": {b}}}')
)
entry = st.builds(
    lambda n, a: {"type": "function", "function": {"name": n, "arguments": a}}, name | json_values, arguments
)
blocks = st.lists(
    st.sampled_from(
        [
            {"type": "image"},
            {"type": "image", "image": None},
            {"type": "text", "text": "ok"},
            {},
            "x",
            None,
            3,
        ]
    ),
    max_size=3,
)
content = turn_texts | blocks | st.none() | json_values
message = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["assistant", "assistant", "tool", "user", "system", "", None, 7]),
        "content": content,
    },
    optional={
        "tool_calls": st.lists(entry | json_values, max_size=3) | json_values,
        "reasoning_content": word | json_values,
        "name": json_values,
    },
)
messages = st.lists(message, max_size=6)
completions = turn_texts | messages


@st.composite
def bitmaps(draw, *, empty=True, width=None, height=None):
    """Bitmaps as arrays of bools: boxes united, with holes and single pixels."""
    width = width or draw(st.integers(1, 14))
    height = height or draw(st.integers(1, 12))
    bitmap = np.zeros((height, width), bool)
    for value in draw(st.lists(st.sampled_from([True, True, False]), max_size=5)):
        x0, y0, x1, y1 = draw(int_boxes(width=width, height=height))
        bitmap[y0:y1, x0:x1] = value
    if not empty and not bitmap.any():
        bitmap[draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))] = True
    return bitmap
