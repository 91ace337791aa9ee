"""Measure what it saves to compute the prompt of a group once; write the table of README-training.md.

    pip install ".[demo]"
    python benchmarks/group_step.py              # about 25 minutes on an idle core; --quick for a look
    python benchmarks/group_step.py --profile    # where the seconds of the demo's step go, in a minute
    python benchmarks/group_step.py --shape 7b   # on a GPU: random weights of 7B; else its smallest shape

Both ways run in one process, in turns, through the trainer's own code from the finished rollouts to the
gradients. Times are processor seconds on one thread (on a GPU: wall seconds); a ratio is the median of the
rounds' ratios. Memory is measured in a process for each way: how much its peak grows with the update.
"""
# ruff: noqa: SLF001 - it looks inside what it measures

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch read it

import torch
import transformers
import trl
from datasets import Dataset
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from transformers.utils import logging as transformers_logging
from trl import GRPOConfig, GRPOTrainer

import lfpc_trl.demo
from lfpc_rewards import Frame
from lfpc_trl.data.rows import Row, read_rows, with_shown_tokens
from lfpc_trl.demo import world
from lfpc_trl.demo.small_model import build_tokenizer
from lfpc_trl.evaluate import in_process
from lfpc_trl.evaluate.conditions import CONDITIONS
from lfpc_trl.models import shared_prompt
from lfpc_trl.models.engines import TransformersEngine
from lfpc_trl.models.processors import factor, load_processor, never_sampled, new_processor
from lfpc_trl.models.weights import load_model
from lfpc_trl.rollouts.crop_tool import CropSettings, environment_factory
from lfpc_trl.rollouts.prompts import build_prompt
from lfpc_trl.rollouts.rewards import AccuracyReward, FormatReward, GroundingReward, ToolBonus
from lfpc_trl.rollouts.transcript import GroundingSettings, score_transcripts
from lfpc_trl.train.groups import GroupedPictures
from lfpc_trl.train.trainer import RolloutTrainer

PAGE = Path(__file__).with_name("README-training.md")
TABLE = ("<!-- table: written by group_step.py -->", "<!-- end of table -->")
PARTS = ("<!-- parts: written by group_step.py --profile -->", "<!-- end of parts -->")
PATCH, MERGE = 14, 2
CALL = (
    '<think>near</think><tool_call>{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [%s]}}</tool_call>'
)


@dataclass(frozen=True)
class Shape:
    """The rollouts of one group.

    Attributes:
        rollouts: how many.
        picture: visual tokens of the picture in the prompt.
        completion: tokens that a rollout writes; from rollout to rollout a few less.
        crop: visual tokens of a crop in every completion; 0 for none.
        text: tokens of the prompt beside the picture.
        micro_batch: rollouts in one forward pass.
    """

    rollouts: int = 16
    picture: int = 1024
    completion: int = 300
    crop: int = 0
    text: int = 80
    micro_batch: int = 2


SHAPES = {
    "16 rollouts, picture of 1,024 tokens, 300 tokens": (Shape(), 5.0, 0.6),
    "the same with one 256-token crop in each completion": (Shape(crop=256), 3.0, 0.7),
    "8 rollouts, picture of 100 tokens, crop of 64, 60 tokens": (Shape(8, 100, 60, 64), None, None),
    "16 rollouts, picture of 256 tokens, 1,000 tokens": (Shape(picture=256, completion=1000), None, None),
    "2 rollouts, picture of 100 tokens, 300 tokens": (Shape(2, 100), None, None),
}
"""Rows of the table, with the targets for speed and memory."""
SMALL = {
    "text": {
        "hidden_size": 256,
        "intermediate_size": 704,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [8, 12, 12]},
    },
    "vision": {
        "depth": 4,
        "hidden_size": 128,
        "intermediate_size": 344,
        "num_heads": 4,
        "out_hidden_size": 256,
        "fullatt_block_indexes": [3],
    },
}
"""A Qwen2.5-VL of 5 million parameters."""
SEVEN_B = {
    "text": {
        "vocab_size": 152064,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
    },
    "vision": {
        "depth": 32,
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "num_heads": 16,
        "out_hidden_size": 3584,
        "fullatt_block_indexes": [7, 15, 23, 31],
    },
}
"""The sizes in the config.json of Qwen2.5-VL-7B-Instruct."""


# --- the update of one group --------------------------------------------------------------------------


