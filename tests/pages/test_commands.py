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
from tests.pages.conftest import ENVIRONMENT, SIGN, trajectory, write_trajectories


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
    ("another suffix", ["annotate", "rows.csv"], "rows.csv: data must be a .jsonl or .parquet file"),
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
