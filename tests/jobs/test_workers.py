"""Work divided among real processes: nothing is lost, nothing hangs, nobody is left behind."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing

import psutil
import pytest

from lfpc_trl.errors import UserError
from lfpc_trl.jobs.workers import Failure, Piece, run_here, run_processes
from tests.jobs.fake_work import Doubling, WithChild

ITEMS = {f"item{index}": index for index in range(12)}
TWO = [{}, {}]


def outcomes(work, items=ITEMS, environments=TWO):
    found = list(run_processes(work, items, environments))
    assert multiprocessing.active_children() == []
    return found


def failed(found) -> dict[str, str]:
    return {key: each.reason for each in found if isinstance(each, Failure) for key in each.keys}


def twice(found) -> dict[str, int]:
    pieces = [each for each in found if isinstance(each, Piece)]
    assert max(Counter(piece.key for piece in pieces).values(), default=1) == 1
    return {piece.key: piece.record["twice"] for piece in pieces}


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_every_item_comes_out_once(processes):
    found = outcomes(Doubling(), environments=[{}] * processes)
    assert twice(found) == {key: 2 * value for key, value in ITEMS.items()}


def test_this_process_does_the_same():
    assert twice(run_here(Doubling(), ITEMS)) == twice(outcomes(Doubling()))


def test_more_processes_than_items_do_no_harm():
    assert twice(outcomes(Doubling(), {"only": 4}, [{}] * 3)) == {"only": 8}
    assert outcomes(Doubling(), {}) == []


def test_each_process_has_its_own_environment_before_it_imports_anything():
    found = outcomes(Doubling(pause=0.05), environments=[{"SAID": "a"}, {"SAID": "b"}])
    said = {(each.record["pid"], each.record["said"]) for each in found}
    assert {word for _, word in said} == {"a", "b"}
    assert len(said) == 2
    assert "SAID" not in os.environ


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("raise", "RuntimeError: two lines"),
        ("kill", "died, killed by SIGKILL"),
        ("exit", "died, exit code 3"),
        ("tell", "this one only"),
    ],
)
def test_a_worker_that_fails_takes_its_item_alone(how, reason):
    found = outcomes(Doubling("item3", how))
    assert list(failed(found)) == ["item3"]
    assert reason in failed(found)["item3"]
    assert set(twice(found)) == set(ITEMS) - {"item3"}


def test_pieces_before_the_failure_stand_and_only_what_is_in_hand_is_lost():
    found = outcomes(Doubling("item3", "kill", pieces=3), environments=[{}])
    assert [each.key for each in found[:-2]] == ["item0"] * 3 + ["item1"] * 3 + ["item2"] * 3 + ["item3"] * 2
    assert found[-2].keys == ("item3",)
    assert found[-1].keys == tuple(f"item{index}" for index in range(4, 12))
    assert found[-1].reason.startswith("no worker is left: ")


def test_what_a_failing_worker_has_to_say_is_on_standard_error(capfd):
    outcomes(Doubling("item3", "raise"))
    assert "Traceback" in capfd.readouterr().err


def test_an_error_that_the_user_can_put_right_ends_all():
    with pytest.raises(UserError, match="no such model"):
        outcomes(Doubling(how="user"))
    assert multiprocessing.active_children() == []


def gone(pids) -> bool:
    """Whether processes end, within a generous time."""
    _, alive = psutil.wait_procs([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], timeout=30)
    return all(process.status() == psutil.STATUS_ZOMBIE for process in alive)


def test_closing_ends_the_workers_and_their_processes():
    with closing(run_processes(WithChild(), ITEMS, TWO)) as running:
        pids = next(running).record["pids"] + next(running).record["pids"]
        assert len(set(pids)) == 4
        assert all(map(psutil.pid_exists, pids))
    assert gone(pids)


def test_a_killed_parent_takes_its_workers_along():
    code = (
        "import json\nfrom lfpc_trl.jobs.workers import run_processes\n"
        "from tests.jobs.fake_work import WithChild\n"
        "for piece in run_processes(WithChild(), {'a': 1}, [{}]):\n"
        "    print(json.dumps(piece.record['pids']), flush=True)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment) as parent:
        pids = json.loads(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
    start = time.monotonic()
    assert gone(pids)
    assert time.monotonic() - start < 30
