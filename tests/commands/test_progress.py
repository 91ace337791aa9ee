"""What people read while they wait."""

import io
import itertools

import pytest

from lfpc_trl.progress import Progress, duration, is_quiet, quiet


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def run(stream, steps, *, total=100, done=0):
    """Show progress at (seconds since the start, steps done)."""
    clock = Clock()
    progress = Progress(total, done, stream=stream, clock=clock)
    for seconds, step in steps:
        clock.now = 100.0 + seconds
        progress.show(step, f"{step} steps")
    return stream.getvalue()


def test_a_log_file_gets_a_line_every_half_minute_and_one_at_the_end():
    told = run(io.StringIO(), [(1, 1), (29, 10), (31, 25), (40, 30), (62, 50), (63, 100)])
    assert (
        told
        == "25 steps, 48.4 a minute, about 2 min left\n50 steps, 48.4 a minute, about 62 s left\n100 steps\n"
    )


def test_a_terminal_line_is_rewritten_and_never_leaves_the_end_of_a_longer_one():
    told = run(Terminal(), [(1, 1), (1.1, 2), (2, 50), (3, 100)])
    lines = told.rstrip("\n").split("\r")[1:]
    assert [line.rstrip() for line in lines] == [
        "1 steps, 1.0 a second, about 2 min left",
        "50 steps, 25.0 a second, about 2 s left",
        "100 steps",
    ]
    assert all(len(after) >= len(before.rstrip()) for before, after in itertools.pairwise(lines))
    assert told.endswith("\n")


def test_what_was_done_before_says_nothing_about_the_speed():
    assert run(io.StringIO(), [(50, 90)], done=80) == "90 steps, 12.0 a minute, about 50 s left\n"


def test_without_a_step_there_is_no_estimate():
    assert run(io.StringIO(), [(50, 0)]) == "0 steps\n"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (89.6, "90 s"), (90, "2 min"), (3599, "1 h 0 min"), (7260, "2 h 1 min")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_work_of_unknown_length_tells_its_speed_alone():
    stream, clock = Terminal(), Clock()
    progress = Progress(None, stream=stream, clock=clock)
    clock.now += 10
    progress.show(25, "25 records")
    progress.end()
    assert stream.getvalue() == "\r25 records, 2.5 a second\n"


def test_quiet_tells_nothing_here_and_in_what_is_started(monkeypatch):
    monkeypatch.delenv("LFPC_QUIET", raising=False)
    with quiet(True):
        assert run(io.StringIO(), [(31, 25), (63, 100)]) == ""
        assert is_quiet()
    assert not is_quiet()
    with quiet(False):
        assert not is_quiet()


def test_every_command_takes_quiet(monkeypatch):
    from lfpc_trl import cli

    seen = []

    class Command:
        @staticmethod
        def main(words):
            seen.append((words, is_quiet()))

    monkeypatch.setattr(cli, "load", lambda _: Command)
    assert cli.main(["eval", "--quiet", "--limit", "3"]) == cli.main(["eval", "--limit", "3"]) == 0
    assert seen == [(["--quiet", "--limit", "3"], True), (["--limit", "3"], False)]
    assert not is_quiet()
