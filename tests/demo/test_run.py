"""`lfpc demo`: what it refuses, and a whole run in the smallest size."""

import json

import pytest

from lfpc_trl import cli
from lfpc_trl.demo import run


@pytest.mark.parametrize(
    ("before", "options", "message"),
    [
        ({"seed": 0, "quick": False, "from_scratch": False}, [], "already holds a demo"),
        ({"seed": 1, "quick": False, "from_scratch": False}, ["--resume"], "seed was 1, now 0"),
        (None, ["--resume"], "no demo to resume here"),
    ],
)
def test_a_directory_that_does_not_fit_is_refused(tmp_path, capsys, before, options, message):
    if before is not None:
        (tmp_path / run.MANIFEST).write_text(json.dumps(before))
    assert cli.main(["demo", "--output", str(tmp_path), *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_directory_with_other_files_is_refused(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("years of work")
    assert cli.main(["demo", "--output", str(tmp_path)]) == 2
    assert "must be new or empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_stage_2_and_control_differ_in_the_reward_alone():
    second, control = (run.recipe_of(name, run.FULL, 0).flat() for name in ("stage2", "control"))
    differing = {name for name in second | control if second.get(name) != control.get(name)}
    assert differing == {"stage", "grounding_weight"}
    assert control["grounding_weight"] == 0


@pytest.mark.slow
@pytest.mark.filterwarnings("default::ResourceWarning")
def test_a_whole_demo_in_the_smallest_size_and_again_after_a_stop(tmp_path, monkeypatch, capsys):
    scale = run.Scale(2, 2, 3, 2, 1, 1, 2, 2)
    monkeypatch.setattr(run, "QUICK", scale)
    output = tmp_path / "demo"
    assert cli.main(["demo", "--quick", "--output", str(output)]) == 0
    assert "report.html" in capsys.readouterr().out
    results = json.loads((output / "results.json").read_text())
    keys = {
        *("accuracy", "accuracy_without_tool", "accuracy_noise_crop", "accuracy_target_crop", "tool_calls"),
        *("iou", "overlap", "bbox_ratio", "crop_tokens", "format", "questions"),
    }
    for name in ("warm", "stage1", "stage2", "control"):
        assert keys <= set(results[name])
        assert results[name]["questions"] == 9
    assert results["seconds"]["all"] > 0
    assert "http://" not in (output / "report.html").read_text().replace("http://www.w3.org", "")
    # Resumed: the trainings are finished and stay as they are; the same seed gives the same figures.
    weights = (output / "stage2" / "model.safetensors").stat().st_mtime_ns
    assert cli.main(["demo", "--quick", "--output", str(output), "--resume"]) == 0
    assert (output / "stage2" / "model.safetensors").stat().st_mtime_ns == weights
    again = json.loads((output / "results.json").read_text())
    assert {**again, "seconds": None} == {**results, "seconds": None}
