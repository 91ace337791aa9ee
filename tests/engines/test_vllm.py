"""The real vLLM on the CPU, in each place where a person would use it, against transformers.

TRL's weight sync cannot work with vLLM's build for CPUs, which packs the weights when it has loaded them: the
training is proven at learning rate 0, generation, prompts and log-probabilities of whole rollouts. Whether
new weights arrive is not proven here.
"""

import dataclasses
import json
import subprocess
import sys

import pytest
from PIL import Image
from transformers import AutoProcessor

from lfpc_rewards import Frame
from lfpc_rewards.parsing import is_image
from lfpc_trl import cli
from lfpc_trl.data.rows import write_rows
from lfpc_trl.demo.small_model import CALL_CLOSE, CALL_OPEN
from lfpc_trl.errors import UserError
from lfpc_trl.models.engines import (
    PromptLimits,
    Refused,
    TransformersEngine,
    VllmEngine,
    image_token_id,
)
from lfpc_trl.models.processors import load_processor
from lfpc_trl.models.weights import load_model
from lfpc_trl.rollouts.crop_tool import TOOL_NAME, CropSettings
from lfpc_trl.rollouts.generate import Job, RolloutSettings, generate_rollouts, stream_rollouts
from lfpc_trl.runs.directory import read_metrics
from lfpc_trl.select.ask import AskSettings, LadderItem, LadderWork
from lfpc_trl.select.ladder import Ladder
from lfpc_trl.train.colocated import ColocatedEngine
from lfpc_trl.train.recipe import load_recipe
from lfpc_trl.train.run import train
from tests.engines.bfloat16 import ONE_STEP
from tests.engines.record import record

SamplingParams = pytest.importorskip("vllm", reason="vLLM is not installed").SamplingParams

CROPS = CropSettings(Frame.SHOWN, 28, crop_tokens=64, max_crops=2)


@pytest.fixture(scope="module")
def processor(shipped_dir):
    return load_processor(shipped_dir)


@pytest.fixture(scope="module")
def engine(one_engine, shipped_dir, processor):
    return VllmEngine(shipped_dir, processor, PromptLimits(pictures=4, picture_tokens=216, tokens=2048))


@pytest.fixture(scope="module")
def plain(shipped_dir, processor):
    return TransformersEngine(load_model(shipped_dir), processor)


@pytest.fixture(scope="module")
def recipe():
    return load_recipe("cpu-stage1", **ONE_STEP)


def test_rollouts_with_crops_are_those_of_transformers(engine, plain, signs):
    """Greedy: every token, from the overview alone and behind one crop or two."""
    options = {"crop_settings": CROPS, "max_turns": 3, "max_new_tokens": 48}
    calls = [call(engine.processor, row) for row in signs]
    for first_turns in (None, calls):
        ours, theirs = (
            generate_rollouts(each, signs, first_turns=first_turns, **options) for each in (engine, plain)
        )
        assert [each.messages for each in ours] == [each.messages for each in theirs]
    assert all(is_image(each.messages[1]["content"][0]) for each in ours)
    assert all("<answer>" in each.messages[-1]["content"] for each in ours)
    record("eval, greedy, behind crops", "vLLM, offline", equals="transformers, every token")


def call(processor, row):
    """A turn that asks for the sign of the row, in pixels of the picture as it is shown."""
    box = [round(side * row.shown_size[0] / row.size[0]) for side in row.regions[0][1]]
    text = f"<think>near</think><tool_call>{CALL_OPEN}{', '.join(map(str, box))}{CALL_CLOSE}</tool_call>"
    return [*processor.tokenizer(text)["input_ids"], processor.tokenizer.eos_token_id]


def test_rollouts_about_several_pictures_are_those_of_transformers(engine, plain, pairs):
    """Greedy: every token, from two overviews alone and behind crops of the first, of the second, of both."""
    options = {"crop_settings": CROPS, "max_turns": 3, "max_new_tokens": 48}
    for images in ((), (1,), (2,), (1, 2), (2, 1)):
        turns = [calls_on(engine.processor, row, images) for row in pairs] if images else None
        ours, theirs = (
            generate_rollouts(each, pairs, first_turns=turns, **options) for each in (engine, plain)
        )
        assert [each.messages for each in ours] == [each.messages for each in theirs]
        for rollout in ours:
            cut = [message for message in rollout.messages if message["role"] == "tool"]
            assert all(is_image(message["content"][0]) for message in cut[: len(images)])
            assert len(cut) >= len(images)
            assert rollout.messages[-1]["content"]
    record(
        "eval, two pictures, greedy, behind crops of both",
        "vLLM, offline",
        equals="transformers, every token",
    )


