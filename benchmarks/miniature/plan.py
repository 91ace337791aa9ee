"""The plan: which jobs a seed takes, and which of them wait for which.

pictures ─┬─ selection ─┬─ gap ─── stage2, control
warm ─────┘             └─ no-gap            then every evaluation, and the curves of gap and no-gap

The other arms of `jobs.arms` serve claims that ten seeds cannot decide (`power.py`); they are not run.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.miniature import jobs
from benchmarks.miniature.runner import Job
from lfpc_trl.evaluate.conditions import Condition

RUN = ("warm", "gap", "no-gap", "stage2", "control")
"""The models that are made and evaluated."""
STAGE_1 = ("warm", "gap", "no-gap")
"""Models evaluated on readable overviews too, and asked for an answer before they look."""
CURVES = ("gap", "no-gap")
"""Trainings whose checkpoints are evaluated on the way, and whose ends with other crops than they ask for."""
PLAIN: tuple[Condition, ...] = ("predicted",)
LOOKING: tuple[Condition, ...] = ("predicted", "noise", "elsewhere")


def plan(
    output: Path,
    seeds: Sequence[int],
    scale: jobs.Scale,
    device: str,
    starts: Mapping[int, Path] | None = None,
) -> list[Job]:
    """All jobs, seed by seed, so that whole seeds are finished first.

    Args:
        output: of the run.
        seeds: in the order in which they are run.
        scale: how much of everything.
        device: cpu or cuda.
        starts: checkpoints of their own for some seeds, in place of the shipped one.
    """
    starts = starts or {}
    return [
        job
        for seed in seeds
        for job in _of_seed(output / f"seed-{seed}", scale, seed, device, starts.get(seed))
    ]


def _of_seed(folder: Path, scale: jobs.Scale, seed: int, device: str, start: Path | None) -> list[Job]:
    common = (scale, seed, device)
    arms = {name: arm for name, arm in jobs.arms(scale).items() if name in RUN}
    found = [
        Job(folder, "pictures", jobs.make_pictures, common),
        Job(folder, "warm", jobs.make_warm, common, {"name": "warm", "start": start}),
        Job(folder, "selection", jobs.select, common, needs=("pictures", "warm")),
    ]
    found += [
        Job(folder, name, jobs.train_arm, common, {"name": name}, ("selection", arm.start))
        for name, arm in arms.items()
    ]
    for name in RUN:
        budgets = (jobs.LOW, jobs.HIGH) if name in STAGE_1 else (jobs.LOW,)
        found += [
            Job(
                folder,
                evaluation_name(name, "test", tokens, sampled=sampled),
                jobs.evaluate_model,
                common,
                {
                    "name": name,
                    "data": "test",
                    "tokens": tokens,
                    "conditions": _conditions(name, tokens, sampled=sampled),
                    "sampled": sampled,
                    "before_looking": name in STAGE_1,
                },
                ("pictures", name),
            )
            for sampled in (False, True)
            for tokens in budgets
        ]
    found += [
        Job(
            folder,
            curve_name(name, step, tokens),
            jobs.evaluate_model,
            common,
            {
                "name": f"{name}/checkpoint-{step}",
                "data": "test",
                "tokens": tokens,
                "conditions": PLAIN,
                "before_looking": True,
                "questions": scale.curve_questions,
            },
            ("pictures", name),
        )
        for name in CURVES
        for step in scale.curve_steps
        for tokens in (jobs.LOW, jobs.HIGH)
    ]
    return found


def _conditions(name: str, tokens: int, *, sampled: bool) -> tuple[Condition, ...]:
    # Readable overviews take three times as long, so their second reading is as short as can be.
    return LOOKING if name in CURVES and not (sampled and tokens == jobs.HIGH) else PLAIN


def evaluation_name(name: str, data: str, tokens: int, *, sampled: bool = False) -> str:
    return f"{name}-on-{data}-{tokens}" + ("-sampled" if sampled else "")


def curve_name(name: str, step: int, tokens: int) -> str:
    """The evaluation of a training's checkpoint; that of its end is in `evaluation_name`."""
    return f"{name}-at-{step}-on-test-{tokens}"
