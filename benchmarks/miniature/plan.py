"""The plan: which jobs a seed takes, and which of them wait for which.

pictures ─┬─ selection ─┬─ gap ─── stage2, control, no-overlap, no-iou, no-l1
warm ─────┘             ├─ no-gap, hard, random, mixed
warm-pairs ─────────────┴─ pairs-best, pairs-last, pairs-mean          then every evaluation
"""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.miniature import jobs
from benchmarks.miniature.runner import Job
from lfpc_trl.evaluate.conditions import Condition

STAGE_1 = ("warm", "gap", "no-gap")
"""Models evaluated on readable overviews too, and with other crops than they asked for."""
LOOKING: tuple[Condition, ...] = ("predicted", "no_tool", "noise", "elsewhere")


def plan(output: Path, seeds: Sequence[int], scale: jobs.Scale, device: str) -> list[Job]:
    """All jobs, seed by seed, so that whole seeds are finished first; questions about two signs come last."""
    every = [job for seed in seeds for job in _of_seed(output / f"seed-{seed}", scale, seed, device)]
    return [job for job in every if "pairs" not in job.name] + [job for job in every if "pairs" in job.name]


def _of_seed(folder: Path, scale: jobs.Scale, seed: int, device: str) -> list[Job]:
    common, arms = (scale, seed, device), jobs.arms(scale)
    found = [
        Job(folder, "pictures", jobs.make_pictures, common),
        Job(folder, "warm", jobs.make_warm, common, {"name": "warm"}),
        Job(folder, "warm-pairs", jobs.make_warm, common, {"name": "warm-pairs"}),
        Job(folder, "selection", jobs.select, common, needs=("pictures", "warm")),
    ]
    found += [
        Job(folder, name, jobs.train_arm, common, {"name": name}, ("selection", arm.start))
        for name, arm in arms.items()
    ]
    for name in ("warm", "warm-pairs", *arms):
        wanted = [("test-pairs" if "pairs" in name else "test", jobs.LOW)]
        wanted += [("test", jobs.HIGH)] if name in STAGE_1 else []
        conditions = LOOKING if name in STAGE_1 else LOOKING[:1]
        found += [
            Job(
                folder,
                evaluation_name(name, data, tokens),
                jobs.evaluate_model,
                common,
                {"name": name, "data": data, "tokens": tokens, "conditions": conditions},
                ("pictures", name),
            )
            for data, tokens in wanted
        ]
    return found


def evaluation_name(name: str, data: str, tokens: int) -> str:
    return f"{name}-on-{data}-{tokens}"
