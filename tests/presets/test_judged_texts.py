"""What the judges of the DeepEyes family are handed, and the formats, against plain `str` and `re`.

The presets find places in all texts of a batch at once; here is one text at a time, as the originals do it.
"""

import re

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lfpc_rewards import presets
from lfpc_rewards.presets.systems.chain_of_focus import INSTRUCTION
from tests.presets.contract import texts

PIECES = st.sampled_from(
    ["user", "assistant\n", "users", "<tool_call>", "</tool_call>", "</think>", "\\boxed{", "}"]
)
responses = st.lists(st.lists(texts | PIECES | st.just(INSTRUCTION), max_size=5).map("".join), max_size=5)


def judged(score, rows, reply, **options):
    """(what the judge was handed, row by row, None where it was not asked; the parts)."""
    handed = {}

    def judge(questions, answers, golds):
        handed.update(zip(questions, answers, strict=True))
        return [reply] * len(answers)

    names = [str(row) for row in range(len(rows))]
    parts = score(rows, ["gold"] * len(rows), questions=names, judge=judge, **options)
    return [handed.get(name) for name in names], parts


def balanced(text, *names):
    return all(text.count(f"<{name}>") == text.count(f"</{name}>") for name in names)


@given(responses)
def test_deepeyes(rows):
    handed, parts = judged(presets.deepeyes, rows, "1")
    for text, answer, layout in zip(rows, handed, parts.format, strict=True):
        expected = text.split("<answer>")[-1].split("</answer>")[0].strip()
        tail = text.split("</think>")[-1]
        images = text.count("<|vision_start|><|image_pad|>") == text.count("<|image_pad|><|vision_end|>")
        good = balanced(text, "think") and balanced(tail, "answer") and images and len(expected) < 1000
        assert (answer, layout) == (expected, good - 1)


@given(responses)
def test_deepeyes_for_reasoning(rows):
    handed, parts = judged(presets.deepeyes_reasoning, rows, "TRUE")
    for text, answer, layout in zip(rows, handed, parts.format, strict=True):
        tail = text.split("</think>")[-1]
        found = re.search("<answer>(.*?)</answer>", tail, re.DOTALL)
        expected = (found[1].strip() if found else "") or None
        assert answer == expected
        if not (expected and balanced(text, "think") and balanced(tail, "answer")):
            assert layout == -1


class Plain:
    parse = staticmethod(lambda text: [text])
    verify = staticmethod(lambda gold, answer: gold == answer)


@given(responses)
@example(
    [
        "\\boxed{}} \\boxed{1}",
        "\\boxed{1\\boxed{2}",
        "\\boxed{</think>\\boxed{3} 4}",
        "\\boxed{5",
        "\\boxed{}",
    ]
)
def test_deepeyes_for_mathematics(rows):
    handed, parts = judged(presets.deepeyes_math, rows, "TRUE", math=Plain)
    for text, answer, layout in zip(rows, handed, parts.format, strict=True):
        boxes = re.findall(r"\\boxed{([^}]+)}", text.split("</think>")[-1])
        assert answer == (boxes[-1] if boxes else None)
        assert layout == (len(boxes) == 1 and balanced(text, "think")) - 1


def handed_by_verl(text):
    tail = text.split("</think>")[-1].strip()
    if found := re.search("<answer>(.*?)</answer>", tail, re.DOTALL):
        return found[1].strip() or text.strip()
    pattern = r"</tool_response>\s*assistant\s*\n(.*?)$"
    if found := re.search(pattern, tail, re.DOTALL | re.MULTILINE):
        return found[1].strip() or text.strip()
    if "</think>" not in text:
        return text.strip()
    for name in ("tool_call", "tool_response"):
        tail = re.sub(f"<{name}>.*?</{name}>", "", tail, flags=re.DOTALL)
    return re.sub(r"\b(user|assistant)\b", "", tail).strip() or text.strip()


THOUGHT = "<think>so</think>"
CALL = "<tool_call>{}</tool_call>"


@given(responses)
@example(
    [THOUGHT + CALL, f"{THOUGHT} {CALL}\n{CALL} x", f"{THOUGHT}y {CALL} ", f"{THOUGHT}y{CALL}z", THOUGHT]
)
@example(["</tool_response>\nassistant\n red", f"{CALL}user", f"{THOUGHT}{CALL}"])
@example(
    [f"{THOUGHT}{CALL}user", f"{THOUGHT}</tool_response>\nassistant\n red", f"{THOUGHT}<tool_response>{CALL}"]
)
def test_deepeyes_in_verl(rows):
    handed, _ = judged(presets.verl_deepeyes, rows, "CORRECT")
    assert handed == [handed_by_verl(text) for text in rows]


@given(responses)
def test_chain_of_focus(rows):
    handed, parts = judged(presets.chain_of_focus, rows, "1")
    for text, answer, layout in zip(rows, handed, parts.format, strict=True):
        text = text.replace(INSTRUCTION, "")
        found = re.findall("<answer>(.*?)</answer>", text, re.DOTALL)
        assert answer == (found[-1].strip() if found else "")
        both = "<think>" in text and "<answer>" in text
        assert layout == (both and balanced(text, "think", "answer"))


@given(responses)
def test_deepeyes_v2(rows):
    handed, _ = judged(presets.deepeyes_v2, rows, "\\boxed{Yes}")
    for text, answer in zip(rows, handed, strict=True):
        found = re.search("<answer>(.*?)</answer>", text.split("</think>")[-1], re.DOTALL)
        assert answer == (found[1].strip() if found else "None")


ANSWERS = st.sampled_from(
    ["<answer>A</answer>", "<answer>(A)</answer>", "<answer> B</answer>", "</answer>", "x"]
)
TURNS = st.lists(texts | st.lists(ANSWERS, max_size=3).map("".join), max_size=4)


@given(st.lists(TURNS, max_size=4))
def test_the_choice_of_mini_o3_is_in_the_last_turn(rows):
    parts = presets.mini_o3_choice(rows, ["A"] * len(rows))
    for turns, accuracy in zip(rows, parts.accuracy, strict=True):
        found = re.findall("<answer>(.*?)</answer>", turns[-1], re.DOTALL) if turns else []
        said = found[-1] if found else None
        right = said is not None and (said.strip() == "A" or said.startswith(("(A)", "A.")))
        np.testing.assert_equal(accuracy, float(right) if turns else np.nan)


def test_messages_before_texts_are_read_too():
    message = [{"role": "assistant", "content": "<answer>red</answer>"}]
    for rows in ([message, "<answer>red</answer>"], ["<answer>red</answer>", message]):
        assert judged(presets.deepeyes, rows, "1")[0] == ["red", "red"]
    turns = [["<answer>red</answer>"], ("<answer>red</answer>",), "<answer>red</answer>", message]
    for rows in (turns, turns[::-1], turns[:3], turns[:2]):
        assert presets.mini_o3_choice(rows, ["red"] * len(rows)).accuracy.tolist() == [1] * len(rows)


@pytest.mark.parametrize("count", [0, 1, 1000, 3000])
def test_many_tags_and_none(count):
    rows = ["<answer>" * count + "x</answer>", "<" * count + "<answer>y</answer>", ""]
    assert judged(presets.deepeyes, rows, "1")[0] == ["x", "y", ""]
