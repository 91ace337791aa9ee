"""`--json` and `--quiet` of every command: one document on standard output, everything else on the other."""

import json
import shutil
import subprocess
import sys

import pytest

from lfpc_trl import cli
from lfpc_trl.doctor import Check
from lfpc_trl.progress import is_quiet
from tests import tiny
from tests.runs.test_export import make_run

pytestmark = pytest.mark.filterwarnings("default::ResourceWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Rows, a model, the output of a training, and two evaluations."""
    folder = tmp_path_factory.mktemp("results")
    tiny.make_rows(folder, 2, shown_size=[112, 84], targets=[[40, 42, 80, 84]])
    row = json.loads((folder / "rows.jsonl").read_text().splitlines()[0])
    small, tiny_ones = (
        [[40 + n, 42, 80 + n, 84] for n in range(3)],
        [[40 + n, 42, 58 + n, 60] for n in range(7)],
    )
    boxes = small + tiny_ones  # the mixture of LOCUS
    tiny.write_records(
        folder / "boxes.jsonl", [row | {"id": str(n), "targets": [box]} for n, box in enumerate(boxes)]
    )
    tiny.make_model(folder / "model", "qwen2_5_vl", chat_template=tiny.COMPACT)
    make_run(folder / "run", folder / "model", folder / "model", stage=1)
    words = ["eval", "--model", str(folder / "model"), "--data", str(folder / "rows.jsonl"), *EVALUATION]
    assert cli.main([*words, "--output", str(folder / "one")]) == 0
    shutil.copytree(folder / "one", folder / "two")
    return folder


EVALUATION = ["--budget", "12", "--conditions", "no_tool", "--max-new-tokens", "4"]
TRAINED = ["--config", "cpu-stage1", "--steps", "1", "--num_generations", "2", "--prompts_per_step", "1"]
TRAINED += ["--prompts_per_update", "1", "--response_tokens", "8", "--trajectory_tokens", "64"]
TRAINED += ["--crop_tokens", "8", "--per_device_train_batch_size", "2"]
ROWS = ["--data", "rows.jsonl"]
COMMANDS = {
    "demo": (["--output", "{out}"], {"output", "page", "results"}),
    "doctor": ([], {"findings"}),
    "prepare-model": (["--model", "model", "--output", "{out}"], {"output", "changes"}),
    "export": (["--model", "run", "--output", "{out}"], {"output", "card", "serve"}),
    "check-data": (ROWS, {"rows", "bad_rows", "problems", "warnings", "statistics"}),
    "train": (
        [*ROWS, *TRAINED, "--model", "model", "--output", "{out}"],
        {"output", "steps", "last_step"},
    ),
    "select-resolution": (
        [*ROWS, "--model", "model", "--ladder", "12,4", "--max-new-tokens", "4", "--output", "{out}.jsonl"],
        {
            *("output", "rows", "method", "levels", "tokens", "mean_tokens"),
            *("never_diverged", "wrong_at_full", "answers", "asked"),
        },
    ),
    "eval": (
        [*ROWS, "--model", "model", *EVALUATION, "--output", "{out}"],
        {"tables", "page", "evaluation"},
    ),
    "ask": (
        ["--model", "model", "--budget", "12", "--max-new-tokens", "4", "images/0.png", "What?"],
        {"question", "answer", "turns", "looks", "failures", "seconds", "tokens_read", "tokens_written"},
    ),
    "locus-data": (
        ["--data", "boxes.jsonl", "--output", "{out}.jsonl"],
        {"output", "counts", "left_out", "note"},
    ),
    "compare": (["one", "two", "--output", "{out}"], {"tables", "page", "notes", "comparison"}),
    "split": ([*ROWS, "--parts", "train=0.5", "test=0.5"], {"files", "parts", "alike", "leaks"}),
    "annotate": (["rows.jsonl", "--port", "0"], {"page"}),
    "view": (["one/trajectories", "--port", "0"], {"page"}),
    "convert": (
        ["--from", "rows", "--to", "verl", "--input", "rows.jsonl", "--output", "{out}.parquet"],
        {"output", "converted", "rejected", "rejects", "reasons", "need_judge"},
    ),
    "synthesize": (
        ["--rows", "1", "--size", "640x480", "--target-pixels", "8-12", "--output", "{out}"],
        {"output", "rows", "left_out"},
    ),
}


def lfpc(monkeypatch, folder, out, command, *more):
    """Run a line of the table where it is only told what is not (demo, pages) or not here (this machine)."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr("lfpc_trl.commands.doctor.diagnose", lambda: [Check("ok", "python", "3.11")])
    monkeypatch.setattr("lfpc_trl.demo.run.run", lambda **_: {"warm": {"accuracy": 0.5}})
    monkeypatch.setattr("uvicorn.Server.run", lambda *_, **__: None)
    words, _ = COMMANDS[command]
    return cli.main([command, *(word.format(out=out) for word in words), *more])


def test_the_table_has_every_command():
    assert list(COMMANDS) == list(cli.COMMANDS)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_prints_one_document_and_nothing_else(command, folder, tmp_path, monkeypatch, capsys):
    assert lfpc(monkeypatch, folder, tmp_path / "out", command, "--json") == 0
    [line] = capsys.readouterr().out.splitlines()
    assert set(json.loads(line)) == COMMANDS[command][1]
    (folder / "rows.jsonl.annotations.jsonl").unlink(missing_ok=True)


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_wrong_is_a_document_too(command, monkeypatch, capsys):
    monkeypatch.setattr(cli, "load", lambda _: Failing)
    assert cli.main([command, "--json", "--quiet"]) == 2
    told = capsys.readouterr()
    assert json.loads(told.out) == {"error": "no such file"}
    assert told.err == "words for people\nquiet\nlfpc: error: no such file\n"
    assert not is_quiet()


class Failing:
    """A command that finds nothing."""

    @staticmethod
    def main(words):
        from lfpc_trl.errors import UserError

        assert words == ["--json", "--quiet"]
        print("words for people")
        print("quiet" if is_quiet() else "loud")
        raise UserError("no such file")


def test_a_result_stands_where_something_was_found_all_the_same(folder, tmp_path, capsys):
    rows = (folder / "rows.jsonl").read_text().splitlines()
    bad = [json.dumps(json.loads(rows[0]) | {"answer": "", "image": str(folder / "images" / "0.png")})]
    (tmp_path / "bad.jsonl").write_text("\n".join(bad) + "\n")
    assert cli.main(["check-data", "--data", str(tmp_path / "bad.jsonl"), "--json"]) == 2
    told = capsys.readouterr()
    assert json.loads(told.out)["bad_rows"] == 1
    assert "1 of 1 rows are bad" in told.err


def test_options_that_are_not_known_are_a_document_too(capsys):
    assert cli.main(["split", "--dta", "rows.jsonl", "--json"]) == 2
    told = json.loads(capsys.readouterr().out)
    assert told == {"error": "unrecognized arguments: --dta rows.jsonl, did you mean --data?"}


def test_what_a_started_process_prints_stands_in_no_result():
    """In a real process: numbers of descriptors, not objects of Python."""
    code = (
        "import os, subprocess, sys\nfrom lfpc_trl.results import for_programs, tell_result\n"
        "with for_programs(True):\n"
        "    print('of python')\n    os.write(1, b'past python\\n')\n"
        "    subprocess.run(['echo', 'of a process'], check=True)\n"
        "    tell_result({'picture': 'caf\\u00e9'})\n"
        "print('after')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout.decode() == '{"picture": "café"}\nafter\n'
    assert sorted(done.stderr.decode().split("\n")) == ["", "of a process", "of python", "past python"]


def test_a_program_that_takes_the_place_of_the_command_tells_the_result():
    code = (
        "import os, sys\nfrom lfpc_trl.results import for_programs, hand_over, tell_result\n"
        "with for_programs('--json' in sys.argv):\n"
        "    if 'again' not in sys.argv:\n"
        "        hand_over()\n"
        "        os.execv(sys.executable, [sys.executable, '-c', sys.argv[-1], 'again', sys.argv[-1]])\n"
        "    print('for people')\n    tell_result({'done': True})\n"
    )
    done = subprocess.run([sys.executable, "-c", code, "--json", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ('{"done": true}\n', "for people\n")
