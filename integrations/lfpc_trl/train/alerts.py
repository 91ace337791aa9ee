"""Alerts when the model stops using its tool, which the reward shows late or never."""

import sys
from collections import deque
from collections.abc import Collection
from typing import Any

from transformers import TrainerCallback

METRIC = "tool_use"
"""The share of rollouts with a delivered crop; see `docs/reference/metrics.md`."""
ALERT = "alert"
"""Key of an alert in the logs of its step."""


class CollapseWatch:
    """Detects when a share falls far below its earlier level and stays there.

    The level is the highest mean of `window` consecutive values so far. Each fall raises one alert: before
    the next, a value must reach `fraction` of the level again.

    Args:
        fraction: a value below this fraction of the level is a fall. Our choice, like the other three.
        patience: number of consecutive falls that raise an alert.
        window: number of values averaged for the level; before that many, nothing is a fall.
        min_level: a share whose level stays below this cannot collapse.
    """

    def __init__(
        self, *, fraction: float = 0.5, patience: int = 5, window: int = 5, min_level: float = 0.2
    ) -> None:
        if not 0 < fraction < 1 or patience < 1 or window < 1:
            raise ValueError(
                "fraction must be between 0 and 1, patience and window at least 1, got "
                f"{fraction}, {patience} and {window}"
            )
        self.fraction, self.patience, self.min_level = fraction, patience, min_level
        self.level = 0.0
        self._falls = 0
        self._recent: deque[float] = deque(maxlen=window)

    def update(self, value: float) -> bool:
        """Add the value of the next step; return whether it raises an alert."""
        fell = self.level >= self.min_level and value < self.fraction * self.level
        self._falls = self._falls + 1 if fell else 0
        self._recent.append(value)
        if len(self._recent) == self._recent.maxlen:
            self.level = max(self.level, sum(self._recent) / len(self._recent))
        return self._falls == self.patience


class ToolUseAlert(TrainerCallback):  # type: ignore[misc]
    """Alerts when tool use collapses: through trackio or wandb if the run reports to them, else on stderr.

    The text is also added to the logs of the step, as "alert", for callbacks added later. A resumed run
    replays its logged steps first.

    Args:
        watch: decides when to alert.
    """

    def __init__(self, watch: CollapseWatch | None = None) -> None:
        self.watch = watch or CollapseWatch()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Replay the steps before a resume, without repeating their alerts."""
        for logs in state.log_history:
            if logs.get(METRIC) is not None:
                self.watch.update(logs[METRIC])

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:  # noqa: ARG002
        """Check the tool use logged for a step."""
        if logs is None or logs.get(METRIC) is None or not self.watch.update(logs[METRIC]):
            return
        text = f"{logs[METRIC]:.0%} of the rollouts use a crop, down from {self.watch.level:.0%}"
        logs[ALERT] = text
        if state.is_world_process_zero:
            send_alert("Tool use collapsed", text, args.report_to)


def send_alert(title: str, text: str, report_to: Collection[str]) -> None:
    """Send an alert through every reporter that supports it, or to stderr if none does.

    Args:
        title: a few words.
        text: one line.
        report_to: names of reporters, as in TRL's `report_to`.
    """
    able = [name for name in ("trackio", "wandb") if name in report_to]
    if "trackio" in able:
        import trackio

        trackio.alert(title=title, text=text, level=trackio.AlertLevel.WARN)
    if "wandb" in able:
        import wandb

        wandb.alert(title=title, text=text, level=wandb.AlertLevel.WARN)
    if not able:
        print(f"lfpc: {title.lower()}: {text}", file=sys.stderr, flush=True)
