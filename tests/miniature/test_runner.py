"""The runner of the miniature's jobs."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

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


def linger(folder):
    """Never done until somebody says so."""
    (folder / "pid").write_text(str(os.getpid()))
    while not (folder / "mended").exists():
        time.sleep(0.05)


def lingering(folder):
    return [Job(folder, "a", note, ("a",)), Job(folder, "b", linger, needs=("a",))]


def alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


_RUN = """
from pathlib import Path
from benchmarks.miniature.runner import run_jobs
from tests.miniature.test_runner import lingering
if __name__ == "__main__":
    run_jobs(lingering(Path({folder!r})), workers=1)
"""


def test_killed_at_work_its_processes_end_and_the_next_run_goes_on(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(_RUN.format(folder=str(tmp_path)))
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join([root, str(Path(root) / "integrations")])
    main = subprocess.Popen([sys.executable, str(script)], env=os.environ | {"PYTHONPATH": path})
    pid = tmp_path / "pid"
    while not (pid.exists() and pid.read_text()):
        assert main.poll() is None
        time.sleep(0.05)
    main.send_signal(signal.SIGKILL)
    main.wait()
    worker = int(pid.read_text())
    for _ in range(200):
        if not alive(worker):
            break
        time.sleep(0.05)
    ended = not alive(worker)
    (tmp_path / "mended").touch()  # lets go of a worker that did not end
    assert ended
    run_jobs(lingering(tmp_path), workers=1)
    assert (tmp_path / "log").read_text() == "a"
    assert lingering(tmp_path)[1].marker.exists()
