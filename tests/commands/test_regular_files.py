"""A pipe where a file should be is refused by name: reading it would wait for ever."""

import os
import signal

import pytest

from lfpc_trl import cli
from lfpc_trl.json_values import read_json
from lfpc_trl.models.families import family_of
from tests import tiny

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")


@pytest.fixture(autouse=True)
def alarm():
    """An error in place of a test run that waits for ever."""

    def stop(*_):
        raise TimeoutError("something waits for a pipe")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def test_json_is_read_from_regular_files_alone(tmp_path):
    os.mkfifo(tmp_path / "a.json")
    for path in (tmp_path / "a.json", tmp_path):
        with pytest.raises(ValueError, match=r"^not a regular file$"):
            read_json(path)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "missing.json")


def test_boxes_of_coco_in_a_pipe(tmp_path, capsys):
    os.mkfifo(tmp_path / "boxes.json")
    arguments = ["locus-data", "--data", str(tmp_path / "boxes.json"), "--images", str(tmp_path)]
    assert cli.main([*arguments, "--output", str(tmp_path / "cues.jsonl")]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.endswith("not a COCO annotation file (ValueError: not a regular file)")


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer.json"])
def test_a_model_directory_with_a_pipe(name, tmp_path, capsys):
    model = tiny.make_model(tmp_path / "model", "qwen2_5_vl")
    assert family_of(model).model_type == "qwen2_5_vl"
    (model / name).unlink(missing_ok=True)
    os.mkfifo(model / name)
    assert cli.main(["prepare-model", "--model", str(model), "--output", str(tmp_path / "new")]) == 2
    *_, line = capsys.readouterr().err.splitlines()  # after the progress of the model that was made
    assert str(model / name) in line
    assert "not a regular file" in line
    assert not (tmp_path / "new").exists()
