"""Binds the arguments of a reward to columns."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lfpc_rewards.boxes import Frame, FrameName, convert_frame
from lfpc_rewards.parsing import ParsedCompletion, opens_thinking, parse_completions

Reward = Callable[..., Any]
"""A reward of this package: columns in, one (B,) array or a named tuple of them out."""


PER_ROLLOUT = frozenset(
    {"choices", "crop_images", "crops", "failed", "groups", "image_sizes", "messages", "questions"}
    | {"reasoning", "shown_sizes", "target_images", "targets", "videos", "wanted"}
)
"""Arguments with a default that have one entry per rollout; a column of that name is used for them."""


@dataclass(frozen=True)
class CropsOf:
    """Where the crops of `grounding_reward` and `lfpc_reward` come from: the calls in the completions.

    A crop counts when its picture was delivered, which a string cannot prove: there only `requested` finds
    any, unless the adapter's `reading` has a `picture_mark`.

    Attributes:
        frame: The frame in which the model writes boxes.
        requested: Take every call, delivered or not.
    """

    frame: Frame | FrameName
    requested: bool = False

    def read(
        self,
        rollouts: Sequence[ParsedCompletion],
        columns: Mapping[str, Sequence[Any]],
        names: Mapping[str, str],
    ) -> list[list[Any]]:
        """(B,) the boxes of each rollout, in pixels of the original image."""

        def column(name: str) -> Sequence[Any]:
            return take(columns, names.get(name, name), name)

        sizes: dict[str, Sequence[Any]] = {}
        frame = Frame(self.frame)
        if frame is not Frame.ORIGINAL:
            sizes["original_size"] = column("image_sizes")
        if frame is Frame.SHOWN:
            sizes["shown_size"] = column("shown_sizes")
        rows = []
        for number, rollout in enumerate(rollouts):
            boxes: list[Any] = [crop.box for crop in rollout.crops if crop.delivered or self.requested]
            size = {name: values[number] for name, values in sizes.items()}
            rows.append(
                [
                    None if box is None else convert_frame(box, frame, Frame.ORIGINAL, **size).tolist()
                    for box in boxes
                ]
            )
        return rows


@dataclass(frozen=True)
class Binding:
    """A reward with its arguments bound to columns.

    Attributes:
        reward: The reward.
        columns: Argument: name of its column. An argument that is not named here comes from the column of its
            own name: always if it has no default, and if it is one of `PER_ROLLOUT` where there is such a
            column.
        options: Argument: one value for all rows.
        crops: How the argument `crops` is read from the completions; None if it is not.
        term: Which part of a named tuple is the reward.
        reading: Keywords of `parse_completions`: how completions are read.

    Raises:
        TypeError: The reward has no argument of that name, one is bound twice, `reading` has an unknown
            keyword, or the reward does not use `parse_completions`, as presets do not.
        ValueError: `reading` has a value that `parse_completions` refuses.
    """

    reward: Reward
    columns: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    crops: CropsOf | None = None
    term: str = "total"
    reading: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        parse_completions([], **self.reading)  # raises now rather than during training
        known = inspect.signature(self.reward).parameters
        # CropsOf reads columns that need not be arguments of the reward.
        read = {"completions", "image_sizes", "shown_sizes"} if self.crops is not None else set()
        for name in (*self.columns, *self.options):
            if name not in known and name not in read:
                raise TypeError(f"{_name(self.reward)} has no argument {name!r}; it has {', '.join(known)}")
        twice = set(self.columns) & set(self.options)
        twice |= {"crops"} & {*self.columns, *self.options} if self.crops is not None else set()
        if twice:
            raise TypeError(f"bound twice: {', '.join(sorted(twice))}")
        if self.reading and not self._takes_rollouts():
            raise TypeError(f"{_name(self.reward)} does not use parse_completions: reading must be empty")

    def arguments(self, present: Collection[str] = ()) -> dict[str, str]:
        """The arguments that come from columns, each with its column; `present`: which columns there are."""
        found = {}
        for name, parameter in inspect.signature(self.reward).parameters.items():
            bound = name in self.options or (name == "crops" and self.crops is not None)
            needed = (
                parameter.default is parameter.empty
                # Comparing crops with targets needs the sizes, though the argument has a default.
                or (name == "image_sizes" and self.crops is not None)
                or (name in PER_ROLLOUT and name in present)
            )
            if name in self.columns or (needed and not bound):
                found[name] = self.columns.get(name, name)
        return found

    def score(self, columns: Mapping[str, Sequence[Any]]) -> dict[str, list[float]]:
        """The reward as "score" and its parts by name, if any: (B,) floats each; NaN stays NaN.

        Raises:
            KeyError: A column is missing.
            TypeError: The parts of the reward do not have the name `term`.
        """
        given = {name: take(columns, column, name) for name, column in self.arguments(columns).items()}
        reading = dict(self.reading)
        prompts = columns.get("prompts", ())
        if "think_open" not in reading and any(isinstance(p, str) and opens_thinking(p) for p in prompts):
            reading["prompts"] = prompts  # TRL passes them as texts
        if self.crops is not None or (reading and self._takes_rollouts()):
            completions = take(columns, self.columns.get("completions", "completions"), "completions")
            rollouts = parse_completions(completions, **reading)
            if self._takes_rollouts():
                given["completions"] = rollouts
            if self.crops is not None:
                given["crops"] = self.crops.read(rollouts, columns, self.columns)
        result = self.reward(**given, **self.options)
        if isinstance(result, np.ndarray):
            return {"score": result.tolist()}
        parts = result._asdict()
        if self.term not in parts:
            raise TypeError(f"{_name(self.reward)} has no part {self.term!r}; it has {', '.join(parts)}")
        return {"score": parts[self.term].tolist()} | {name: part.tolist() for name, part in parts.items()}

    def _takes_rollouts(self) -> bool:
        """Whether the reward takes rollouts, as those of the core do."""
        completions = inspect.signature(self.reward).parameters.get("completions")
        return completions is not None and "Completion]" in str(completions.annotation)


def take(columns: Mapping[str, Sequence[Any]], column: str, argument: str) -> Sequence[Any]:
    """A column, or an error that says which argument needs it."""
    if column not in columns:
        raise KeyError(f"no column {column!r} for the argument {argument!r}; there are {', '.join(columns)}")
    return columns[column]


def or_none(scores: Sequence[float]) -> list[float | None]:
    """Scores with None in place of NaN."""
    return [None if math.isnan(score) else score for score in scores]


def _name(reward: Reward) -> str:
    return getattr(reward, "__name__", type(reward).__name__)
