"""What a run will cost, from what a short one took: every job's processor seconds by its amount of work.

A short run starts every program anew for little work, so the estimate is rather too high. But its models have
not learned to crop.
"""

import json
from collections import defaultdict
from collections.abc import Sequence

from benchmarks.miniature import jobs
from benchmarks.miniature.runner import Job

WITH_CROPS = 2.0
"""How many times as long an evaluation takes whose rollouts crop: another turn, another picture."""


def estimate(planned: Sequence[Job], measured: Sequence[Job]) -> float:
    """Processor seconds of the planned jobs, from finished ones of another scale.

    Raises:
        ValueError: no finished job is of the kind of a planned one.
    """
    work: dict[str, float] = defaultdict(float)
    seconds: dict[str, float] = defaultdict(float)
    for job in measured:
        if job.marker.exists():
            record = json.loads(job.marker.read_text(encoding="utf-8"))
            seconds[kind(job)] += record["processor_seconds"]
            work[kind(job)] += amount(job)
    missing = sorted({kind(job) for job in planned} - set(work))
    if missing:
        raise ValueError(f"measured must hold a finished job of each kind, none of {', '.join(missing)}")
    return sum(amount(job) * seconds[kind(job)] / work[kind(job)] for job in planned)


def one_of_each_kind(planned: Sequence[Job]) -> list[Job]:
    """The first job of each kind: enough to see what all of them take."""
    first: dict[str, Job] = {}
    for job in planned:
        first.setdefault(kind(job), job)
    return list(first.values())


def kind(job: Job) -> str:
    """Jobs of one kind take as long for the same amount of work."""
    if job.work is jobs.evaluate_model:
        return f"evaluation at {job.options['tokens']} tokens"
    return f"training of {job.name}" if job.work is jobs.train_arm else job.name


def amount(job: Job) -> float:
    """Steps of a training, rollouts of an evaluation, pictures of anything else."""
    scale: jobs.Scale = job.args[0]
    if job.work is jobs.evaluate_model:
        asked = min(job.options.get("questions") or 3 * scale.test_pictures, 3 * scale.test_pictures)
        crops = 1.0 if scale == jobs.PACE else WITH_CROPS
        return asked * (crops * len(job.options["conditions"]) + job.options["before_looking"])
    if job.work is jobs.train_arm:
        return jobs.arms(scale)[job.name].steps
    if job.work is jobs.make_warm:
        return scale.lessons.steps
    if job.work is jobs.select:
        return scale.stage1_pictures
    return scale.stage1_pictures + scale.stage2_pictures + scale.pair_pictures + scale.test_pictures
