"""Seconds of work that was stopped and went on."""

from lfpc_trl.jobs import clock as clocks
from lfpc_trl.jobs.clock import Clock


class Time:
    """Stands for the clock of the machine."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(clocks.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(clocks.time, "time_ns", lambda: int(self.now * 1e9))


def test_the_seconds_of_every_run_are_counted_once(tmp_path, monkeypatch):
    time = Time(monkeypatch)
    folder = tmp_path / "journal"
    first = Clock(folder)
    assert not folder.exists()  # nothing is made before there is work
    time.now += 30
    first.note()
    time.now += 2  # killed before it noted these
    second = Clock(folder)
    time.now += 12
    second.tick()
    second.note()
    assert second.total() == 30 + 12
    third = Clock(folder)
    assert third.total() == 30 + 12


def test_a_kill_costs_a_few_seconds_at_most(tmp_path, monkeypatch):
    time = Time(monkeypatch)
    first = Clock(tmp_path)
    for _ in range(100):
        time.now += 1
        first.tick()
    assert Clock(tmp_path).total() >= 100 - 5


def test_a_damaged_note_counts_nothing(tmp_path, monkeypatch):
    Time(monkeypatch)
    (tmp_path / "1-1.seconds").write_text("?")
    assert Clock(tmp_path).total() == 0
