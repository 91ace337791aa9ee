"""The user's own rewards and judge in a run: checked before it starts, recorded, and cached."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from lfpc_rewards import Frame
from lfpc_trl.data.rows import Row
from lfpc_trl.jobs.journal import Journal, Record, read_journal
from lfpc_trl.own_code import OwnCode, load_code
from lfpc_trl.rollouts.judge import Case, Judge, Verdict
from lfpc_trl.rollouts.own_rewards import PresetReward, make_reward
from lfpc_trl.train.settings import StageSettings

JUDGED = "judged"
"""The folder of the judge's verdicts in a run's directory."""


def own_code(stage: StageSettings) -> list[OwnCode]:
    """Load the user's code that a stage runs.

    Raises:
        UserError: it cannot be imported.
    """
    return [load_code(name, "judge" if name == stage.judge else "reward") for name in stage.code()]


def check_rewards(stage: StageSettings, rows: Sequence[Row], frame: Frame) -> None:
    """Check that the rewards work on these rows, before the model is loaded.

    A published reward scores an empty reply to every row; it may reject their answers, or require a judge.

    Raises:
        UserError: naming the reward and the rule.
    """
    code = {each.name: each for each in own_code(stage)}
    judge = None if stage.judge is None else Judge(code[stage.judge])
    for entry in stage.named_rewards():
        reward = make_reward(entry, frame, judge)
        if isinstance(reward, PresetReward):
            reward.check(rows)


@contextlib.contextmanager
def open_judge(stage: StageSettings, output_dir: Path) -> Iterator[Judge | None]:
    """Open the judge of a run with its verdicts so far; None if the stage has no judge.

    Each process writes its own file and starts with the verdicts of all files.

    Raises:
        UserError: the recorded verdicts come from another judge, or its code cannot be imported.
    """
    if stage.judge is None:
        yield None
        return
    code = load_code(stage.judge, "judge")
    header = {"journal": "verdicts of a judge", "judge": code.name, "sha256": code.sha256}
    folder = output_dir / JUDGED
    known: dict[Case, Verdict] = {}
    for path in sorted(folder.glob("*.jsonl")):
        known |= {_case(record): _verdict(record) for record in read_journal(path, header)}
    with Journal(folder / f"{os.environ.get('RANK', '0')}.jsonl", header) as journal:

        def remember(case: Case, verdict: Verdict) -> None:
            journal.append([{**case._asdict(), **verdict._asdict()}])

        yield Judge(code, concurrency=stage.judge_concurrency, known=known, remember=remember)


def _case(record: Record) -> Case:
    return Case(record["question"], record["answer"], tuple(record["accepted"]))


def _verdict(record: Record) -> Verdict:
    return Verdict(record["said"], record["cost"])
