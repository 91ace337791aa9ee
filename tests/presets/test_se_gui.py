"""SE-GUI: recorded calls, loopholes, the rules every preset keeps, borders."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfpc_rewards import presets
from lfpc_rewards.presets.systems.se_gui import SYSTEM
from tests.presets.contract import fools_exact_but_not_strict, keeps_the_contract, texts
from tests.presets.replay import close, number, recorded

GOLD = [100, 100, 200, 200]


def call(point, name="computer_use"):
    inside = json.dumps({"name": name, "arguments": {"action": "left_click", "coordinate": point}})
    return f"<tool_call>\n{inside}\n</tool_call>"


def score(text, mode="exact", gold=GOLD, size=(1000, 800)):
    return presets.se_gui([text], [gold], image_sizes=size, mode=mode)


def by_point(given):
    *gold, width, height = given["solution"]
    return score(given["content"], gold=gold, size=(width, height)).point


REPLAY = {"point_reward": by_point, "format_reward_rec": lambda given: score(given["content"]).format}


@pytest.mark.parametrize("row", recorded("se_gui"))
def test_exact_gives_what_se_gui_gave(row):
    assert close(REPLAY[row["function"]](row["input"])[0], number(row["expected"]))


def test_tricks_fool_exact_and_not_strict():
    def total(mode, text):
        return score(text, mode).total[0]

    def two(content):
        return [{"role": "assistant", "content": content}, {"role": "assistant", "content": "done"}]

    fools_exact_but_not_strict(
        SYSTEM,
        {
            "anywhere near": lambda mode: (total(mode, call([300, 300])), total(mode, call([900, 700]))),
            "several calls": lambda mode: (
                total(mode, call([150, 150]) + call([900, 700])),
                total(mode, call([900, 700])),
            ),
            "format around anything": lambda mode: (
                total(mode, "<tool_call>{[1, 2]}</tool_call>"),
                total(mode, "<tool_call></tool_call>"),
            ),
            "yes is a number": lambda mode: (
                total(mode, call([True, False])),
                total(mode, call([None, None])),
            ),
            "first message": lambda mode: (total(mode, two(call([150, 150]))), total(mode, two("so"))),
        },
    )


@pytest.mark.parametrize("mode", ["exact", "strict"])
@given(rows=st.lists(texts, max_size=6))
def test_any_text_gets_a_score_of_its_own(mode, rows):
    keeps_the_contract(
        lambda said: presets.se_gui(said, [GOLD] * len(said), image_sizes=(1000, 800), mode=mode), rows
    )


@pytest.mark.parametrize(
    ("point", "expected"),
    [
        ([150, 150], 2),
        ([200.5, 150], 1 - ((50.5 / 1000) ** 2) / (0.85**2 + (650 / 800) ** 2)),
        ([10**400, 150], 0),
        ([5000, 150], 0),  # a distance beyond 1 pays nothing
        (["150", "150"], 0),
        ([150], 0),
    ],
)
def test_a_point_pays_inside_and_near(point, expected):
    assert close(score(call(point)).point[0], expected)


def test_braces_that_close_behind_the_call_are_no_format():
    text = "<tool_call>{[1, 2]</tool_call>}"
    assert (score(text).format, score(text + "</tool_call>").format) == (0, 1)


@pytest.mark.parametrize("point", [[150, 150], [150.5, 20.25], [0, 0]])
def test_a_call_with_an_escape_is_the_same_call(point):
    plain = call(point)
    odd = plain.replace("coordinate", "coordin\\u0061te")
    assert score(odd).point == score(plain).point
    assert score(odd, "strict").total == score(plain, "strict").total


@pytest.mark.parametrize(
    ("gold", "size", "error"),
    [
        ([1, 2, 3, float("nan")], (9, 9), r"answers\[0\] must be four finite numbers"),
        (GOLD, (0, 9), "image_sizes must be a positive finite"),
    ],
)
def test_mistakes_of_the_caller_are_named(gold, size, error):
    with pytest.raises(ValueError, match=error):
        score("x", gold=gold, size=size)
