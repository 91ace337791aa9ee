"""The scripted strategies of benchmarks/gaming.py and what they are paid, worked out by hand for one case."""

import pytest

from benchmarks.gaming import CHARGE, OPTIONS, STRATEGIES, Case, grid, table, terms_of, total

CASE = Case("KY", "CP", [(40.0, 40.0, 60.0, 60.0), (30.0, 30.0, 70.0, 70.0)], (100, 100))


def paid(name, **options):
    [strategy] = [one for one in STRATEGIES if one.name == name]
    [found] = total(terms_of(strategy, [CASE]), **options).tolist()
    return found


def test_an_exact_look_has_everything_under_every_option():
    for options in OPTIONS.values():
        assert paid("looks at the sign, right", **options) == pytest.approx(3.0)


def test_the_published_total_is_the_cores_own():
    for strategy in STRATEGIES:
        terms = terms_of(strategy, [CASE])
        assert total(terms).tolist() == pytest.approx(terms.published.tolist())


def test_what_each_option_takes_away():
    # Everything: covers, IoU .16, corners off by .3 of each side.
    assert paid("a crop of everything, right") == pytest.approx(2.0 + 0.5 * 0.16 + 0.5 * 0.7)
    # A tag in the first turn is malformed (-0.2); the order takes bonus and grounding.
    early = "answers, then crops the sign, answers again, right"
    assert paid(early) == pytest.approx(2.8)
    assert paid(early, order=True) == pytest.approx(0.6)
    assert paid("looks at the sign, misreads it") == pytest.approx(1.0)
    assert paid("looks at the sign, misreads it", gate=True) == 0.0
    both = "looks at twice the sign, then at the sign, right"
    assert paid(both, charge=CHARGE) == pytest.approx(3.0 - CHARGE)
    corner = "knows the answer, crops a far corner, right"
    assert paid(corner) - paid(corner, cover=True) == pytest.approx(1.2)


def test_a_charge_never_takes_more_than_the_crops_brought():
    assert paid("a grid of 16 crops, wrong", charge=1.0) == pytest.approx(0.0)
    assert paid("a grid of 16 crops, right", charge=1.0) == pytest.approx(0.8)


def test_a_grid_tiles_the_picture():
    boxes = grid(CASE)
    assert len(boxes) == 16
    assert sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in boxes) == pytest.approx(100 * 100)
    assert boxes[0] == (0, 0, 25, 25)
    assert boxes[-1] == (75, 75, 100, 100)


def test_the_table_has_a_row_for_every_strategy():
    rows = table([CASE])
    assert len(rows) == len(STRATEGIES) + 3  # head, rule, blank
    assert rows[2].startswith("| **looks at the sign, right** | 3.00 | 3.00 |")