def calls_on(processor, row, images):
    """A turn that asks for the place of the sign on each of these pictures, in pixels as they are shown."""
    [target], sizes = row.targets, row.shown_sizes
    scale = sizes[0][0] / row.pictures[0].size[0]
    box = [round(side * scale) for side in target.boxes[-1].tolist()]
    calls = [
        json.dumps({"name": TOOL_NAME, "arguments": {"bbox_2d": box, "image": image}}) for image in images
    ]
    text = "<think>near</think>" + "".join(f"<tool_call>{each}</tool_call>" for each in calls)
    return [*processor.tokenizer(text)["input_ids"], processor.tokenizer.eos_token_id]


def test_a_selection_is_that_of_transformers(engine, plain, signs):
    ladder = Ladder(216, 54)
    ladders = {row.id: ladder.levels([row.size], factor=28, limit=216) for row in signs}
    items = {row.id: LadderItem(row, ladders[row.id]) for row in signs}
    ours, theirs = (
        list(LadderWork(each, AskSettings(batch_size=4, max_new_tokens=16))(iter(items.items())))
        for each in (engine, plain)
    )
    assert ours == theirs
    assert {len(sizes) for sizes in ladders.values()} == {3}
    record("select, greedy, 3 levels", "vLLM, offline", equals="transformers, every answer")


@pytest.mark.parametrize(
    ("command", "output", "written", "options"),
    [
        ("eval", "", "evaluation.json", ["--budget", "54", "--max-turns", "3", "--crop-tokens", "64"]),
        ("select-resolution", "rows.jsonl", "rows.jsonl", ["--finest", "216", "--coarsest", "54"]),
    ],
)
def test_the_commands_write_the_same_with_either_engine(
    command, output, written, options, engine, shipped_dir, signs, tmp_path
):
    """From the command line to the files; greedy."""
    write_rows(signs, tmp_path / "signs.jsonl")
    found = {}
    for name in ("vllm", "transformers"):
        words = [command, "--engine", name, "--model", str(shipped_dir), "--max-new-tokens", "48"]
        words += ["--data", str(tmp_path / "signs.jsonl"), "--output", str(tmp_path / name / output)]
        (tmp_path / name).mkdir()
        assert cli.main([*words, *options]) == 0
        text = (tmp_path / name / written).read_text()
        found[name] = text if command != "eval" else without_seconds(json.loads(text)["figures"])
    assert found["vllm"] == found["transformers"]
    assert found["vllm"]
    record(f"lfpc {command}, greedy", "vLLM, offline", equals="lfpc with transformers, every figure")


def without_seconds(found):
    """Figures of an evaluation but for how long anything took."""
    if isinstance(found, dict):
        return {name: without_seconds(value) for name, value in found.items() if "seconds" not in name}
    return [without_seconds(value) for value in found] if isinstance(found, list) else found


def test_a_picture_reaches_both_models_as_it_was_sized(engine, plain, processor):
    """Sides of one token, long strips, the largest that is let in: vLLM's processor and ours change none."""
    for width, height in [(1, 1), (1, 9), (9, 1), (9, 6), (36, 6), (12, 18)]:
        image = Image.effect_noise((28 * width, 28 * height), 60).convert("RGB")
        ids = [*processor.tokenizer("user\n")["input_ids"], image_token_id(processor)]
        [read] = engine._llm.generate(
            [{"prompt_token_ids": ids, "multi_modal_data": {"image": [image]}}],
            sampling_params=SamplingParams(max_tokens=1),
            use_tqdm=False,
        )
        assert read.prompt_token_ids.count(ids[-1]) == width * height
        _, grid = plain.picture(image).data
        assert grid.tolist() == [[1, 2 * height, 2 * width]]
        called = processor(images=[image], text=["<|image_pad|>"], return_tensors="pt")
        assert called["image_grid_thw"].tolist() == grid.tolist()
    record("pictures as they were sized", "vLLM, offline", equals="transformers, every grid")


