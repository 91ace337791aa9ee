"""The journal: nothing confirmed is lost, nobody overwrites anybody."""

import json
import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lfpc_trl.annotate.journal import STATUSES, ChangeLog, Conflict, Content
from lfpc_trl.errors import DataError
from tests.pages.conftest import ENVIRONMENT


@pytest.fixture
def path(tmp_path):
    return tmp_path / "rows.jsonl.annotations.jsonl"


def append(journal, row="q0", base=0, annotator="ann", **content):
    return journal.append(row, "picture.png", base, annotator, Content(**content))


# --- content -----------------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
sides = st.integers(-10, 10**6) | st.floats(0, 1e6)
contents = st.builds(
    Content,
    question=texts,
    answer=st.lists(texts, max_size=3).map(tuple),
    choices=st.none() | st.lists(texts, max_size=3).map(tuple),
    targets=st.lists(st.lists(st.tuples(sides, sides, sides, sides), max_size=3).map(tuple), max_size=3).map(
        tuple
    ),
    status=st.sampled_from(STATUSES),
    note=texts,
    without_boxes=st.booleans(),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(st.lists(contents, min_size=1, max_size=4))
def test_what_was_saved_is_read_again(tmp_path_factory, saved):
    path = tmp_path_factory.mktemp("journal") / "j.jsonl"
    journal = ChangeLog(path)
    for base, content in enumerate(saved):
        assert journal.append("q", "p.png", base, "ann", content).revision == base + 1
    again = ChangeLog(path)
    assert [change.content for change in again.changes] == saved
    assert again.latest["q"].content == saved[-1]
    assert again.skipped == 0


BAD = [
    ("no object", [1], "a change must be a JSON object"),
    (
        "a status of its own",
        {"status": "great"},
        "status must be one of open, done, skipped, flagged, deleted, got 'great'",
    ),
    ("a status that is no text", {"status": ["open"]}, "status must be one of"),
    ("a number as question", {"question": 7}, "question must be a text, got 7"),
    ("one answer outside a list", {"answer": "KR"}, "answer must be a list, got 'KR'"),
    ("a number as answer", {"answer": [7]}, "answer must be a text, got 7"),
    ("choices that are no list", {"choices": 7}, "choices must be a list, got 7"),
    ("three sides", {"targets": [[[1, 2, 3]]]}, "targets must be lists of boxes"),
    ("a box without a region", {"targets": [[1, 2, 3, 4]]}, "targets must be a list, got 1"),
    ("a truth value", {"targets": [[[1, 2, True, 4]]]}, "targets must be lists of boxes"),
    ("a word for a truth value", {"without_boxes": "no"}, "without_boxes must be true or false, got 'no'"),
    ("NaN", {"targets": [[[1, 2, float("nan"), 4]]]}, "targets must be lists of boxes"),
    ("infinity", {"targets": [[[1, 2, float("inf"), 4]]]}, "targets must be lists of boxes"),
    ("a number longer than a float", {"targets": [[[1, 2, 10**400, 4]]]}, "targets must be lists of boxes"),
]


@pytest.mark.parametrize(("_", "record", "message"), BAD, ids=[case[0] for case in BAD])
def test_a_change_of_another_type_is_refused(_, record, message):
    with pytest.raises(DataError, match=f"^{message}"):
        Content.parse(record)


OLD_LINE = (
    '{"row": "q0", "image": "p.png", "revision": 1, "annotator": "ann", '
    '"time": "2026-01-01T00:00:00.000+00:00", "question": "What?", "answer": ["KR"], "choices": null, '
    '"targets": [[[1, 2, 30, 40]]], "status": "done", "note": ""}\n'
)


def test_a_journal_from_before_added_questions_is_read_as_before(path):
    path.write_text(OLD_LINE)
    [change] = ChangeLog(path).changes
    assert change.content == Content("What?", ("KR",), None, (((1, 2, 30, 40),),), "done")
    assert (change.after, change.seconds, change.content.without_boxes) == (None, 0.0, False)


def test_an_added_question_and_the_seconds_of_work_are_read_again(path):
    journal = ChangeLog(path)
    for base, seconds in enumerate((1.5, 0.0, 4.0)):
        journal.append("q0#2", "p.png", base, "ann", Content(), after="q0", seconds=seconds)
    again = ChangeLog(path)
    assert [change.after for change in again.changes] == ["q0"] * 3
    assert again.seconds == {"q0#2": 5.5}


def test_half_a_surrogate_pair_can_be_saved(path):
    content = Content.parse({"question": json.loads('"a\\ud800b"')})
    ChangeLog(path).append("q0", "p.png", 0, "ann", content)
    assert ChangeLog(path).latest["q0"].content.question == "a?b"


# --- revisions ---------------------------------------------------------------------------------------


def test_a_change_on_an_old_revision_is_a_conflict_and_writes_nothing(path):
    journal = ChangeLog(path)
    append(journal, question="first")
    append(journal, base=1, annotator="ben", question="second")
    before = path.read_bytes()
    with pytest.raises(Conflict) as conflict:
        append(journal, base=1, question="late")
    assert conflict.value.latest.annotator == "ben"
    assert conflict.value.latest.content.question == "second"
    assert path.read_bytes() == before
    append(journal, row="q1", question="another row")


def test_two_servers_on_one_file_see_each_other(path):
    ann, ben = ChangeLog(path), ChangeLog(path)
    append(ann, question="by ann")
    with pytest.raises(Conflict):
        append(ben, question="by ben")
    append(ben, base=1, annotator="ben", question="by ben, who saw ann's")
    ann.refresh()
    assert ann.latest["q0"].content.question == "by ben, who saw ann's"
    assert [change.revision for change in ann.changes] == [1, 2]


def test_a_file_that_got_shorter_is_not_read_on(path):
    journal = ChangeLog(path)
    append(journal)
    path.write_text("")
    with pytest.raises(DataError, match="was cut short by another program"):
        journal.refresh()


def lose(path):
    path.unlink()


def lose_its_folder(path):
    path.parent.rename(path.parent.with_name("elsewhere"))


def replace(path):
    other = path.with_name("other")
    other.write_bytes(path.read_bytes() * 2)
    other.replace(path)


def rewrite(path):
    text = path.read_text().replace("by ann", "by nobody")
    with path.open("r+") as file:
        file.write(text * 2)


@pytest.mark.parametrize("act", [lose, lose_its_folder, replace, rewrite])
def test_a_file_that_is_no_longer_what_was_read_takes_no_change(tmp_path, act):
    path = tmp_path / "project" / "rows.jsonl.annotations.jsonl"
    path.parent.mkdir()
    journal = ChangeLog(path)
    append(journal, question="by ann")
    act(path)
    for ask in (journal.refresh, lambda: append(journal, base=1, question="by ben")):
        with pytest.raises(DataError, match=r"annotations\.jsonl"):
            ask()
    assert journal.latest["q0"].content.question == "by ann"
    assert not path.exists() or "by ben" not in path.read_text()


def test_a_file_that_is_not_there_yet_may_come(path):
    ann, ben = ChangeLog(path), ChangeLog(path)
    append(ann, question="by ann")
    ben.refresh()
    assert ben.latest["q0"].content.question == "by ann"


def test_a_file_that_cannot_be_written_is_told(tmp_path):
    folder = tmp_path / "gone"
    folder.mkdir()
    journal = ChangeLog(folder / "j.jsonl")
    (folder / "j.jsonl").mkdir()  # also the administrator of a machine cannot append to a folder
    with pytest.raises(DataError, match=r"j.jsonl cannot be written \(Is a directory\)"):
        append(journal)


# --- kills -------------------------------------------------------------------------------------------


def test_a_write_that_was_cut_short_costs_nothing_else(path):
    journal = ChangeLog(path)
    append(journal, question="one")
    append(journal, base=1, question="two")
    whole = path.read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    for end in [*range(last, len(whole), 23), len(whole) - 1]:
        path.write_bytes(whole[:end])
        again = ChangeLog(path)
        assert again.latest["q0"].content.question == "one"
        append(again, base=1, question="three")
        after = ChangeLog(path)
        assert after.latest["q0"].content.question == "three"
        # Without its end of line a change is whole and yet was never confirmed: it is read, and overwritten.
        assert after.skipped == (last < end < len(whole) - 1)


@pytest.mark.parametrize(
    "line",
    [
        b"null",
        b"{}",
        b"\xff\xfe",
        b'{"row": 1}',
        b'{"row": "q0", "image": "p", "annotator": "a", "time": "t"}',
    ],
)
def test_a_line_that_is_no_change_is_counted(path, line):
    append(ChangeLog(path), question="one")
    path.write_bytes(path.read_bytes() + line + b"\n\n")
    journal = ChangeLog(path)
    assert journal.skipped == 1
    assert journal.latest["q0"].content.question == "one"


def test_a_change_is_on_the_disk_before_it_is_confirmed(path, monkeypatch):
    synced = []
    real = os.fsync

    def fsync(descriptor):
        synced.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        assert b'"q0"' in path.read_bytes()
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    append(ChangeLog(path))
    assert synced == ["file", "folder"]  # the name of a new file is on the disk with its folder


WRITER = """
import sys
from pathlib import Path
from lfpc_trl.annotate.journal import Content, ChangeLog
journal = ChangeLog(Path(sys.argv[1]))
for base in range(10**6):
    journal.append("q0", "p.png", base, "ann", Content(question="x" * 5000))
    print(base + 1, flush=True)
"""


def test_a_killed_server_loses_nothing_that_it_confirmed(path):
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        text=True,
    )
    for _ in range(20):
        writer.stdout.readline()
    writer.send_signal(signal.SIGKILL)
    confirmed = 20 + len(writer.communicate()[0].split())
    journal = ChangeLog(path)
    assert journal.latest["q0"].revision >= confirmed
    assert [change.revision for change in journal.changes] == list(range(1, len(journal.changes) + 1))
    append(journal, base=journal.latest["q0"].revision)  # the lock of the dead is free


def _work(path, annotator, count):
    """Saves `count` changes to one row; on a conflict it looks again, as a person would."""
    read = ChangeLog._read

    def slow_read(self):
        torn = read(self)
        time.sleep(0.002)  # time for the other one to come in between, if there were no lock
        return torn

    ChangeLog._read = slow_read
    journal = ChangeLog(path)
    for number in range(count):
        while True:
            latest = journal.latest.get("q0")
            try:
                append(journal, base=latest.revision if latest else 0, annotator=annotator, note=str(number))
                break
            except Conflict:
                continue


def test_two_processes_at_once_lose_no_change(path):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_work, args=(path, name, 25)) for name in ("ann", "ben")]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    journal = ChangeLog(path)
    assert [change.revision for change in journal.changes] == list(range(1, 51))
    for name in ("ann", "ben"):
        notes = [change.content.note for change in journal.changes if change.annotator == name]
        assert notes == [str(number) for number in range(25)]
