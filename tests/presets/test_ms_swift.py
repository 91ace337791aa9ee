"""ms-swift's rewards: recorded calls, loopholes, the rules every preset keeps, borders."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfpc_rewards import presets
from lfpc_rewards.presets.systems.ms_swift import SYSTEM
from tests.presets.contract import fools_exact_but_not_strict, keeps_the_contract, texts
from tests.presets.replay import close, recorded


def by_cosine(call):
    return presets.ms_swift_cosine(
        [call["acc"]],
        [call["length"]],
        longest=call["max_len"],
        wrong=(call["min_wrong"], call["max_wrong"]),
        right=(call["min_correct"], call["max_correct"]),
    )[0]


def by_repetition(call):
    options = {"ngram_size": call["n"], "max_penalty": call["max_penalty"]}
    return presets.ms_swift_repetition([call["completion"]], **options)[0]


REPLAY = {
    "format": lambda call: presets.ms_swift_format([call["completion"]])[0],
    "cosine": by_cosine,
    "repetition": by_repetition,
    "soft_overlong": lambda call: presets.ms_swift_overlong(
        [call["length"]], longest=call["max"], buffer=call["cache"]
    )[0],
}


@pytest.mark.parametrize("row", recorded("ms_swift_builtin"))
def test_exact_gives_what_ms_swift_gave(row):
    assert close(REPLAY[row["function"]](row["input"]), row["expected"])


def test_tricks_fool_exact_and_not_strict():
    several = "<think>a</think><answer>4</answer> or else <answer>5</answer>"
    fools_exact_but_not_strict(
        SYSTEM,
        {
            "format around anything": lambda mode: presets.ms_swift_format([several, "4"], mode=mode),
            "longer than the longest": lambda mode: presets.ms_swift_cosine(
                [1, 1], [200, 90], longest=100, mode=mode
            ),
        },
    )


@pytest.mark.parametrize("mode", ["exact", "strict"])
@given(rows=st.lists(texts, max_size=6))
def test_any_text_gets_a_score_of_its_own(mode, rows):
    keeps_the_contract(lambda said: presets.ms_swift_format(said, mode=mode), rows)
    keeps_the_contract(presets.ms_swift_repetition, rows)


@given(st.lists(st.lists(st.sampled_from(["a", "A", "b", " ", "\n", "棕 "]), max_size=20).map(" ".join)))
def test_repetition_counts_as_a_set_does(rows):
    expected = []
    for text in rows:
        words = text.lower().split()
        pairs = list(pairwise(words))
        expected.append(len(set(pairs)) / len(pairs) - 1 if pairs else 0.0)
    assert close(presets.ms_swift_repetition(rows, ngram_size=2).tolist(), expected)


def test_words_that_look_alike_to_the_hash_are_different_words():
    assert ord("b") * 33 + ord("@") == ord("a") * 33 + ord("a")
    assert presets.ms_swift_repetition(["b@ aa B@"], ngram_size=1).tolist() == [pytest.approx(-1 / 3)]


WELL_FORMED = "<think>so</think><answer>4</answer>"
LOOKED = [
    {
        "role": "assistant",
        "content": "<think>near near near near</think>",
        "tool_calls": [{"function": {"name": "zoom"}}],
    },
    {"role": "tool", "content": [{"type": "image"}]},
]


@pytest.mark.parametrize("before", [[], LOOKED])
def test_of_messages_the_content_of_the_last_is_read(before):
    repeats = "<think>a b c a b c</think>"
    for text in (WELL_FORMED, f"{WELL_FORMED}!", repeats):
        for content in (text, [{"type": "text", "text": text}]):
            messages = [[*before, {"role": "assistant", "content": content}]]
            assert presets.ms_swift_format(messages) == presets.ms_swift_format([text])
            assert presets.ms_swift_repetition(messages) == presets.ms_swift_repetition([text])
    assert presets.ms_swift_format([[{"role": "assistant", "content": WELL_FORMED}], []]).tolist() == [
        1.0,
        0.0,
    ]
    assert presets.ms_swift_repetition([repeats], ngram_size=1)[0] < 0


def test_errors_of_the_caller_are_named():
    for buffer in (0, 100):
        with pytest.raises(ValueError, match="buffer must be between 0 and longest"):
            presets.ms_swift_overlong([1], longest=100, buffer=buffer)
    with pytest.raises(ValueError, match="lengths must have one entry per completion"):
        presets.ms_swift_cosine([1, 1], [1], longest=100)
