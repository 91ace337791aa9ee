"""Facts about a published reward, for the docs page that compares rewards, and for tests."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

Mode: TypeAlias = Literal["exact", "strict"]
""""exact": the published code, bugs included. "strict": the same idea with its loopholes closed."""


class Loophole(NamedTuple):
    """A way to earn a reward without the behavior that it is meant to reward.

    Attributes:
        name: A key, unique within the system; a test with that name fools `exact` but not `strict`.
        trick: How a model earns it.
        closed: What `strict` does instead.
    """

    name: str
    trick: str
    closed: str


class System(NamedTuple):
    """One published system.

    Attributes:
        name: Name used by its authors.
        paper: The arXiv number, or "none".
        code: Repository and commit that `exact` reproduces.
        rewards: The functions of `lfpc_rewards.presets` that make up this system.
        terms: The formula, in words.
        gates: Which terms depend on which.
        blind_to: What the reward cannot see, in either mode.
        loopholes: The loopholes that `strict` closes.
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
