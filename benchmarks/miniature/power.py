"""How many seeds a claim needs: `python -m benchmarks.miniature.power` writes the tables of claims.md.

The spread comes from the first run (`pilot.json`: three seeds, their differences). Three seeds cannot show
that a spread is small, so a claim's is at least the pooled one of all claims about the same metric on the
same data.

The difference to be found is the paper's, where it has one that ours may equal. Else it is the mean of the
first run less one standard error, if that is on the claimed side and above the margin; else the margin. For
"not lower" the truth is taken to be no difference at all, and what is to be found is that it is above minus
the margin.
"""

import functools
import json
import math
import re
import statistics
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from scipy import stats

from benchmarks.miniature.verdicts import FAMILY, LEFT_OUT, LEVEL, Claim

HERE = Path(__file__).parent
PILOT = HERE / "pilot.json"
SEEDS = 10
ENOUGH = 0.8
MOST = 500


def differences_of(claim: Claim) -> list[float]:
    """The differences per seed of the first run, of the claim itself or of the one it is like."""
    return _pilot()[claim.like or claim.text]


@functools.cache
def _pilot() -> dict[str, list[float]]:
    differences: dict[str, list[float]] = json.loads(PILOT.read_text(encoding="utf-8"))["differences"]
    return differences


@functools.cache
def pooled_spreads() -> dict[tuple[str, str, int], float]:
    """Per metric, data and budget the root of the mean variance of the claims that the first run had."""
    variances = defaultdict(list)
    for claim in (*FAMILY, *LEFT_OUT):
        if claim.like is None:
            variances[_group(claim)].append(statistics.variance(differences_of(claim)))
    return {group: math.sqrt(statistics.fmean(found)) for group, found in variances.items()}


def _group(claim: Claim) -> tuple[str, str, int]:
    metric = "lost" if claim.first.metric.startswith("lost_") else claim.first.metric
    return metric, claim.first.data, claim.first.tokens


def spread(claim: Claim) -> float:
    """The standard deviation over seeds that is reckoned with."""
    return max(statistics.stdev(differences_of(claim)), pooled_spreads().get(_group(claim), 0.0))


def predicted(claim: Claim) -> tuple[float, str]:
    """The size of the difference to be found, and where it comes from."""
    if claim.direction == "not lower":
        return claim.margin, "margin"
    if claim.predicted is not None:
        return claim.predicted, "paper"
    found = differences_of(claim)
    if claim.like is not None:
        gain = abs(statistics.fmean(found))
    else:
        gain = statistics.fmean(found) * (1 if claim.direction == "higher" else -1)
    less = gain - statistics.stdev(found) / math.sqrt(len(found))
    return (less, "first run") if less > claim.margin else (claim.margin, "margin")


def power(effect: float, deviation: float, seeds: int, tests: int) -> float:
    """Chance that a paired t test finds `effect` on its side, two-sided at 5 % over `tests`.

    By the noncentral t distribution, at the level of Holm's first and hardest step: a lower bound
    of the power of the whole procedure, whatever the other claims do.

    Args:
        effect: true mean difference.
        deviation: of the differences over seeds.
        seeds: their number, at least 2.
        tests: claims in the family.
    """
    if seeds < 2:
        raise ValueError(f"seeds must be at least 2, got {seeds}")
    critical = stats.t.ppf(1 - LEVEL / tests / 2, seeds - 1)
    return float(stats.nct.sf(critical, seeds - 1, effect / deviation * math.sqrt(seeds)))


def needed_seeds(effect: float, deviation: float, tests: int) -> int | None:
    """The fewest seeds with a power of 80 %; None if 500 are too few."""
    numbers = range(2, MOST + 1)
    place = bisect_left(numbers, ENOUGH, key=lambda seeds: power(effect, deviation, seeds, tests))
    return numbers[place] if place < len(numbers) else None


def power_of(claim: Claim, seeds: int = SEEDS) -> float:
    effect, _ = predicted(claim)
    return power(effect, spread(claim), seeds, len(FAMILY))


def needed_by(claim: Claim) -> int | None:
    effect, _ = predicted(claim)
    return needed_seeds(effect, spread(claim), len(FAMILY))


def within_reach(claim: Claim) -> bool:
    """Whether ten seeds have a power of 80 %."""
    return power_of(claim) >= ENOUGH


def table(claims: Sequence[Claim]) -> list[str]:
    """A row per claim: what is to be found, the spread, the seeds that this needs, the power of ten."""
    lines = ["| claim | to be found | from | spread | seeds needed | power of ten |"]
    lines += ["| --- | ---: | --- | ---: | ---: | ---: |"]
    for claim in claims:
        effect, source = predicted(claim)
        digits = 1 if claim.first.metric == "crop_tokens" else 3
        needed = needed_by(claim) or f"over {MOST}"
        mark = "**" if within_reach(claim) else ""
        lines.append(
            f"| {claim.text} | {effect:.{digits}f} | {source} | {spread(claim):.{digits}f} | {needed} | "
            f"{mark}{power_of(claim):.2f}{mark} |"
        )
    return [*lines, ""]


def write(page: Path = HERE / "claims.md") -> None:
    """Renew the tables between the marks of claims.md."""
    text = page.read_text(encoding="utf-8")
    for name, claims in (("family", FAMILY), ("left out", LEFT_OUT)):
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        inner = "\n".join(["", *table(claims)])
        text, count = re.subn(
            f"{begin}.*?{end}", lambda _, new=f"{begin}{inner}\n{end}": new, text, flags=re.DOTALL
        )
        if count != 1:
            raise ValueError(f"{page} must have the marks of the table {name!r} once, found {count}")
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write()
