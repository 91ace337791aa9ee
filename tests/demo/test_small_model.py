"""The small model's tokenizer and template, and what the shipped checkpoint can do."""

import dataclasses
import itertools
import json
import os
import pickle
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest
import torch
from trl.chat_template_utils import is_chat_template_prefix_preserving, parse_response, supports_tool_calling

from lfpc_trl.data.rows import read_rows, with_shown_tokens
from lfpc_trl.demo import run, small_model, warm_up, world
from lfpc_trl.evaluate.in_process import evaluate
from lfpc_trl.models.families import family_of
from lfpc_trl.models.processors import factor, load_processor
from lfpc_trl.models.weights import load_model
from lfpc_trl.pictures.crops import BOX_ERRORS
from lfpc_trl.rollouts.crop_tool import CropSettings

ROOT = Path(__file__).parents[2]
WARM = Path(str(resources.files("lfpc_trl.demo") / "warm"))


@pytest.fixture(scope="module")
def processor():
    return load_processor(WARM)


def ids_of(processor, text):
    return processor.tokenizer(text, add_special_tokens=False)["input_ids"]


def test_the_template_speaks_tools_and_never_changes_earlier_turns(processor):
    assert supports_tool_calling(processor)
    assert is_chat_template_prefix_preserving(processor)


def test_a_call_takes_fifteen_tokens_and_is_parsed_back(processor):
    text = (
        "<think>near</think><tool_call>" + small_model.CALL_OPEN + "12, 34, 156, 301" + small_model.CALL_CLOSE
    )
    ids = ids_of(processor, text + "</tool_call><|im_end|>")
    assert len(ids) == 15
    turn = parse_response(processor.tokenizer, ids, prefix=ids_of(processor, "<|im_start|>assistant\n"))
    assert turn["content"] == "<think>near</think>"
    assert turn["tool_calls"][0]["function"]["arguments"] == {"bbox_2d": [12, 34, 156, 301]}


def test_the_shipped_tokenizer_is_the_one_that_the_script_builds(processor):
    """Else `--from-scratch` would train another model than the one shipped."""
    built = small_model.build_tokenizer([str({"error": text}) for text in BOX_ERRORS.values()])
    assert built.get_vocab() == processor.tokenizer.get_vocab()
    assert built.chat_template == processor.chat_template
    assert built.response_template == processor.tokenizer.response_template


def test_the_untrained_model_has_the_shape_of_the_shipped_one(processor):
    built = small_model.build_model(processor.tokenizer).state_dict()
    shipped = load_model(WARM).state_dict()
    assert {name: value.shape for name, value in built.items()} == {n: v.shape for n, v in shipped.items()}


def test_the_checkpoint_takes_less_than_five_megabytes():
    assert sum(file.stat().st_size for file in WARM.iterdir()) < 5_000_000


@pytest.fixture(scope="module")
def test_rows(tmp_path_factory, processor):
    folder = tmp_path_factory.mktemp("rows")
    list(world.make_pictures(folder, 16, seed=99, photos=world.UNSEEN_PHOTOS, name="test"))
    return with_shown_tokens(read_rows(folder / "test.jsonl"), run.COARSEST, factor=factor(processor))


@pytest.mark.slow
def test_the_shipped_checkpoint_reads_a_target_crop_and_speaks_the_format_but_seldom_crops_well(
    processor, test_rows
):
    torch.set_num_threads(1)
    outcome = evaluate(
        load_model(WARM),
        processor,
        test_rows,
        crop_settings=CropSettings(
            family_of(WARM).frame, factor(processor), crop_tokens=run.CROP_TOKENS, max_crops=2
        ),
        max_turns=3,
        max_new_tokens=48,
        temperature=run.TEMPERATURE,
        batch_size=48,
    ).metrics
    crops = outcome["tool_calls"]
    assert outcome["format"] > 0.95
    assert 0.2 < crops < 0.8
    # Rollouts that looked: where the right region came back, nearly all are right.
    assert outcome["accuracy_target_crop"] / crops > 0.85
    assert outcome["accuracy_without_tool"] < 0.1
    assert outcome["iou"] < 0.6