def new_trainer(sizes: dict[str, Any], shape: Shape, folder: Path, *, gpu: bool = False) -> Any:
    """A trainer of a model with random weights, ready for updates."""
    torch.manual_seed(0)
    words = build_tokenizer([])
    ids = {name: words.convert_tokens_to_ids(f"<|{name}|>") for name in ("image_pad", "video_pad")}
    marks = {name: words.convert_tokens_to_ids(f"<|{name}|>") for name in ("vision_start", "vision_end")}
    text = {
        "vocab_size": len(words),
        "max_position_embeddings": 32768,
        "bos_token_id": None,
        "pad_token_id": 0,
    }
    config = Qwen2_5_VLConfig(
        text_config=text | sizes["text"],
        vision_config={"patch_size": PATCH, "spatial_merge_size": MERGE, "window_size": 112}
        | sizes["vision"],
        image_token_id=ids["image_pad"],
        video_token_id=ids["video_pad"],
        vision_start_token_id=marks["vision_start"],
        vision_end_token_id=marks["vision_end"],
    )
    dtype, device = (torch.bfloat16, "cuda") if gpu else (torch.float32, "cpu")
    with torch.device(device):
        model = Qwen2_5_VLForConditionalGeneration(config).to(dtype)
    micro_batches = shape.rollouts // shape.micro_batch
    trainer = RolloutTrainer(
        model=model,
        reward_funcs=[FormatReward()],
        args=GRPOConfig(
            output_dir=str(folder),
            num_generations=shape.rollouts,
            per_device_train_batch_size=shape.micro_batch,
            gradient_accumulation_steps=micro_batches,
            loss_type="dapo",
            bf16=gpu,
            use_cpu=not gpu,
            activation_checkpointing=gpu,
            report_to="none",
        ),
        train_dataset=Dataset.from_dict({"prompt": ["?"]}),
        processing_class=new_processor(
            "qwen2_5_vl", words, patch_size=PATCH, merge_size=MERGE, max_tokens=16384
        ),
        crops=CropSettings(frame=Frame.SHOWN, factor=PATCH * MERGE),
    )
    if gpu:
        trainer.model.activation_checkpointing_enable({"use_reentrant": False})
    trainer.current_gradient_accumulation_steps = micro_batches
    trainer.model.train()
    return trainer


