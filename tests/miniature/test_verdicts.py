"""The rule that decides the miniature's claims."""

import math

import pytest

from benchmarks.miniature.jobs import FULL, HIGH, LOW, TINY, arms
from benchmarks.miniature.plan import evaluation_name, plan
from benchmarks.miniature.verdicts import (
    EXPERIMENTS,
    FAILED,
    FAMILY,
    HELD,
    LEFT_OUT,
    NOISY,
    Figure,
    decide,
    decide_family,
    decisions,
    holm,
    interval,
    p_value,
)


@pytest.mark.parametrize(
    ("differences", "direction", "margin", "verdict"),
    [
        # Clear of 0 in the predicted direction, however small.
        ([0.10, 0.11, 0.12], "higher", 0.02, HELD),
        ([0.010, 0.011, 0.012], "higher", 0.02, HELD),
        ([-0.10, -0.11, -0.12], "lower", 0.02, HELD),
        # Clear of 0 in the other direction.
        ([-0.10, -0.11, -0.12], "higher", 0.02, FAILED),
        ([0.10, 0.11, 0.12], "lower", 0.02, FAILED),
        # Surely next to nothing.
        ([0.001, -0.001, 0.0], "higher", 0.02, FAILED),
        ([0.001, -0.001, 0.0], "lower", 0.02, FAILED),
        # The same sign three times is not enough with such a spread.
        ([0.02, 0.10, 0.30], "higher", 0.02, NOISY),
        ([-0.02, -0.10, -0.30], "lower", 0.02, NOISY),
        ([0.10, -0.10, 0.0], "higher", 0.02, NOISY),
        # Not lower: a loss within the margin is none.
        ([0.0, -0.001, -0.002], "not lower", 0.02, HELD),
        ([0.10, 0.11, 0.12], "not lower", 0.02, HELD),
        ([-0.10, -0.11, -0.12], "not lower", 0.02, FAILED),
        ([-0.10, 0.10, 0.0], "not lower", 0.02, NOISY),
        # A loss as large as the margin is neither within nor beyond it.
        ([-0.015, -0.02, -0.025], "not lower", 0.02, NOISY),
        # One seed has no spread.
        ([0.5], "higher", 0.02, NOISY),
        ([0.5], "not lower", 0.02, NOISY),
        # Seeds that agree to the last digit.
        ([0.1, 0.1, 0.1], "higher", 0.02, HELD),
        ([0.0, 0.0, 0.0], "higher", 0.02, FAILED),
    ],
)
def test_the_rule(differences, direction, margin, verdict):
    assert decide(differences, direction, margin) == verdict


def test_p_values_are_those_of_scipy_against_any_null():
    stats = pytest.importorskip("scipy.stats")
    values = [0.1 * math.sin(i) for i in range(10)]
    assert p_value(values, -0.02) == pytest.approx(stats.ttest_1samp(values, -0.02).pvalue)
    found = interval(values, 0.01)
    low, high = stats.t.interval(0.99, 9, loc=sum(values) / 10, scale=stats.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high))


@pytest.mark.parametrize(
    ("p_values", "adjusted"),
    [
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),
        ([0.03, 0.02], [0.04, 0.04]),
        ([0.9, 0.6, 0.001], [1.0, 1.0, 0.003]),
        ([0.2], [0.2]),
    ],
)
def test_holm_by_hand(p_values, adjusted):
    assert holm(p_values) == pytest.approx(adjusted)


def test_what_would_hold_alone_may_not_hold_in_a_family():
    weak = ([0.10, 0.14, 0.12, 0.02, 0.05], "higher", 0.02)
    empty = ([0.1, -0.1, 0.05, -0.04, 0.0], "higher", 0.02)
    assert p_value(weak[0]) < 0.05
    assert decide_family([weak])[0].verdict == HELD
    assert decide_family([weak, *[empty] * 9])[0].verdict == NOISY
    # Nor is a difference nothing where the interval for all of them is too wide for that.
    small = ([0.008, -0.008, 0.008, -0.008], "higher", 0.02)
    assert decide_family([small])[0].verdict == FAILED
    assert decide_family([small, *[empty] * 9])[0].verdict == NOISY


def test_no_difference_at_all_is_refused():
    with pytest.raises(ValueError, match="at least one value"):
        interval([])


def test_what_is_lost_is_accuracy_minus_accuracy_with_other_crops():
    seed = {evaluation_name("gap", "test", LOW): {"accuracy": 0.9, "accuracy_noise_crop": 0.25}}
    assert Figure("gap", "lost_noise_crop").of(seed) == pytest.approx(0.65)


def test_a_claim_about_what_was_never_measured_is_not_decided():
    claim = EXPERIMENTS["Stage 2: the grounding reward against more of stage 1"][0]
    seed = {
        evaluation_name("stage2", "test", LOW): {"iou": None},
        evaluation_name("control", "test", LOW): {"iou": 0.5},
    }
    assert decisions([claim], [seed, seed])[claim].verdict == NOISY


def test_every_claim_is_about_an_evaluation_of_the_plan_or_left_out(tmp_path):
    planned = {job.name for job in plan(tmp_path, [0], TINY, "cpu")}
    for claim in FAMILY:
        for figure in (claim.first, claim.second):
            for sampled in (False, True):
                name = evaluation_name(figure.model, figure.data, figure.tokens, sampled=sampled)
                assert name in planned
    assert not any(set(claim.models) <= planned for claim in LEFT_OUT)
    every = [claim.text for claims in EXPERIMENTS.values() for claim in claims]
    assert len(set(every)) == len(every) == len(FAMILY) + len(LEFT_OUT)


def test_arms_that_are_compared_differ_in_what_the_claim_is_about_alone():
    of = arms(FULL)
    assert of["gap"].start == of["no-gap"].start
    assert (of["gap"].steps, of["gap"].reward) == (of["no-gap"].steps, of["no-gap"].reward)
    for name in ("control", "no-overlap", "no-iou", "no-l1"):
        assert (of[name].start, of[name].rows, of[name].steps) == ("gap", "stage2", of["stage2"].steps)
    assert of["mixed"].steps == of["gap"].steps + of["stage2"].steps
    assert of["mixed"].reward == of["stage2"].reward
    assert HIGH > LOW
