"""How many seeds a claim needs."""

import json
import re

import numpy as np
import pytest

from benchmarks.miniature import power
from benchmarks.miniature.plan import RUN
from benchmarks.miniature.verdicts import FAMILY, LEFT_OUT, decide_family


def test_the_power_is_what_a_simulation_of_the_rule_finds():
    rng = np.random.default_rng(0)
    draws = rng.normal(0.1, 0.08, size=(600, 8))
    # The other claims of the family are empty, so Holm's first step decides.
    empty = ([1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0], "higher", 0.0)
    held = [
        decide_family([(row.tolist(), "higher", 0.0), *[empty] * 4])[0].verdict == "held"
        for row in draws[:600]
    ]
    calculated = power.power(0.1, 0.08, 8, 5)
    assert 0.3 < calculated < 0.9
    assert np.mean(held) == pytest.approx(calculated, abs=4 * np.sqrt(0.25 / 600))


def test_published_power_of_a_paired_t_test():
    # Cohen 1988, as G*Power 3.1 gives it: d = 0.5, two-sided 5 %, 34 pairs for a power of 0.80.
    assert power.needed_seeds(0.5, 1.0, 1) == 34
    assert power.power(0.5, 1.0, 34, 1) == pytest.approx(0.8078, abs=1e-3)


def test_more_seeds_find_more_and_more_claims_need_more():
    assert power.power(0.1, 0.1, 12, 1) > power.power(0.1, 0.1, 8, 1) > power.power(0.1, 0.1, 8, 10)
    assert power.needed_seeds(0.001, 1.0, 1) is None
    with pytest.raises(ValueError, match="seeds must be at least 2, got 1"):
        power.power(0.1, 0.1, 1, 1)


def test_every_claim_has_differences_of_the_first_run():
    pilot = json.loads(power.PILOT.read_text(encoding="utf-8"))
    for claim in (*FAMILY, *LEFT_OUT):
        assert len(power.differences_of(claim)) == len(pilot["seeds"])
        assert power.spread(claim) > 0
        assert power.predicted(claim)[0] > 0
    used = {claim.text for claim in (*FAMILY, *LEFT_OUT)}
    assert set(pilot["differences"]) <= used


def test_every_arm_is_needed_by_a_claim_in_reach_and_none_in_reach_is_left_out():
    needed = {model for claim in FAMILY if power.within_reach(claim) for model in claim.models}
    assert needed == set(RUN)
    assert not any(power.within_reach(claim) for claim in LEFT_OUT)


def test_the_committed_tables_are_those_of_the_script(tmp_path):
    committed = (power.HERE / "claims.md").read_text(encoding="utf-8")
    page = tmp_path / "claims.md"
    page.write_text(re.sub(r"\| [0-9.]+ \|", "| 0 |", committed), encoding="utf-8")
    power.write(page)
    assert page.read_text(encoding="utf-8") == committed
    page.write_text("nothing", encoding="utf-8")
    with pytest.raises(ValueError, match="must have the marks of the table 'family' once, found 0"):
        power.write(page)
