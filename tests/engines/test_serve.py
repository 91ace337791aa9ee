"""The real `vllm serve`, started with the command that `lfpc export` prints, asked as `--endpoint` asks.

Everything is greedy, and equal to what the same command gives with the same directory and transformers.
"""

import dataclasses
import json
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed")
pytest.importorskip("openai", reason="the client of such servers is not installed")

from PIL import Image
from safetensors.torch import load_file, save_file

from lfpc_trl import cli
from lfpc_trl.data.rows import write_rows
from lfpc_trl.evaluate.outputs import read_columns
from lfpc_trl.models.processors import load_processor
from lfpc_trl.train.recipe import load_recipe
from tests.engines.record import record
from tests.engines.serving import served

COUNTED = "the server counts 75 tokens in the prompt, the model's processor 75, 54 of them for the picture"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The shipped checkpoint as the output of a training, exported; and the command that was printed.

    The word with which it begins to look is a little louder: the checkpoint itself never looks when it is
    greedy.
    """
    folder = tmp_path_factory.mktemp("exported")
    warm = Path(str(resources.files("lfpc_trl.demo") / "warm"))
    run = folder / "run"
    shutil.copytree(warm, run)
    near = load_processor(run).tokenizer.convert_tokens_to_ids("near")
    weights = load_file(run / "model.safetensors")
    for name in ("lm_head.weight", "model.embed_tokens.weight"):
        weights[name][near] *= 1.1
    save_file(weights, run / "model.safetensors", metadata={"format": "pt"})
    recipe = load_recipe("cpu-stage1", crop_tokens=64, max_crops=2, max_turns=3, response_tokens=48).flat()
    manifest = {"stage": 1, "recipe": recipe, "frame": "shown", "data": {"rows": 84, "sha256": "b" * 64}}
    manifest |= {"model": {"directory": str(warm), "sha256": "a" * 64}, "versions": {}, "finished": True}
    (run / "manifest.json").write_text(json.dumps(manifest))
    (run / "metrics.jsonl").write_text("")
    words = ["export", "--model", str(run), "--output", str(folder / "signs"), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "lfpc_trl.cli", *words], capture_output=True, text=True, check=True
    )
    return folder / "signs", json.loads(done.stdout)["serve"]


@pytest.fixture(scope="module")
def model_dir(exported):
    return exported[0]


@pytest.fixture(scope="module")
def url(exported, tmp_path_factory):
    with served(exported[1], tmp_path_factory.mktemp("served")) as address:
        yield address


@pytest.fixture(scope="module")
def data(signs, tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "signs.jsonl"
    write_rows(signs, path)
    return path


def lfpc(capsys, *words):
    """The results that a command tells, and what else it says."""
    status = cli.main([str(word) for word in (*words, "--json")])
    told = capsys.readouterr()
    return status, [json.loads(line) for line in told.out.splitlines()], told.err


HOW = ["--budget", "54", "--crop-tokens", "64", "--max-turns", "3", "--max-new-tokens", "48"]


def without(found, *names):
    """A JSON value without what two runs need not share."""
    if isinstance(found, dict):
        return {key: without(each, *names) for key, each in found.items() if not any(n in key for n in names)}
    return [without(each, *names) for each in found] if isinstance(found, list) else found


def test_a_question_has_the_same_looks_and_answer(url, model_dir, signs, tmp_path, capsys):
    """The calls that the server's parser reads, the crops, every word, and every token that was read."""
    for number, row in enumerate(signs[:2]):
        asked = [*HOW, row.image, row.question]
        folders = [tmp_path / f"{number}-{name}" for name in ("served", "here")]
        there, here = ["--endpoint", url, "--save", folders[0]], ["--save", folders[1]]
        status, [theirs], said = lfpc(capsys, "ask", "--model", model_dir, *there, *asked)
        assert status == 0
        assert COUNTED in said
        status, [ours], _ = lfpc(capsys, "ask", "--model", model_dir, *here, *asked)
        assert status == 0
        assert without(theirs, "seconds", "tokens_written") == without(ours, "seconds", "tokens_written")
        assert len(ours["looks"]) == 1
        crops = [sorted(folder.glob("*.png")) for folder in folders]
        assert len(crops[0]) == len(crops[1]) == 1
        assert Image.open(crops[0][0]).tobytes() == Image.open(crops[1][0]).tobytes()
    record(
        "lfpc ask, greedy, with crops", "vLLM, vllm serve", equals="transformers, words, crops, prompt tokens"
    )


def test_an_evaluation_has_the_same_figures(url, model_dir, data, signs, tmp_path, capsys):
    words = ["eval", "--model", model_dir, "--data", data, *HOW, "--conditions", "predicted,noise,no_tool"]
    there = ["--endpoint", url, "--output", tmp_path / "served"]
    status, [theirs], said = lfpc(capsys, *words, *there)
    assert status == 0
    assert COUNTED in said
    status, [ours], _ = lfpc(capsys, *words, "--output", tmp_path / "here")
    assert status == 0
    found, expected = (each["evaluation"]["figures"] for each in (theirs, ours))
    assert without(found, "seconds", "tokens") == without(expected, "seconds", "tokens")
    read = [
        sorted(map(str, zip(*read_columns(tmp_path / name, COLUMNS).values(), strict=True)))
        for name in ("served", "here")
    ]
    assert read[0] == read[1]
    assert len(read[0]) == 3 * len(signs)
    tokens = [each["evaluation"]["tokens"]["prompt_tokens"] for each in (theirs, ours)]
    assert tokens[0] == tokens[1]
    record("lfpc eval, greedy, 3 conditions", "vLLM, vllm serve", equals="transformers, every answer and box")


