"""Facts about a reward, for the page that compares them and for tests."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

Mode: TypeAlias = Literal["exact", "strict"]
""""exact": what the published code gives, mistakes included. "strict": the same idea, loopholes closed."""


class Loophole(NamedTuple):
    """A way to earn a reward without what it is meant to reward.

    Attributes:
        name: A key, unique within the system; a test of that name fools `exact` and not `strict`.
        trick: What a model does to earn it.
        closed: What `strict` does instead.
    """

    name: str
    trick: str
    closed: str


class System(NamedTuple):
    """One published system.

    Attributes:
        name: As its authors write it.
        paper: The arXiv number, or "none".
        code: Repository and commit whose behaviour `exact` reproduces.
        rewards: The functions of `lfpc_rewards.presets` that make up this system.
        terms: The formula, in words.
        gates: Which term depends on which.
        blind_to: What the reward cannot see, in either mode.
        loopholes: What `strict` closes.
        deviations: Where `exact` differs from the original, always because that raised or gave no number.
    """

    name: str
    paper: str
    code: str
    rewards: tuple[str, ...]
    terms: str
    gates: str
    blind_to: tuple[str, ...]
    loopholes: tuple[Loophole, ...]
    deviations: tuple[str, ...] = ()


def is_strict(mode: Mode) -> bool:
    """Whether the mode is "strict"; raises for an unknown mode."""
    if mode not in ("exact", "strict"):
        raise ValueError(f'mode must be "exact" or "strict", got {mode!r}')
    return mode == "strict"