def rollouts_of(trainer: Any, shape: Shape) -> dict[str, Any]:
    """One group as TRL holds it after generation: random tokens, pictures of noise."""
    draw = torch.Generator().manual_seed(0)
    config = trainer.model.config

    def text(tokens: int) -> torch.Tensor:
        return torch.randint(20, 200, (tokens,), generator=draw)

    def picture(tokens: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        side = round(tokens**0.5) * MERGE
        marked = [config.image_token_id] * (side // MERGE) ** 2
        ids = torch.tensor([config.vision_start_token_id, *marked, config.vision_end_token_id])
        return ids, torch.randn(side**2, 3 * 2 * PATCH**2, generator=draw), torch.tensor([1, side, side])

    overview = picture(shape.picture)
    prompt = torch.cat([text(shape.text // 4), overview[0], text(shape.text - shape.text // 4)])
    pixels, grids, completions, masks = [], [], [], []
    for rollout in range(shape.rollouts):
        crops = [picture(shape.crop)] if shape.crop else []
        half = shape.completion // 2
        pieces = [text(half - rollout % 5), *(crop[0] for crop in crops), text(half - rollout % 7)]
        completions.append(torch.cat(pieces))
        masks.append(
            torch.cat([torch.full_like(piece, len(crops) == 0 or at != 1) for at, piece in enumerate(pieces)])
        )
        pixels += [each[1] for each in (overview, *crops)]
        grids += [each[2] for each in (overview, *crops)]
    pad = torch.nn.utils.rnn.pad_sequence
    ids = pad(completions, batch_first=True)
    batch = {
        "prompt_ids": prompt.expand(shape.rollouts, -1),
        "prompt_mask": torch.ones(shape.rollouts, len(prompt), dtype=torch.long),
        "completion_ids": ids,
        "completion_mask": pad([torch.ones_like(each) for each in completions], batch_first=True),
        "tool_mask": pad(masks, batch_first=True),
        "advantages": torch.randn(shape.rollouts, generator=draw),
        "pixel_values": torch.cat(pixels),
        "image_grid_thw": torch.stack(grids),
        "mm_token_type_ids": (
            torch.cat([prompt.expand(shape.rollouts, -1), ids], 1) == config.image_token_id
        ).long(),
    }
    batch["num_items_in_batch"] = (batch["completion_mask"] * batch["tool_mask"]).sum()
    device = trainer.accelerator.device
    return {name: value.to(device) for name, value in batch.items()} | {
        "num_images": [1 + bool(shape.crop)] * shape.rollouts
    }


def update(trainer: Any, batch: dict[str, Any], *, shared: bool) -> None:
    """From the rollouts of a round to the gradients of an update."""
    group_step = trainer._group_step
    trainer._group_step = group_step if shared else None
    trainer._generate_and_score_completions = lambda _: dict(batch)
    trainer.model.zero_grad()
    steps = trainer.current_gradient_accumulation_steps
    for trainer._step in range(steps):
        trainer.accelerator.gradient_state._set_sync_gradients(trainer._step == steps - 1)
        micro_batch = trainer._prepare_inputs([])
        trainer.accelerator.backward(trainer._compute_loss(trainer.model, micro_batch))
    trainer._group_step = group_step


def pictures_kept(trainer: Any) -> float:
    """How often the pixels of the prompt's picture stand in what was kept for the last update."""
    kept: dict[int, int] = {}
    for batch in trainer._buffered_inputs:
        pictures = batch["pixel_values"]
        tensors = (
            [each.prompt.values for each in pictures.rollouts]
            if isinstance(pictures, GroupedPictures)
            else [pictures]
        )
        kept |= {tensor.untyped_storage().data_ptr(): len(tensor) for tensor in tensors}
    return sum(kept.values())


def memory(name: str, *, shared: bool) -> float:
    """MiB by which the peak of a process of its own grows with the update."""
    command = [sys.executable, __file__, "--peak", name, "--way", "shared" if shared else "trl"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def print_peak(name: str, *, shared: bool) -> None:
    """For `memory`: one small update before, so that what stays for good is not counted."""
    shape = SHAPES[name][0]
    with tempfile.TemporaryDirectory() as folder:
        trainer = new_trainer(SMALL, shape, Path(folder))
        update(trainer, rollouts_of(trainer, replace(shape, picture=4, completion=14, crop=0)), shared=shared)
        batch = rollouts_of(trainer, shape)
        before = peak()
        update(trainer, batch, shared=shared)
        print(peak() - before)


def peak() -> float:
    """MiB, of this program alone; `ru_maxrss` begins with the size of the process that started it."""
    (line,) = (
        each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith("VmHWM")
    )
    return int(line.split()[1]) / 1024


# --- measuring ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """A line of the table: (TRL's, ours) in each round."""

    what: str
    unit: str
    rounds: list[tuple[float, float]]
    target: float | None = None
    is_share: bool = False  # ours by TRL's, where less is better; else TRL's by ours

    def ratio(self) -> float:
        return statistics.median(
            ours / theirs if self.is_share else theirs / ours for theirs, ours in self.rounds
        )

    def line(self) -> str:
        theirs, ours = (statistics.median(each) for each in zip(*self.rounds, strict=True))
        ratio, target = self.ratio(), self.target
        met = "" if target is None else ("met" if (ratio <= target) is self.is_share else "**missed**")
        bound = "" if target is None else f"{'at most ' if self.is_share else ''}{target:g}x"
        cells = [
            self.what,
            f"{theirs:,.3g} {self.unit}",
            f"{ours:,.3g} {self.unit}",
            f"{ratio:.2f}x",
            bound,
            met,
        ]
        return f"| {' | '.join(cells)} |"


def in_turns(measure: Callable[[bool], float], rounds: int) -> list[tuple[float, float]]:
    """(TRL's, ours) of each round; the order changes from round to round."""
    found = []
    for number in range(rounds):
        order = (False, True) if number % 2 else (True, False)
        seconds = {shared: measure(shared) for shared in order}
        found.append((seconds[False], seconds[True]))
    return found


def seconds_of(work: Callable[[], object], clock: Callable[[], float] = time.process_time) -> float:
    start = clock()
    work()
    return clock() - start


def update_seconds(shape: Shape, rounds: int) -> list[tuple[float, float]]:
    """(TRL's, ours) of each round."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = new_trainer(SMALL, shape, Path(folder))
        batch = rollouts_of(trainer, shape)
        update(trainer, batch, shared=True)  # warm
        return in_turns(lambda shared: seconds_of(lambda: update(trainer, batch, shared=shared)), rounds)


def updates(rounds: int) -> Iterator[Line]:
    for name, (shape, speed, share) in SHAPES.items():
        yield Line(f"update, {name}", "s", update_seconds(shape, rounds), speed)
        yield Line(
            "its memory", "MiB", [(memory(name, shared=False), memory(name, shared=True))], share, True
        )


# --- whole steps --------------------------------------------------------------------------------------


class Steps(transformers.TrainerCallback):  # type: ignore[misc]
    """Processor seconds of every step, of its update (all but the rollouts) and of its parts."""

    def __init__(self, trainer: Any) -> None:
        self.whole: list[float] = []
        self.update: list[float] = []
        self.parts: dict[str, list[float]] = defaultdict(list)
        self._step: dict[str, float] = defaultdict(float)
        vision = shared_prompt.without_adapter(trainer.model).model.visual
        for name, holder, method in (
            ("rollouts", trainer, "_generate_and_score_completions"),
            ("forward pass", trainer, "_compute_loss"),
            ("backward pass", trainer.accelerator, "backward"),
            ("vision tower, forward, in any of these", vision, "forward"),
        ):
            setattr(holder, method, self._measured(name, getattr(holder, method)))

    def _measured(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def measured(*args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            try:
                return method(*args, **kwargs)
            finally:
                self._step[name] += time.process_time() - start

        return measured

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._step.clear()
        self._start = time.process_time()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.whole.append(time.process_time() - self._start)
        self.update.append(self.whole[-1] - self._step["rollouts"])
        for name, seconds in self._step.items():
            self.parts[name].append(seconds)


class Plain:
    """A reward of ours in a trainer that does not score the rollouts."""

    def __init__(self, reward: Any, crops: CropSettings) -> None:
        self._reward, self._crops, self.__name__ = reward, crops, reward.__name__

    def __call__(self, completions: Any, row: Any, **columns: Any) -> Any:
        scored = score_transcripts(completions, row, self._crops, GroundingSettings())
        return self._reward(scored=scored, **columns)


def train(
    kind: type[Any], model: Any, processor: Any, rows: list[Row], folder: Path, **settings: Any
) -> Steps:
    """Steps of a trainer on the demo's rows; the first one warms up and is not counted."""
    options = {name: settings.pop(name) for name in ("share_prompts",) if name in settings}
    crops = CropSettings(frame=Frame.SHOWN, factor=factor(processor), crop_tokens=64, max_crops=2)
    if issubclass(kind, RolloutTrainer):
        options["crops"] = crops

    def columns(numbers: dict[str, list[int]]) -> dict[str, list[Any]]:
        return {
            "prompt": [build_prompt(Frame.SHOWN) for _ in numbers["number"]],
            "row": [rows[number] for number in numbers["number"]],
        }

    rewards: list[Any] = [AccuracyReward(), FormatReward(), ToolBonus(), GroundingReward()]
    if not issubclass(kind, RolloutTrainer):
        rewards = [Plain(reward, crops) for reward in rewards]
    config = {
        "output_dir": str(folder),
        "temperature": 0.5,
        "reward_weights": [0.8, 0.2, 1.2, 1.0],
        "learning_rate": 1e-6,
        "loss_type": "bnpo",
        "bf16": False,
        "use_cpu": True,
        "activation_checkpointing": False,
        "remove_unused_columns": False,
        "dataloader_pin_memory": False,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }
    grpo = kind(
        model=model,
        reward_funcs=rewards,
        args=GRPOConfig(**config | settings),
        train_dataset=Dataset.from_dict({"number": list(range(len(rows)))}).with_transform(columns),
        processing_class=processor,
        environment_factory=environment_factory(crops),
        **options,
    )
    steps = Steps(grpo)
    grpo.remove_callback(transformers.PrinterCallback)
    grpo.add_callback(steps)
    grpo.train()
    del steps.whole[0], steps.update[0]
    return steps


def demo_steps(rounds: int, folder: Path) -> list[dict[bool, Steps]]:
    """The demo's steps both ways: 8 questions of 54 visual tokens, 8 rollouts each, in one micro batch."""
    list(world.make_pictures(folder, 8, seed=1, photos=world.TRAINING_PHOTOS, name="rows"))
    warm = Path(lfpc_trl.demo.__file__).parent / "warm"
    processor = load_processor(warm)
    rows = with_shown_tokens(
        read_rows(folder / "rows.jsonl", require_targets=True), 54, factor=factor(processor)
    )
    settings = {
        "num_generations": 8,
        "per_device_train_batch_size": 64,
        "max_completion_length": 512,
        "max_tool_calling_iterations": 2,
        "generation_kwargs": {"max_new_tokens": 48, **never_sampled(processor, use_vllm=False)},
        "max_steps": 4,
    }
    return [
        {
            shared: train(
                RolloutTrainer,
                load_model(warm),
                processor,
                rows,
                folder / "run",
                share_prompts=shared,
                **settings,
            )
            for shared in ((False, True) if number % 2 else (True, False))
        }
        for number in range(rounds)
    ]


def demo_lines(rounds: int, folder: Path) -> Iterator[Line]:
    found: dict[str, list[tuple[float, float]]] = {"update": [], "whole": []}
    for both in demo_steps(rounds, folder):
        for name, each in found.items():
            each += zip(getattr(both[False], name), getattr(both[True], name), strict=True)
    yield Line("the demo's update, 64 rollouts", "s", found["update"], 1.6)
    yield Line("the demo's whole step", "s", found["whole"], 1.6)


def profile(rounds: int, folder: Path) -> Iterator[str]:
    """The parts of the demo's step as lines of a table: seconds, and their share of the step."""
    found = demo_steps(rounds, folder)
    yield "| part of the demo's step | TRL's way | | ours | |"
    yield "|" + " --- |" * 5
    whole = {way: statistics.median(s for both in found for s in both[way].whole) for way in (False, True)}
    for name in (*found[0][True].parts, "all"):
        cells = [name]
        for way in (False, True):
            parts = [both[way].parts[name] if name != "all" else both[way].whole for both in found]
            seconds = statistics.median(s for part in parts for s in part[-3:])
            cells += [f"{seconds:.2f} s", f"{seconds / whole[way]:.0%}"]
        yield f"| {' | '.join(cells)} |"


def against_plain_trl(rounds: int, folder: Path) -> Iterator[Line]:
    """A whole step of TRL's own trainer, and of ours: random weights, so 16 rollouts that never end."""
    shape = Shape()
    list(world.make_pictures(folder, 1, seed=1, photos=world.TRAINING_PHOTOS, name="rows"))
    rows: list[Row] = []
    found: list[tuple[float, float]] = []
    for number in range(rounds):
        seconds = {}
        for kind in (GRPOTrainer, RolloutTrainer) if number % 2 else (RolloutTrainer, GRPOTrainer):
            made = new_trainer(SMALL, shape, folder / "run")
            processor = made.processing_class
            rows = with_shown_tokens(
                read_rows(folder / "rows.jsonl", require_targets=True),
                shape.picture,
                factor=factor(processor),
            )
            steps = train(
                kind,
                made.model,
                processor,
                rows[:1],
                folder / "run",
                num_generations=shape.rollouts,
                per_device_train_batch_size=shape.micro_batch,
                gradient_accumulation_steps=shape.rollouts // shape.micro_batch,
                max_completion_length=shape.completion,
                max_tool_calling_iterations=2,
                generation_kwargs=never_sampled(processor, use_vllm=False),
                max_steps=2,
            )
            seconds[kind] = steps.whole[0]
        found.append((seconds[GRPOTrainer], seconds[RolloutTrainer]))
    yield Line("whole step against plain TRL, 16 rollouts, 1,024 and 300 tokens", "s", found, 2.5)


class Looking(TransformersEngine):
    """The model writes every turn, but its first is taken to be a call: the shipped model rarely looks."""

    def generate(self, prompts: Any, **options: Any) -> list[list[int]]:
        turns = super().generate(prompts, **options)
        call = self.processor.tokenizer(CALL % "20, 20, 90, 70")["input_ids"]
        call.append(self.processor.tokenizer.eos_token_id)
        return [
            call if len(prompt.pictures) == 1 else turn for prompt, turn in zip(prompts, turns, strict=True)
        ]


def evaluation(rounds: int, folder: Path, tokens: int) -> Line:
    """Questions under all conditions; a turn reads its conversation whole, or goes on from what was read."""
    list(world.make_pictures(folder, 8, seed=1, photos=world.TRAINING_PHOTOS, name="rows"))
    warm = Path(lfpc_trl.demo.__file__).parent / "warm"
    model, processor = load_model(warm), load_processor(warm)
    rows = with_shown_tokens(
        read_rows(folder / "rows.jsonl", require_targets=True), tokens, factor=factor(processor)
    )
    crops = CropSettings(frame=Frame.SHOWN, factor=factor(processor), crop_tokens=64, max_crops=2)
    why_not = shared_prompt.why_not

    def seconds(*, shared: bool) -> float:
        shared_prompt.why_not = why_not if shared else lambda _: "each conversation is read whole"
        in_process.TransformersEngine = Looking
        try:
            return seconds_of(
                lambda: in_process.evaluate(
                    model,
                    processor,
                    rows,
                    crop_settings=crops,
                    max_turns=3,
                    max_new_tokens=48,
                    conditions=CONDITIONS,
                )
            )
        finally:
            shared_prompt.why_not, in_process.TransformersEngine = why_not, TransformersEngine

    seconds(shared=True)  # warm
    found = in_turns(lambda shared: seconds(shared=shared), rounds)
    return Line(
        f"evaluation of 16 questions under six conditions, pictures of {tokens} tokens", "s", found, 1.5
    )


def kept() -> Line:
    shape = Shape(picture=100, completion=14)
    with tempfile.TemporaryDirectory() as folder:
        trainer = new_trainer(SMALL, shape, Path(folder))
        batch = rollouts_of(trainer, shape)
        patches = shape.picture * MERGE**2
        found = []
        for shared in (False, True):
            trainer._buffered_inputs = None
            update(trainer, batch, shared=shared)
            found.append(pictures_kept(trainer) / patches)
    return Line("copies of a prompt's pixels kept for the update, 16 rollouts", "", [(found[0], found[1])])


# --- a GPU --------------------------------------------------------------------------------------------


@contextmanager
def peak_of_gpu() -> Iterator[Callable[[], float]]:
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    yield lambda: (torch.cuda.max_memory_allocated() - before) / 2**20


def operations(shape: Shape, *, shared: bool) -> float:
    """Multiplications and additions of one forward pass over a group with 7B.

    A backward pass costs the same twice, and recomputation once more, both ways: what counts is the ratio.
    """
    text, vision = SEVEN_B["text"], SEVEN_B["vision"]
    width, inner, layers = text["hidden_size"], text["intermediate_size"], text["num_hidden_layers"]
    keys = width * text["num_key_value_heads"] // text["num_attention_heads"]
    per_token = 2 * layers * (2 * width**2 + 2 * width * keys + 3 * width * inner)
    of_patch = (
        2
        * vision["depth"]
        * (4 * vision["hidden_size"] ** 2 + 3 * vision["hidden_size"] * vision["intermediate_size"])
    )
    prompt, own = shape.picture + shape.text, shape.completion + shape.crop
    prompts = 1 if shared else shape.rollouts
    tokens = prompts * prompt + shape.rollouts * own
    pictures = prompts * shape.picture + shape.rollouts * shape.crop
    pairs = prompts * prompt**2 / 2 + shape.rollouts * (own * prompt + own**2 / 2)
    head = 2 * width * text["vocab_size"] * shape.rollouts * own  # TRL's head, too, is on completions alone
    return tokens * per_token + 4 * layers * width * pairs + MERGE**2 * pictures * of_patch + head


def kept_bytes(shape: Shape, *, shared: bool) -> float:
    """Bytes from forward to backward with 7B in bf16: the checkpoint of each layer, and our cache."""
    text = SEVEN_B["text"]
    width, layers = text["hidden_size"], text["num_hidden_layers"]
    prompt, own = shape.picture + shape.text, shape.completion + shape.crop
    batch = shape.micro_batch * own + prompt * (1 if shared else shape.micro_batch)
    keys = width * text["num_key_value_heads"] // text["num_attention_heads"]
    # Keys and values in bf16, their copy and its gradient in float32.
    cache = layers * 2 * keys * prompt * (2 + 4 + 4) if shared else 0
    return 2 * layers * width * batch + cache


def expectation() -> None:
    """What may be expected at 7B, calculated."""
    print("calculated for 7B: operations, and bytes kept between forward and backward\n")
    print("| picture, crop | operations, TRL's by ours | GiB, TRL's | ours |\n|" + " --- |" * 4)
    for shape in LARGE:
        ratio = operations(shape, shared=False) / operations(shape, shared=True)
        kept = [kept_bytes(shape, shared=way) / 2**30 for way in (False, True)]
        print(f"| {shape.picture:,}, {shape.crop} | {ratio:.1f}x | {kept[0]:.2f} | {kept[1]:.2f} |")
    print()


LARGE = [Shape(picture=picture, crop=256 if picture > 256 else 0) for picture in (256, 1024, 4096)]
"""The groups of `--shape 7b`."""


def large(rounds: int) -> None:
    """Seconds and memory of the update of a 7B model on a GPU; without one, a model of 5 million."""
    gpu = torch.cuda.is_available()
    if not gpu:
        expectation()
    print("| picture | TRL's | ours | times as fast | TRL's MiB | ours | share |\n|" + " --- |" * 7)
    for shape in LARGE if gpu else LARGE[:1]:
        with tempfile.TemporaryDirectory() as folder:
            trainer = new_trainer(SEVEN_B if gpu else SMALL, shape, Path(folder), gpu=gpu)
            batch = rollouts_of(trainer, shape)
            memories: dict[bool, float] = {}

            def one(
                *, shared: bool, trainer: Any = trainer, batch: Any = batch, memories: Any = memories
            ) -> float:
                if not gpu:
                    return seconds_of(lambda: update(trainer, batch, shared=shared))
                with peak_of_gpu() as peak:

                    def work() -> None:
                        update(trainer, batch, shared=shared)
                        torch.cuda.synchronize()

                    seconds = seconds_of(work, time.perf_counter)
                    memories[shared] = peak()
                return seconds

            one(shared=True)
            one(shared=False)
            found = in_turns(lambda shared, one=one: one(shared=shared), rounds)
            theirs, ours = (statistics.median(each) for each in zip(*found, strict=True))
            ratio = Line("", "", found).ratio()
            cells = [f"{shape.picture:,}", f"{theirs:.2f} s", f"{ours:.2f} s", f"{ratio:.2f}x"]
            cells += [f"{memories[way]:,.0f}" if memories else "" for way in (False, True)]
            cells.append(f"{memories[True] / memories[False]:.2f}x" if memories else "")
            print(f"| {' | '.join(cells)} |", flush=True)


# --- the page -----------------------------------------------------------------------------------------


def machine() -> str:
    load = " / ".join(f"{each:.1f}" for each in os.getloadavg())
    return (
        f"{os.cpu_count()} cores, one thread, Python {platform.python_version()}, torch {torch.__version__}, "
        f"transformers {transformers.__version__}, TRL {trl.__version__}. "
        f"Load of the machine at the end: {load}. {datetime.now().astimezone():%Y-%m-%d}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one round, and the page stays as it is")
    parser.add_argument("--shape", choices=["7b"], help="the update of a large model, on a GPU")
    parser.add_argument("--profile", action="store_true", help="the parts of the demo's step, in a minute")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    parser.add_argument("--way", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    if args.peak:
        print_peak(args.peak, shared=args.way == "shared")
        return
    if args.shape:
        large(1 if args.quick else 3)
        return
    rounds = 1 if args.quick else 3
    if args.profile:
        with tempfile.TemporaryDirectory() as name:
            lines = list(profile(rounds, Path(name)))
        print("\n".join(lines))
        if not args.quick:
            write_page(PARTS, lines, rounds)
        return
    lines = ["| what | TRL's way | ours | ratio | target | |", "|" + " --- |" * 6]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for rows in (
            updates(rounds),
            demo_lines(rounds, folder / "demo"),
            against_plain_trl(rounds, folder / "plain"),
            (evaluation(rounds, folder / f"evaluation-{tokens}", tokens) for tokens in (54, 256)),
            [kept()],
        ):
            for row in rows:
                lines.append(row.line())
                print(lines[-1], flush=True)
    if not args.quick:
        write_page(TABLE, lines, rounds)


def write_page(marks: tuple[str, str], lines: list[str], rounds: int) -> None:
    start, stop = marks
    before, rest = PAGE.read_text(encoding="utf-8").split(start)
    table = "\n".join([*lines, "", f"Rounds: {rounds}. {machine()}"])
    PAGE.write_text(f"{before}{start}\n\n{table}\n\n{stop}{rest.split(stop)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
