"""A judge decides only what the rules do not, and its failures cost no rollout its reward."""

import asyncio
import dataclasses
import math
import threading
from pathlib import Path

import pytest

from lfpc_rewards import parse_completions
from lfpc_trl.errors import UserError
from lfpc_trl.own_code import OwnCode
from lfpc_trl.rollouts.judge import Case, Judge, Verdict
from lfpc_trl.rollouts.own_rewards import PresetReward


def judge_of(function, **options):
    return Judge(OwnCode("mine:ask", function, Path(__file__), ""), **options)


def said(*answers):
    return parse_completions([f"<think>x</think><answer>{answer}</answer>" for answer in answers])


@pytest.fixture
def red(row):
    return dataclasses.replace(row, question="What colour?", answer=("red",), choices=None)


def test_it_is_asked_only_where_the_rules_leave_an_answer_open(red):
    asked = []

    async def ask(question, answer, accepted):
        asked.append((question, answer, accepted))
        return {"crimson": "yes", "scarlet": "no"}.get(answer, "unknown")

    rollouts = said("Red.", "", "crimson", "scarlet", "reddish", "crimson")
    scores, verdicts = judge_of(ask).accuracy(rollouts, [red] * 6)
    assert scores[:4] == [1.0, 0.0, 1.0, 0.0]
    assert math.isnan(scores[4])
    assert scores[5] == 1.0
    assert [verdict and verdict.said for verdict in verdicts] == [None, None, "yes", "no", "unknown", "yes"]
    assert sorted(asked) == [("What colour?", word, ["red"]) for word in ("crimson", "reddish", "scarlet")]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("yes", Verdict("yes")),
        (True, Verdict("yes")),
        (False, Verdict("no")),
        (None, Verdict("unknown")),
        ({"verdict": "no", "cost": 0.25}, Verdict("no", 0.25)),
        ({"verdict": None}, Verdict("unknown")),
    ],
)
def test_a_verdict_is_a_word_a_truth_or_both_with_a_cost(red, answer, expected):
    _, [verdict] = judge_of(lambda *_: answer).accuracy(said("crimson"), [red])
    assert verdict == expected


@pytest.mark.parametrize(
    "answer", ["maybe", 1, 0.0, [], {"said": "yes", "verdict": 3}, {"verdict": "yes", "cost": "much"}]
)
def test_anything_else_is_an_error_that_names_the_judge(red, answer):
    with pytest.raises(
        UserError, match=r'judge mine:ask: must return "yes", "no" or "unknown", .*got .* for \'crim'
    ):
        judge_of(lambda *_: answer).accuracy(said("crimson"), [red])


def test_no_more_than_so_many_cases_at_a_time(red):
    """Each call waits until two are under way; with one at a time that would be for ever."""
    together, most, under_way = threading.Barrier(2, timeout=20), [0], [0]

    def ask(question, answer, accepted):
        under_way[0] += 1
        most[0] = max(most[0], under_way[0])
        together.wait()
        under_way[0] -= 1
        return True

    words = [f"crimson{index}" for index in range(6)]
    scores, _ = judge_of(ask, concurrency=2).accuracy(said(*words), [red] * 6)
    assert scores == [1.0] * 6
    assert most == [2]


def test_an_asynchronous_judge_keeps_its_loop(red):
    """Clients of servers keep connections, which belong to the loop in which they were made."""
    loops = []

    async def ask(question, answer, accepted):
        loops.append(asyncio.get_running_loop())
        return True

    judge = judge_of(ask)
    judge.accuracy(said("crimson"), [red])
    judge.accuracy(said("scarlet"), [red])
    assert loops[0] is loops[1]


def test_what_was_said_is_not_asked_again_and_costs_nothing_again(red):
    kept = []
    first = judge_of(lambda *_: {"verdict": "yes", "cost": 2.0}, remember=lambda *each: kept.append(each))
    _, verdicts = first.accuracy(said("crimson", "crimson"), [red] * 2)
    assert [each.cost for each in verdicts] == [2.0, 0.0]
    assert kept == [(Case("What colour?", "crimson", ("red",)), Verdict("yes", 2.0))]
    second = judge_of(lambda *_: pytest.fail("asked again"), known=dict(kept))
    assert second.accuracy(said("crimson"), [red]) == ([1.0], [Verdict("yes", 0.0)])


def test_a_judge_that_fails_now_and_then_does_not_know_and_is_asked_again(red):
    answers = iter([True, ConnectionError("no route"), True])

    def ask(*_):
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    judge = judge_of(ask, concurrency=1)
    assert judge.accuracy(said("crimson"), [red])[0] == [1.0]
    [score], [verdict] = judge.accuracy(said("scarlet"), [red])
    assert math.isnan(score)
    assert verdict.said == "unknown"
    assert judge.accuracy(said("scarlet"), [red])[0] == [1.0]


def test_a_judge_that_has_never_answered_ends_the_run(red):
    def ask(*_):
        raise ConnectionError("no route")

    words = (
        r"judge mine:ask: failed and has never answered; .*'crimson' is 'red' \(ConnectionError: no route\)"
    )
    with pytest.raises(UserError, match=words):
        judge_of(ask).accuracy(said("crimson"), [red])


def test_a_preset_asks_it_too(red):
    completions = [
        [{"role": "assistant", "content": f"<think>x</think><answer>{word}</answer>"}]
        for word in ("crimson", "scarlet")
    ]
    judge = judge_of(lambda *asked: asked[1] == "crimson" or None)
    assert PresetReward("deepeyes", judge)(completions=completions, row=[red] * 2) == [0.8, None]