COLUMNS = ("row_id", "condition", "boxes", "answer")


def test_a_selection_has_the_same_rows_and_a_cost(url, model_dir, data, tmp_path, capsys):
    words = ["select-resolution", "--model", model_dir, "--data", data, "--ladder", "216,108,54"]
    words += ["--max-new-tokens", "48"]
    there = ["--endpoint", url, "--endpoint-price", "1,10", "--output", tmp_path / "served.jsonl"]
    status, [theirs], _ = lfpc(capsys, *words, *there)
    assert status == 0
    status, [ours], _ = lfpc(capsys, *words, "--output", tmp_path / "here.jsonl")
    assert status == 0
    assert (tmp_path / "served.jsonl").read_text() == (tmp_path / "here.jsonl").read_text()
    assert theirs["asked"]["requests"] == ours["asked"]["requests"] == ours["answers"]
    tokens = [each["asked"]["tokens"]["prompt_tokens"] for each in (theirs, ours)]
    assert tokens[0] == tokens[1]
    assert theirs["asked"]["cost"] > 0
    record("lfpc select-resolution, greedy", "vLLM, vllm serve", equals="transformers, every row")


@pytest.mark.parametrize(
    ("side", "said"), [("28", "the difference is the 42 that it must be"), ("32", "warning")]
)
def test_without_the_processor_two_sizes_are_compared(url, signs, capsys, side, said):
    words = ["ask", "--endpoint", url, "--frame", "shown", "--token-side", side, *HOW]
    status, [_], err = lfpc(capsys, *words, signs[0].image, signs[0].question)
    assert status == 0
    [line] = [line for line in err.splitlines() if "the server counts" in line]
    assert said in line
    assert line.startswith("warning") == (side == "32")


# --- what goes wrong ---------------------------------------------------------------------------------


def test_a_wrong_name_of_the_model_is_told_with_the_right_one(url, model_dir, signs, capsys):
    words = ["ask", "--endpoint", url, "--endpoint-model", f"{model_dir}s", "--model", model_dir, *HOW]
    status, [told], err = lfpc(capsys, *words, signs[0].image, signs[0].question)
    assert status == 2
    assert f"--endpoint-model must be one of {model_dir}, got '{model_dir}s', did you mean" in err
    assert told["error"] in err


def test_what_does_not_fit_is_the_server_s_own_error(url, signs, tmp_path, capsys):
    """A prompt, then a turn, that is longer than its context: its picture is named."""
    long = dataclasses.replace(signs[0], question="What does it say? " * 400)
    write_rows([long, *signs[3:4]], tmp_path / "two.jsonl")
    words = ["eval", "--endpoint", url, "--frame", "shown", "--token-side", "28", "--budget", "54"]
    words += ["--data", tmp_path / "two.jsonl", "--conditions", "no_tool"]
    for limit in ("48", "4000"):
        output = tmp_path / limit
        status, [told], _ = lfpc(capsys, *words, "--max-new-tokens", limit, "--output", output)
        assert status == 2
        assert "the server refuses it (BadRequestError: " in told["error"]
        assert "2048" in told["error"]


def test_a_turn_that_a_limit_ended_says_so(url, data, tmp_path, capsys):
    words = ["eval", "--endpoint", url, "--frame", "shown", "--token-side", "28", "--budget", "54"]
    words += ["--data", data, "--output", tmp_path / "eval", "--max-new-tokens", "2"]
    status, _, _ = lfpc(capsys, *words, "--conditions", "no_tool")
    assert status == 0
    found = read_columns(tmp_path / "eval", ("ending", "answer"))
    assert set(found["ending"]) == {"cut"}
    assert set(found["answer"]) == {None}


def test_a_killed_evaluation_goes_on(url, model_dir, data, signs, tmp_path, capsys):
    """Killed by its journal: half of it is there, and one line is cut off."""
    words = [
        "eval",
        "--endpoint",
        url,
        "--model",
        model_dir,
        "--data",
        data,
        *HOW,
        "--conditions",
        "predicted",
    ]
    words += ["--output", tmp_path / "eval"]
    status, [whole], _ = lfpc(capsys, *words)
    assert status == 0
    [journal] = (tmp_path / "eval" / "journal").glob("*.jsonl")
    lines = journal.read_bytes().splitlines(keepends=True)
    assert len(lines) == 1 + len(signs)
    journal.write_bytes(b"".join(lines[:6]) + lines[6][:20])
    status, [again], said = lfpc(capsys, *words)
    assert status == 0
    assert "going on: 5 rollouts are there already" in said
    times = ("seconds", "wall")
    assert without(again["evaluation"], *times) == without(whole["evaluation"], *times)
    record("lfpc eval, greedy", "vLLM, vllm serve", resumes="the run that was not stopped")
