"""The rule that decides the miniature's claims."""

import math

import pytest

from benchmarks.miniature.jobs import FULL, HIGH, LOW, TINY, arms
from benchmarks.miniature.plan import evaluation_name, plan
from benchmarks.miniature.verdicts import EXPERIMENTS, FAILED, HELD, NOISY, Figure, decide, interval


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
        ([-0.015, -0.02, -0.025], "not lower", 0.02, FAILED),
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


@pytest.mark.parametrize("count", range(2, 11))
def test_the_interval_is_that_of_scipy(count):
    stats = pytest.importorskip("scipy.stats")
    values = [0.1 * math.sin(i) for i in range(count)]
    found = interval(values)
    mean, error = sum(values) / count, stats.sem(values)
    low, high = stats.t.interval(0.95, count - 1, loc=mean, scale=error)
    assert (found.mean, found.low, found.high) == pytest.approx((mean, low, high), abs=1e-4)


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
    assert claim.verdict([seed, seed]) == NOISY


def test_every_claim_is_about_an_evaluation_of_the_plan(tmp_path):
    planned = {job.name for job in plan(tmp_path, [0], TINY, "cpu")}
    for claims in EXPERIMENTS.values():
        for claim in claims:
            for figure in (claim.first, claim.second):
                assert evaluation_name(figure.model, figure.data, figure.tokens) in planned


def test_arms_that_are_compared_differ_in_what_the_claim_is_about_alone():
    of = arms(FULL)
    assert of["gap"].start == of["no-gap"].start
    assert (of["gap"].steps, of["gap"].reward) == (of["no-gap"].steps, of["no-gap"].reward)
    for name in ("control", "no-overlap", "no-iou", "no-l1"):
        assert (of[name].start, of[name].rows, of[name].steps) == ("gap", "stage2", of["stage2"].steps)
    assert of["mixed"].steps == of["gap"].steps + of["stage2"].steps
    assert of["mixed"].reward == of["stage2"].reward
    assert HIGH > LOW
