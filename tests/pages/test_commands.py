"""`lfpc annotate` and `lfpc view` as they are called."""

import json
import signal
import subprocess
import sys
import urllib.request

import pytest

from lfpc_trl import cli
from lfpc_trl.annotate.journal import Content
from lfpc_trl.annotate.project import Project
from lfpc_trl.data.rows import read_rows
from tests.pages.conftest import ENVIRONMENT, SIGN, noise, trajectory, write_trajectories


@pytest.fixture
def half_done(rows_file):
    project = Project(rows_file)
    targets = (tuple(map(tuple, SIGN)),)
    project.save(project.items[1], 0, "ann", Content("What is 1?", ("KR",), None, targets, "done"))
    return rows_file


def test_finished_rows_are_exported_and_the_others_listed(half_done, tmp_path, capsys):
    out = tmp_path / "boxes.jsonl"
    assert cli.main(["annotate", str(half_done), "--export", str(out)]) == 0
    said = capsys.readouterr()
    assert said.out == f"{out}: 1 rows, left out 2\n"
    assert said.err.splitlines() == [
        "row q0: open, targets are needed for stage 2, got none",
        "row q2: open, targets are needed for stage 2, got none",
    ]
    [row] = read_rows(out, require_targets=True)
    assert (row.id, row.regions[0].tolist()) == ("q1", SIGN)


def test_a_broken_picture_does_not_hold_up_the_others_and_its_row_is_named(half_done, tmp_path, capsys):
    out = tmp_path / "boxes.jsonl"
    (tmp_path / "picture-0.png").write_bytes(b"no picture")
    assert cli.main(["annotate", str(half_done), "--export", str(out)]) == 0
    said = capsys.readouterr()
    assert said.out == f"{out}: 1 rows, left out 1\n"
    assert said.err.startswith(f"{half_done} row 1: image must be readable, got ")
    assert [row.id for row in read_rows(out)] == ["q1"]


@pytest.mark.parametrize("as_folder", [False, True])
def test_a_row_that_is_done_is_named_when_its_picture_is_gone(half_done, tmp_path, capsys, as_folder):
    source, name = half_done, "q2"
    targets = (tuple(map(tuple, SIGN)),)
    if as_folder:
        source, name = tmp_path / "pictures", "picture-2.png"
        source.mkdir()
        for number in (1, 2):
            (source / f"picture-{number}.png").write_bytes((tmp_path / f"picture-{number}.png").read_bytes())
    project = Project(source)
    for item in project.items[-2:]:
        done = Content("What is it?", ("KR",), None, targets, "done")
        project.save(item, project.revision(item), "ann", done)
    project.items[-1].image.unlink()
    out = tmp_path / "boxes.jsonl"
    assert cli.main(["annotate", str(source), "--export", str(out)]) == 0
    said = capsys.readouterr()
    assert f"row {name}: done, but it cannot be exported" in said.err
    assert "picture-2.png" in said.err
    assert "(and 1 that are done but cannot be used, see above)" in said.out
    assert len(read_rows(out)) == 1


def test_a_row_that_no_longer_fits_its_picture_is_named_and_the_others_are_exported(
    half_done, tmp_path, capsys
):
    project = Project(half_done)
    targets = (tuple(map(tuple, SIGN)),)
    project.save(project.items[0], 0, "ann", Content("What is 0?", ("KR",), None, targets, "done"))
    noise((150, 120)).save(tmp_path / "picture-0.png")
    out = tmp_path / "boxes.jsonl"
    assert cli.main(["annotate", str(half_done), "--export", str(out)]) == 0
    assert "row q0: targets must lie inside the picture (150 x 120 pixels)" in capsys.readouterr().err
    assert [row.id for row in read_rows(out)] == ["q1"]


