"""An alert when the model stops using its tool, which a falling reward shows late or never."""

import sys
from collections import deque
from collections.abc import Collection
from typing import Any

from transformers import TrainerCallback

METRIC = "tool_use"
"""The share of rollouts with a delivered crop; see `docs/reference/metrics.md`."""
ALERT = "alert"
"""The key under which an alert stands in the logs of its step."""


class CollapseWatch:
    """Notices when a share falls far below the level it once had, and stays there.

    The level is the highest mean of `window` values in a row so far. An alert is raised once per fall: before
    the next one, a value must reach `fraction` of the level again.

    Args:
        fraction: of the level, below which a value is a fall. Our choice, as the other three.
        patience: falls in a row that make an alert.
        window: values whose mean is the level; before there are as many, nothing is a fall.
        min_level: a share that never reached this level cannot collapse.
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
        """Take the value of the next step; whether it makes an alert."""
        fell = self.level >= self.min_level and value < self.fraction * self.level
        self._falls = self._falls + 1 if fell else 0
        self._recent.append(value)
        if len(self._recent) == self._recent.maxlen:
            self.level = max(self.level, sum(self._recent) / len(self._recent))
        return self._falls == self.patience


class ToolUseAlert(TrainerCallback):  # type: ignore[misc]
    """Says so when tool use collapses: through trackio or wandb where they report, else on stderr.

    The text also goes into the logs of the step, as "alert", for the callbacks that were added later. A
    resumed training remembers what it had seen.

    Args:
        watch: when to say so.
    """

    def __init__(self, watch: CollapseWatch | None = None) -> None:
        self.watch = watch or CollapseWatch()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Take in the steps before a resumption, whose alerts were given."""
        for logs in state.log_history:
            if logs.get(METRIC) is not None:
                self.watch.update(logs[METRIC])

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:  # noqa: ARG002
        """Take in a step."""
        if logs is None or logs.get(METRIC) is None or not self.watch.update(logs[METRIC]):
            return
        text = f"{logs[METRIC]:.0%} of the rollouts look at a crop, {self.watch.level:.0%} did before"
        logs[ALERT] = text
        if state.is_world_process_zero:
            send_alert("Tool use collapses", text, args.report_to)


def send_alert(title: str, text: str, report_to: Collection[str]) -> None:
    """Alert through every reporter that can, on stderr if none can.

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