def test_the_stock_processor_reads_a_prepared_directory_as_the_trainer_does(shipped_dir, processor):
    """With torchvision, which it needs for videos; other environments of ours have none."""
    stock = AutoProcessor.from_pretrained(shipped_dir)
    assert type(stock).__module__.startswith("transformers.")
    image = Image.effect_noise((28 * 9, 28 * 6), 60).convert("RGB")
    content = [{"type": "image", "image": image}, {"type": "text", "text": "What does the red sign say?"}]
    ours, theirs = (
        each.apply_chat_template(
            [{"role": "user", "content": content}],
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            add_generation_prompt=True,
        )
        for each in (processor, stock)
    )
    for name in ("input_ids", "image_grid_thw"):
        assert ours[name].tolist() == theirs[name].tolist()
    record("a prepared directory", "stock AutoProcessor", equals="the trainer's processor, every token")


def test_a_refused_prompt_costs_no_other_its_answer(engine, signs):
    """A question that is too long, among others."""
    rows = list(signs[:5])
    rows[2] = dataclasses.replace(rows[2], question="What? " * 4000)
    found = dict(
        stream_rollouts(
            engine,
            iter([Job(row, CROPS, tools=False) for row in rows] + [None] * 99).__next__,
            RolloutSettings(max_new_tokens=8),
        )
    )
    outcomes = {job.row.id: outcome for job, outcome in found.items()}
    assert [isinstance(outcomes[row.id], Refused) for row in rows] == [False, False, True, False, False]
    assert "vLLM refuses its prompt" in str(outcomes[rows[2].id])


def test_one_step_of_training_reads_and_means_what_the_trainer_does(
    engine, recipe, shipped_dir, signs, tmp_path
):
    [line] = train(recipe, shipped_dir, signs, tmp_path / "run").metrics
    assert line["logp_difference"] < 1e-3
    assert 0.99 < line["ratio_min"] <= 1 <= line["ratio_max"] < 1.01
    assert line["tool_calls"] > 0.1
    record(
        "one training step, rollouts with crops, learning rate 0",
        "vLLM, colocate",
        equals="the trainer's log-probabilities",
        difference=line["logp_difference"],
        limit=1e-3,
        unit="nats per token",
    )


def test_in_bfloat16_they_agree_within_its_own_limit(recipe, shipped_dir, signs, tmp_path):
    """In a process and with an engine of its own: the one of these tests computes in float32."""
    write_rows(signs, tmp_path / "signs.jsonl")
    words = [str(shipped_dir), str(tmp_path / "signs.jsonl"), str(tmp_path / "run")]
    done = subprocess.run(
        [sys.executable, "-m", "tests.engines.bfloat16", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    [line] = read_metrics(tmp_path / "run")
    assert 1e-5 < line["logp_difference"] < 0.05
    record(
        "one training step in bfloat16, rollouts with crops, learning rate 0",
        "vLLM, colocate",
        equals="the trainer's log-probabilities",
        difference=line["logp_difference"],
        limit=0.05,
        unit="nats per token",
    )


def test_what_trl_hands_over_is_another_prompt(engine, recipe, shipped_dir, signs, tmp_path, monkeypatch):
    """The silent fault: without the mend no training starts."""
    monkeypatch.setattr(ColocatedEngine, "_collapsed", lambda _, prompt: prompt)
    with pytest.raises(UserError, match=r"54 of them visual, vLLM read \d+ tokens, 107 of them"):
        train(recipe, shipped_dir, signs, tmp_path / "run")
    assert read_metrics(tmp_path / "run") == []


def test_log_probabilities_that_are_off_start_no_training(
    engine, recipe, shipped_dir, signs, tmp_path, monkeypatch
):
    """Prompts as they should be, and then another temperature than the trainer's."""
    from trl.generation.vllm_generation import VLLMGeneration

    plain = VLLMGeneration.generate

    def hotter(self, *args, **kwargs):
        self.temperature = 1.0
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(VLLMGeneration, "generate", hotter)
    with pytest.raises(UserError, match=r"vLLM and the trainer must give .* at most 0\.001, got 0\.\d+ over"):
        train(recipe, shipped_dir, signs, tmp_path / "run")