def test_a_full_disk_leaves_no_half_of_an_export(half_done, tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    out = tmp_path / "boxes.jsonl"
    assert cli.main(["annotate", str(half_done), "--export", str(out)]) == 2
    assert capsys.readouterr().err.endswith(
        f"lfpc: error: {out}: cannot be written (No space left on device)\n"
    )
    assert not [path for path in tmp_path.iterdir() if "boxes.jsonl" in path.name]


def test_an_export_overwrites_nothing(half_done, tmp_path, capsys):
    (tmp_path / "boxes.jsonl").write_text("mine")
    assert cli.main(["annotate", str(half_done), "--export", str(tmp_path / "boxes.jsonl")]) == 2
    assert "already exists" in capsys.readouterr().err
    assert (tmp_path / "boxes.jsonl").read_text() == "mine"


def test_a_line_that_was_cut_short_is_reported(half_done, tmp_path, capsys):
    journal = half_done.with_name("rows.jsonl.annotations.jsonl")
    journal.write_text('{"row": "q0", "ima\n' + journal.read_text())
    assert cli.main(["annotate", str(half_done), "--export", str(tmp_path / "boxes.jsonl")]) == 0
    assert "skipped 1 line(s) that hold no change" in capsys.readouterr().err


BAD = [
    ("no source", ["annotate", "nowhere.jsonl"], "nowhere.jsonl: no such file"),
    ("another suffix", ["annotate", "notes.txt"], "notes.txt: data must be a folder or a file (.jsonl, "),
    ("a name", ["annotate", "row.jsonl"], "row.jsonl: no such file or folder, did you mean 'rows.jsonl'?"),
    ("no folder", ["annotate", "nowhere/"], "nowhere: no such file or folder"),
    ("a folder", ["annotate", "night-picture/"], "night-picture: no such file or folder, did you mean 'ni"),
    (
        "no budget",
        ["annotate", "rows.jsonl", "--shown-tokens", "0"],
        "--shown-tokens must be at least 1, got 0",
    ),
    (
        "nothing done",
        ["annotate", "rows.jsonl", "--export", "o.jsonl"],
        "rows.jsonl: no row is done, nothing to export",
    ),
    (
        "another suffix of the export",
        ["annotate", "done.jsonl", "--export", "o.csv"],
        "o.csv: rows are written to a",
    ),
    (
        "no trajectories to start from",
        ["annotate", "rows.jsonl", "--prefill", "."],
        ".: holds no trajectories (.parquet)",
    ),
    ("no run", ["view", "nowhere"], "nowhere: no such file or directory"),
    ("an empty run", ["view", "."], ".: holds neither trajectories (.parquet) nor metrics.jsonl"),
    ("three runs", ["view", ".", ".", "."], "one run or two side by side, got 3"),
    ("no such rows", ["view", "t.parquet", "--data", "nowhere.jsonl"], "nowhere.jsonl: no such file"),
]


@pytest.mark.parametrize(("_", "arguments", "message"), BAD, ids=[case[0] for case in BAD])
def test_what_the_user_can_put_right_is_one_line(
    rows_file, tmp_path, monkeypatch, capsys, _, arguments, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("a,b")
    (tmp_path / "night-pictures").mkdir()
    if "t.parquet" in arguments:
        write_trajectories(tmp_path / "t.parquet", [trajectory()])
    if "done.jsonl" in arguments:
        rows = [json.loads(line) | {"targets": SIGN} for line in rows_file.read_text().splitlines()]
        (tmp_path / "done.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert cli.main(arguments) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"lfpc: error: {message}")


def test_a_server_answers_and_ctrl_c_ends_it(rows_file, serve):
    server = serve("annotate", rows_file)
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    with browser.open(server.url) as answer:
        assert b"<title>lfpc annotate</title>" in answer.read()
    server.process.send_signal(signal.SIGINT)
    out, err = server.process.communicate(timeout=20)
    assert server.process.returncode == 0
    assert out.splitlines()[-1] == f"every change is in {rows_file}.annotations.jsonl"
    assert err == ""


def test_the_pages_need_no_torch():
    code = (
        "import sys\n"
        "import lfpc_trl.annotate.app, lfpc_trl.view.app\n"
        "import lfpc_trl.commands.annotate, lfpc_trl.commands.view\n"
        "assert not {'torch', 'transformers', 'trl', 'datasets'} & set(sys.modules)\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
