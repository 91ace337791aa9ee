"""The command line: exit codes, one clear line, nothing heavy before it is needed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lfpc_trl import cli
from tests.tiny import make_rows


def python(*arguments):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)


def test_help_loads_nothing_heavy():
    code = (
        "import sys\nfrom lfpc_trl import cli\n"
        "assert cli.main(['--help']) == 0\n"
        "heavy = {'torch', 'transformers', 'trl', 'datasets', 'numba', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    for command in cli.COMMANDS:
        assert command in done.stdout


def test_a_user_error_in_the_real_process(tmp_path):
    data = make_rows(tmp_path, 1, answer="")
    done = python(
        *("-m", "lfpc_trl.cli", "train", "--config", "cpu-stage1", "--model", str(tmp_path)),
        *("--data", str(data), "--output", str(tmp_path / "out")),
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (f"lfpc: error: {data} row 1: answer must be a text that is not empty, got ''\n")
    assert not (tmp_path / "out").exists()


def train(tmp_path, *options, config="cpu-stage1", **columns):
    data = make_rows(tmp_path, 2, **columns)
    (tmp_path / "llama").mkdir(exist_ok=True)
    (tmp_path / "llama" / "config.json").write_text('{"model_type": "llama"}')
    arguments = {
        "--config": config,
        "--model": tmp_path / "llama",
        "--data": data,
        "--output": tmp_path / "out",
    }
    return cli.main(["train", *(str(part) for pair in arguments.items() for part in pair), *options])


@pytest.mark.parametrize(
    ("options", "columns", "message"),
    [
        ([], {}, "llama/config.json: model_type 'llama' is not supported"),
        ([], {"image": "gone.png"}, "rows.jsonl row 1: image must exist"),
        (["--shown-tokens", "0"], {}, "--shown-tokens must be at least 1, got 0"),
        (["--num-generations", "1"], {}, "num_generations must be at least 2, got 1"),
        (["--steps", "0"], {}, "steps must be at least 1"),
        (["--steps", "many"], {}, "argument --steps: invalid int value: 'many'"),
        (["--setps", "3"], {}, "unknown setting setps, did you mean steps?"),
        (["--lr", "3"], {}, "unknown setting lr, did you mean learning_rate?"),
        (["--num-epochs", "3"], {}, "unknown setting num_epochs, did you mean steps?"),
        (
            ["--trust_remote_code", "true"],
            {},
            "trust_remote_code cannot be set: code in a model directory",
        ),
        (["--max_steps", "3"], {}, "max_steps cannot be set: it follows from steps"),
        (["--config", "lora-1x24gb-stage1"], {}, "--config is given twice"),
        (["--num_processes", "3"], {}, "must be a multiple of per_device_train_batch_size times processes"),
    ],
)
def test_bad_input_of_train_is_one_line_and_exit_code_2(tmp_path, capsys, options, columns, message):
    assert train(tmp_path, *options, **columns) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("lfpc: error: ")
    assert message in output.err
    assert output.err.count("\n") == 1


def test_several_processes_run_the_same_command_again(tmp_path, model_dir, data_file, monkeypatch):
    class ReplacedError(Exception):
        """Stands for becoming another program."""

    def become(command):
        raise ReplacedError(command)

    monkeypatch.setattr("lfpc_trl.train.launch.replace_process", become)
    arguments = [
        *("train", "--config", "cpu-stage1", "--num_processes", "2", "--per_device_train_batch_size", "2"),
        *(
            "--model",
            str(model_dir),
            "--data",
            str(data_file),
            "--output",
            str(tmp_path / "out"),
        ),
    ]
    with pytest.raises(ReplacedError) as replaced:
        cli.main(arguments)
    [command] = replaced.value.args
    assert command[1:] == [
        *("-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"),
        *("-m", "lfpc_trl.cli", *arguments),
    ]
    assert not (tmp_path / "out").exists()


def test_stage_2_asks_for_targets_before_anything_is_loaded(tmp_path, capsys):
    assert train(tmp_path, config="cpu-stage2", targets=None) == 2
    assert "row 1: targets are needed for stage 2" in capsys.readouterr().err


def test_without_the_training_extra_it_is_named(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "trl" else name)
    assert cli.main(["train"]) == 2
    assert capsys.readouterr().err == (
        "lfpc: error: trl not installed; in the folder of your clone: pip install '.[trl]'\n"
    )


def test_train_needs_a_recipe_a_model_data_and_an_output(capsys):
    assert cli.main(["train", "--model", "m"]) == 2
    assert "--config is needed: a .yaml file or one of cpu-stage1, " in capsys.readouterr().err
    assert cli.main(["train", "--config", "cpu-stage1", "--model", "m", "--data", "d"]) == 2
    assert "--output is needed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "a command is needed"),
        (["dance"], "unknown command 'dance'"),
        (["anotate"], "unknown command 'anotate', did you mean annotate?"),
    ],
)
def test_without_a_known_command_all_are_listed(arguments, problem, capsys):
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("usage: lfpc COMMAND")
    assert error.endswith(f"lfpc: error: {problem}\n")


def select(tmp_path, model, *options):
    arguments = {"--model": model, "--data": tmp_path / "rows.jsonl", "--output": tmp_path / "out.jsonl"}
    return cli.main(
        ["select-resolution", *(str(part) for pair in arguments.items() for part in pair), *options]
    )


def test_select_resolution_writes_rows_that_train_can_read(tmp_path, model_dir, capsys):
    make_rows(tmp_path, 2, shown_size=None)
    assert select(tmp_path, model_dir, "--coarsest", "4", "--max-new-tokens", "4", "--threads", "1") == 0
    records = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert all(
        {"shown_size", "selected_level", "diverged", "right_at_full"} <= set(record) for record in records
    )
    assert "rows: 2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--coarsest", "0"], "needs 1 <= coarsest <= finest"),
        (["--finest", "3", "--coarsest", "4"], "needs 1 <= coarsest <= finest, got coarsest 4 and finest 3"),
        (["--batch-size", "0"], "--batch-size must be at least 1"),
        (["--output", "out.csv"], "rows are written to a .jsonl or .parquet file"),
    ],
)
def test_bad_input_of_select_resolution(tmp_path, capsys, options, message):
    make_rows(tmp_path, 1)
    assert select(tmp_path, tmp_path, *options) == 2
    assert message in capsys.readouterr().err


def test_select_resolution_never_overwrites(tmp_path, capsys):
    make_rows(tmp_path, 1)
    (tmp_path / "out.jsonl").write_text("")
    assert select(tmp_path, tmp_path) == 2
    assert "already exists" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("system", "driver", "told"), [("Linux", None, True), ("Linux", "/nvidia-smi", False)]
)
def test_without_a_gpu_the_small_build_of_torch_is_named_before_the_large_one_comes(
    monkeypatch, capsys, system, driver, told
):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "torch" else name)
    monkeypatch.setattr("platform.system", lambda: system)
    monkeypatch.setattr("shutil.which", lambda _: driver)
    assert cli.main(["train"]) == 2
    assert ("PyTorch's CPU build first, see pytorch.org/get-started" in capsys.readouterr().err) == told


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_the_version_is_told(capsys, option):
    assert cli.main([option]) == 0
    assert capsys.readouterr().out.startswith("lfpc ")


def test_nothing_tells_to_install_what_is_on_no_index():
    root = Path(cli.__file__).parents[2]
    places = [*root.glob("integrations/**/*.py"), *root.glob("benchmarks/**/*"), *root.glob("docs/**/*.md")]
    told = [path for path in places if path.is_file() and b"lfpc-rewards[" in path.read_bytes()]
    assert told == []


@pytest.mark.parametrize(
    ("given", "meant"), [("--modle", "--model"), ("--batch_size", "--batch-size"), ("--out", "--output")]
)
def test_an_unknown_option_comes_with_the_one_that_was_meant(capsys, given, meant):
    assert select(Path(), Path(), given, "3") == 2
    said = f"lfpc: error: unrecognized arguments: {given} 3, did you mean {meant}?\n"
    assert capsys.readouterr().err == said


def test_a_full_disk_is_one_line(monkeypatch, capsys):
    def full(_):
        raise OSError(28, "No space left on device", "journal.jsonl")

    monkeypatch.setattr(cli, "load", full)
    assert cli.main(["eval"]) == 2
    said = "lfpc: error: cannot write, No space left on device (journal.jsonl)\n"
    assert capsys.readouterr().err == said