def test_the_drawing_of_scenes_can_be_sent_to_a_process():
    """Where processes are spawned, as in the demo's workers, everything they get is pickled."""
    phase = dataclasses.replace(warm_up.PHASES[-1], steps=1, batch=2)
    batches = pickle.loads(pickle.dumps(warm_up.Batches(phase, 0)))
    first, second = batches[0], warm_up.Batches(phase, 0)[0]
    assert torch.equal(first.model_inputs["input_ids"], second.model_inputs["input_ids"])


@pytest.mark.slow
def test_coordinates_are_taught_as_the_numbers_they_are():
    processor = warm_up.small_processor()
    ids = warm_up.number_ids(processor)
    assert [processor.tokenizer.decode([token]) for token in ids.tolist()] == [str(n) for n in range(768)]
    written = torch.tensor([ids[0], ids[9], ids[10], ids[503], ids[767]])
    assert warm_up.numbers_of(written, ids).tolist() == [0, 9, 10, 503, 767]


def test_the_warm_up_runs_through_every_kind_of_phase_and_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    """Stopped in the middle of a phase and at the first step of another: the same weights and figures."""
    torch.set_num_threads(1)
    monkeypatch.setattr(warm_up, "SAVE_EVERY", 2)
    kinds = {}
    for phase in warm_up.PHASES:
        kinds.setdefault(phase.kind, dataclasses.replace(phase, steps=3, batch=3))
    phases, straight, stopped = tuple(kinds.values()), tmp_path / "straight", tmp_path / "stopped"
    warm_up.warm_up(straight, phases=phases, workers=0)
    seen = []

    def stop(name, step, _steps, _figures):
        seen.append((name, step))
        if len(seen) in (3, 5):
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            warm_up.warm_up(stopped, phases=phases, on_step=stop, workers=0)
    warm_up.warm_up(stopped, phases=phases, on_step=stop, workers=0)
    # The third step was not saved, nor was the first one of the next phase.
    first, second, third = kinds
    assert seen[:6] == [(first, 1), (first, 2), (first, 3), (first, 3), (second, 1), (second, 1)]
    assert seen[-1] == (third, 3)
    ours, theirs = (load_model(folder).state_dict() for folder in (stopped, straight))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    logs = [
        [json.loads(line) | {"seconds": 0} for line in (folder / "warm-up.jsonl").read_text().splitlines()]
        for folder in (stopped, straight)
    ]
    assert logs[0] == logs[1]
    assert [(line["phase"], line["step"]) for line in logs[1]] == [
        (name, step) for name in kinds for step in (2, 3)
    ]
    assert load_processor(stopped).tokenizer.get_vocab() == load_processor(WARM).tokenizer.get_vocab()
    assert load_model(stopped).dtype == torch.float32


def test_scenes_are_the_same_whoever_draws_them():
    """Several processes share the steps of a phase; each batch depends on its step alone."""
    phase = dataclasses.replace(warm_up.PHASES[1], steps=4, batch=2)
    one, two = warm_up.Batches(phase, 0), warm_up.Batches(phase, 0)
    in_order = [one[step] for step in range(4)]
    for step in (3, 0):
        assert torch.equal(
            two[step].model_inputs["pixel_values"], in_order[step].model_inputs["pixel_values"]
        )
    values = [batch.model_inputs["pixel_values"] for batch in in_order]
    assert not any(a.shape == b.shape and torch.equal(a, b) for a, b in itertools.pairwise(values))


def test_a_wider_and_deeper_model_is_built_from_the_same_parts():
    tokenizer = warm_up.small_processor().tokenizer
    small, large = small_model.build_model(tokenizer), small_model.build_model(tokenizer, width=2, layers=6)
    text = large.config.text_config
    assert (text.hidden_size, text.num_hidden_layers, large.config.vision_config.num_heads) == (256, 6, 6)
    assert text.hidden_size // text.num_attention_heads == small_model.HEAD
    assert large.num_parameters() > 3 * small.num_parameters()


@pytest.mark.slow
def test_the_script_for_a_larger_model_runs_in_its_smallest_size(tmp_path):
    words = ["benchmarks/larger_model.py", "--output", str(tmp_path), "--quick", "--device", "cpu"]
    path = os.pathsep.join([str(ROOT), str(ROOT / "integrations")])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    first_cells = {line.split(" |")[0] for line in done.stdout.splitlines()}
    assert {"| warm", "| stage1", "| stage2", "| control"} <= first_cells
    assert (tmp_path / "page.md").read_text() in done.stdout
