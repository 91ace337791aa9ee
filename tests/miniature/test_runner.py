"""The runner of the miniature's jobs."""

import pytest

from benchmarks.miniature.runner import Job, outcome, run_jobs


def note(folder, word, *, fails=False):
    with (folder / "log").open("a") as log:
        log.write(word)
    if fails and not (folder / "mended").exists():
        raise RuntimeError("broken")
    return {"word": word}


def test_jobs_run_in_order_once_and_leave_their_outcome(tmp_path):
    jobs = [Job(tmp_path, "c", note, ("c",), needs=("b",)), Job(tmp_path, "b", note, ("b",), needs=("a",))]
    jobs.append(Job(tmp_path, "a", note, ("a",)))
    run_jobs(jobs, workers=2)
    assert (tmp_path / "log").read_text() == "abc"
    assert outcome(tmp_path, "b") == {"word": "b"}
    run_jobs(jobs, workers=2)
    assert (tmp_path / "log").read_text() == "abc"


def test_after_a_failure_only_what_is_missing_is_run(tmp_path):
    jobs = [Job(tmp_path, "a", note, ("a",)), Job(tmp_path, "b", note, ("b",), {"fails": True}, ("a",))]
    with pytest.raises(RuntimeError, match="broken"):
        run_jobs(jobs, workers=1)
    assert not jobs[1].marker.exists()
    (tmp_path / "mended").touch()
    run_jobs(jobs, workers=1)
    assert (tmp_path / "log").read_text() == "abb"


def test_a_job_that_waits_for_nothing_that_exists_is_refused(tmp_path):
    with pytest.raises(ValueError, match="job a waits for z: no such job"):
        run_jobs([Job(tmp_path, "a", note, ("a",), needs=("z",))], workers=1)
