import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st
from scipy import stats

from lfpc_trl.evaluate import statistics
from lfpc_trl.evaluate.statistics import (
    LEAST,
    Estimate,
    difference_of,
    excludes_zero,
    group_means,
    mean_of,
)

RNG = np.random.default_rng(5)
SAMPLES = {  # values that look like those of an evaluation
    "right and wrong": (RNG.random(191) < 0.8).astype(float),
    "four orders of 200 questions": RNG.binomial(4, 0.7, 200) / 4,
    "changes": RNG.choice([-1.0, 0.0, 1.0], 800, p=[0.1, 0.7, 0.2]),
    "iou": RNG.beta(2, 3, 150),
    "seconds": RNG.lognormal(1, 0.8, 800),
    "the fewest": RNG.random(LEAST),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_the_interval_is_that_of_scipy(name):
    values = SAMPLES[name]
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=10_000, batch=500, method="percentile", rng=np.random.default_rng(9)
    ).confidence_interval
    found = mean_of(values)
    # Two draws of 10,000 differ in their 2.5 % quantile by about 3 % of the standard error.
    tolerance = 0.15 * values.std() / math.sqrt(len(values))
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(expected.low, abs=tolerance)
    assert found.high == pytest.approx(expected.high, abs=tolerance)


def test_a_paired_difference_is_that_of_scipy():
    first = SAMPLES["seconds"]
    second = first * RNG.normal(1.1, 0.2, len(first))
    expected = stats.bootstrap(
        (first, second),
        lambda one, other, axis: (one - other).mean(axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=10_000,
        batch=500,
        method="percentile",
        rng=np.random.default_rng(9),
    ).confidence_interval
    found = difference_of(first, second)
    tolerance = 0.15 * (first - second).std() / math.sqrt(len(first))
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=tolerance)


TRUTHS = {
    "right and wrong": (0.7, lambda rng, n: (rng.random(n) < 0.7).astype(float)),
    "changes": (0.1, lambda rng, n: rng.choice([-1.0, 0.0, 1.0], n, p=[0.1, 0.7, 0.2])),
    "smooth": (1.0, lambda rng, n: rng.exponential(size=n)),
}


@pytest.mark.parametrize("name", TRUTHS)
def test_19_of_20_intervals_hold_the_truth(name, monkeypatch):
    monkeypatch.setattr(statistics, "RESAMPLES", 400)
    truth, draw = TRUTHS[name]
    rng = np.random.default_rng(11)
    found = [mean_of(draw(rng, 100), seed=number) for number in range(500)]
    missed = np.mean([[each.high < truth, each.low > truth] for each in found], axis=0)
    assert 0.025 < missed.sum() < 0.08
    assert missed.min() > 0.005  # neither side is forgotten


def test_pairing_finds_what_two_means_hide():
    hard = RNG.random(200)
    before, after = hard, hard - 0.05 - 0.02 * RNG.random(200)
    apart = mean_of(before), mean_of(after)
    assert apart[0].low < apart[1].high
    found = difference_of(before, after)
    assert excludes_zero(found.low, found.high)


HAND_MADE = [  # id, values, estimate
    ("nothing", [], Estimate(None, None, None, 0)),
    ("nothing known", [math.nan] * 20, Estimate(None, None, None, 0)),
    ("one", [0.25], Estimate(0.25, None, None, 1)),
    ("too few for an interval", [0.0, 1.0] * 4 + [0.5], Estimate(0.5, None, None, LEAST - 1)),
    ("all alike", [1.0] * 500, Estimate(1.0, None, None, 500)),
    ("unknown ones are not counted", [1.0, math.nan, 0.0], Estimate(0.5, None, None, 2)),
]


@pytest.mark.parametrize(("_", "values", "expected"), HAND_MADE, ids=[case[0] for case in HAND_MADE])
def test_figures_without_an_interval(_, values, expected):
    assert mean_of(values) == expected


EXCLUDES = [
    (0.1, 0.2, True),
    (1e-17, 0.2, False),
    (-0.2, -0.1, True),
    (-0.1, 0.1, False),
    (0.0, 0.1, False),
    (None, None, False),
]


@pytest.mark.parametrize(("low", "high", "expected"), EXCLUDES)
def test_an_interval_that_touches_zero_does_not_exclude_it(low, high, expected):
    assert excludes_zero(low, high) is expected


def test_the_same_seed_gives_the_same_interval():
    values = SAMPLES["iou"]
    assert mean_of(values, seed=3) == mean_of(values, seed=3)
    assert mean_of(values, seed=3) != mean_of(values, seed=4)


@pytest.mark.parametrize(
    "values", [SAMPLES["seconds"], SAMPLES["changes"]], ids=["many values", "few values"]
)
def test_the_parts_in_which_is_drawn_do_not_matter(values, monkeypatch):
    whole = mean_of(values)
    monkeypatch.setattr(statistics, "_CHUNK", 3 * len(values) + 1)  # three resamples at a time
    parts = mean_of(values)
    assert (parts.low, parts.high) == pytest.approx((whole.low, whole.high), abs=0.01 * values.std())


@profile(max_examples=30, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=LEAST, max_size=30), st.floats(-3, 3))
def test_an_interval_lies_within_the_values_and_moves_with_them(values, shift):
    found = mean_of(values)
    if found.low is None:
        assert len(set(values)) == 1
        return
    assert min(values) - 1e-9 <= found.low <= found.high <= max(values) + 1e-9
    moved = mean_of(np.array(values) + shift)
    if moved.low is not None:
        assert moved.value == pytest.approx(found.value + shift, abs=1e-9)


def test_a_difference_counts_the_questions_that_have_both():
    found = difference_of([1.0, math.nan, 1.0, 0.0], [0.0, 0.0, math.nan, 0.0])
    assert (found.value, found.n) == (0.5, 2)


ERRORS = [
    (lambda: mean_of([1.0, math.inf]), "values must be finite or NaN"),
    (lambda: mean_of(np.ones((2, 3))), r"one per question, got shape \(2, 3\)"),
    (lambda: difference_of([1.0], [1.0, 2.0]), "the same questions, got 1 and 2"),
]


@pytest.mark.parametrize(("call", "message"), ERRORS)
def test_what_is_no_list_of_values_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@profile(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.floats(-9, 9) | st.just(math.nan)), max_size=20))
def test_group_means_are_those_of_a_loop(members):
    groups = np.array([group for group, _ in members], dtype=np.int64)
    found = group_means(np.array([value for _, value in members], dtype=float), groups, 5)
    for group in range(5):
        known = [value for each, value in members if each == group and not math.isnan(value)]
        assert found[group] == pytest.approx(sum(known) / len(known) if known else math.nan, nan_ok=True)
