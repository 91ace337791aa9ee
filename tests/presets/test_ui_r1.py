"""UI-R1: recorded calls, loopholes, the rules every preset keeps, borders."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfpc_rewards import presets
from lfpc_rewards.presets.systems.ui_r1 import SYSTEM
from tests.presets.contract import fools_exact_but_not_strict, keeps_the_contract, texts
from tests.presets.replay import close, number, recorded

GOLD = "<answer>[{'action': 'click' ,'coordinate': [100, 100, 200, 200] }]</answer>"
CORNER = "<answer>[{'action': 'click', 'coordinate': [0, 0, 20, 20]}]</answer>"
SCROLL = "<answer>[{'action': 'scroll', 'coordinate': [0,0,0,0]}]</answer>"
HIT = "{'action': 'click', 'coordinate': [150, 150]}"
MISS = "{'action': 'click', 'coordinate': [900, 900]}"


def answer(*items):
    return f"<think>so</think><answer>[{', '.join(items)}]</answer>"


def score(text, mode="exact", gold=GOLD, scale=(1, 1)):
    return presets.ui_r1([text], [gold], scales=scale, mode=mode)


REPLAY = {
    "accuracy_reward_coord": lambda call: (
        score(call["content"], gold=call["solution"], scale=call["scale"]).coord
    ),
    "accuracy_reward_action": lambda call: score(call["content"], gold=call["solution"]).action,
    "format_reward": lambda call: score(call["content"]).format,
}


@pytest.mark.parametrize("row", recorded("ui_r1"))
def test_exact_gives_what_ui_r1_gave(row):
    assert close(REPLAY[row["function"]](row["input"])[0], number(row["expected"]))


def test_tricks_fool_exact_and_not_strict():
    def total(mode, text, gold=GOLD):
        return score(text, mode, gold).total[0]

    def two(text):
        return [{"role": "assistant", "content": text}, {"role": "assistant", "content": answer(MISS)}]

    fools_exact_but_not_strict(
        SYSTEM,
        {
            "several actions": lambda mode: (total(mode, answer(HIT, MISS)), total(mode, answer(MISS))),
            "no point is the corner": lambda mode: (
                total(mode, answer("{'action': 'click'}"), CORNER),
                total(mode, answer(MISS), CORNER),
            ),
            "answer in the thinking": lambda mode: (
                total(mode, f"<think><answer>[{HIT}]</answer></think><answer>no</answer>"),
                total(mode, "<think></think><answer>no</answer>"),
            ),
            "first message": lambda mode: (total(mode, two(answer(HIT))), total(mode, two(answer(MISS)))),
        },
    )


@pytest.mark.parametrize("mode", ["exact", "strict"])
@given(rows=st.lists(texts, max_size=6))
def test_any_text_gets_a_score_of_its_own(mode, rows):
    keeps_the_contract(lambda said: presets.ui_r1(said, [GOLD] * len(said), scales=(1, 2), mode=mode), rows)


@pytest.mark.parametrize(
    ("item", "gold", "scale", "coord"),
    [
        (HIT, GOLD, (1, 1), 1),
        (HIT, GOLD, (1.34, 1), 0),  # 201
        (HIT, GOLD, (1.339, 1), 1),  # 200.85 is cut to 200
        ("{'action': click, 'coordinate': [150, 150]}", GOLD, (1, 1), 1),
        ("{'action': 'Click', 'coordinate': [150, 150]}", GOLD, (1, 1), 0),
        ('{"action": "click", "coordinate": [150, 150]}', GOLD, (1, 1), 0),
        ("{'action': 'scroll'}", SCROLL, (1, 1), 1),
        (HIT.replace("150]", f"{'9' * 400}]"), GOLD, (1, 1), 0),
        ("{'action': 'click'}", CORNER, (1, 1), 1),
        (f"{{'action': 'click', 'coordinate': [0, {'9' * 310}]}}", CORNER, (1, 1), 0),
    ],
)
def test_a_click_is_scaled_and_cut(item, gold, scale, coord):
    assert score(answer(item), gold=gold, scale=scale).coord[0] == coord


@pytest.mark.parametrize(
    "gold", ["click", "<answer>[{'action': 'click', 'coordinate': [1.5, 2, 3, 4]}]</answer>"]
)
def test_a_bad_gold_text_is_named(gold):
    with pytest.raises(ValueError, match=r"answers\[0\] must name an action, and a click its box"):
        score("x", gold=gold)
