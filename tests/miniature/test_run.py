"""A piece of the miniature in the smallest size, from pictures to an evaluation, and again after a stop."""

import pytest

from benchmarks.miniature.jobs import TINY
from benchmarks.miniature.plan import plan
from benchmarks.miniature.runner import outcome, run_jobs

PIECE = ("pictures", "warm", "selection", "gap", "gap-on-test-54")


@pytest.mark.slow
@pytest.mark.filterwarnings("default::ResourceWarning")
def test_a_piece_of_the_plan_and_again_after_a_stop(tmp_path):
    jobs = [job for job in plan(tmp_path, [0], TINY, "cpu") if job.name in PIECE]
    assert [job.name for job in jobs] == list(PIECE)
    run_jobs(jobs, workers=2)
    folder = tmp_path / "seed-0"
    first = outcome(folder, "gap-on-test-54")
    assert first["questions"] == 6
    # Stopped between the end of a training and its marker: the training is not repeated.
    weights = (folder / "gap" / "model.safetensors").stat().st_mtime_ns
    for name in PIECE[3:]:
        (folder / "done" / f"{name}.json").unlink()
    run_jobs(jobs, workers=1)
    assert (folder / "gap" / "model.safetensors").stat().st_mtime_ns == weights
    assert outcome(folder, "gap-on-test-54") == first
