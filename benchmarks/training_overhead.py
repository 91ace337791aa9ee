"""Measure what this project adds to a training step beside the model's own work.

    pip install ".[demo]"
    python benchmarks/training_overhead.py           # a few minutes; prints Markdown tables

Bytes and decodes are counted, times are medians over rounds in which the contenders take turns. The share of
a step is wall time between entering and leaving our code, on the thread that trains; what the calculation
starts from is time of one core. The figures of docs/explanation/training-internals.md come from here.
"""
# ruff: noqa: SLF001, ARG002 - it looks inside what it measures; callbacks have their arguments

import functools
import os
import pickle
import statistics
import tempfile
import time
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch read it

import numpy as np
import torch
from datasets import Dataset
from PIL import Image
from transformers import PrinterCallback, TrainerCallback
from transformers.utils import logging as transformers_logging
from trl import GRPOConfig

import lfpc_trl.demo
from lfpc_rewards import Frame
from lfpc_trl.data.rows import Row, read_rows, with_shown_tokens
from lfpc_trl.demo import world
from lfpc_trl.models import families, processors, weights
from lfpc_trl.pictures import crops, lazy, originals, sizes
from lfpc_trl.rollouts.crop_tool import CropEnvironment, CropSettings, environment_factory
from lfpc_trl.rollouts.generate import _images, crop_tool, rewards
from lfpc_trl.rollouts.prompts import build_prompt
from lfpc_trl.rollouts.transcript import score_transcripts
from lfpc_trl.runs import trajectories
from lfpc_trl.train import trainer
from lfpc_trl.train.alerts import ToolUseAlert

EIGHT_K = (7680, 4320)
GROUPS, GROUP, CROPS = 4, 4, 2
ROUNDS = 5
SETTINGS = CropSettings(frame=Frame.SHOWN, factor=28, crop_tokens=1024)
# The setting of the calculation: a user of DeepEyes trains 7B on one node of 8 GPUs in 2,142 s per step of
# 4,096 rollouts.
STEP_SECONDS, ROLLOUTS, ORIGINALS, THREADS = 2142, 512, 32, 8


def make_rows(folder, count):
    """Rows about 8K JPEG files of smooth noise, shown at up to 1,024 tokens."""
    rows = []
    for index in range(count):
        noise = np.random.default_rng(index).integers(0, 256, (135, 240, 3), dtype=np.uint8)
        path = folder / f"{index}.jpg"
        Image.fromarray(noise).resize(EIGHT_K, Image.Resampling.BICUBIC).save(path, quality=92)
        shown = sizes.shown_size(EIGHT_K, 1024, factor=28)
        region = np.array([[3000.0, 2000.0, 3300.0, 2300.0], [2800.0, 1800.0, 3600.0, 2500.0]])
        rows.append(Row(str(index), "What?", ("A",), None, path, EIGHT_K, (region,), shown))
    return rows


def box_of(rollout, crop):
    """A box in shown pixels; in the original 1,200 to 2,300 pixels wide."""
    left, top = 20 * rollout % 500, 10 * rollout % 200
    return [left, top, left + 200 + 40 * crop, top + 180 + 40 * crop]


def roll_out(row, rollout):
    """The messages of one rollout, as TRL holds them."""
    environment = CropEnvironment(SETTINGS)
    prompt = build_prompt(SETTINGS.frame, environment.reset(row=row))
    completion = []
    for crop in range(CROPS):
        box = box_of(rollout, crop)
        call = {"name": crop_tool.TOOL_NAME, "arguments": {"bbox_2d": box}}
        completion.append(
            {
                "role": "assistant",
                "content": "<think>closer</think>",
                "tool_calls": [{"type": "function", "function": call}],
            }
        )
        completion.append({"role": "tool", "content": environment.image_zoom_in_tool(box)})
    completion.append({"role": "assistant", "content": "<think>so</think><answer>A</answer>"})
    return prompt, completion


def by_value(messages):
    """The same messages with ordinary pictures."""
    return [
        {**message, "content": [{**b, "image": b["image"].copy()} if "image" in b else b for b in blocks]}
        if isinstance(blocks := message["content"], list)
        else message
        for message in messages
    ]


def fresh_cache():
    originals._PICTURES = originals.PictureCache()
    return originals._PICTURES


def timed(work, clock=time.perf_counter):
    start = clock()
    result = work()
    return clock() - start, result


def table(title, head, lines):
    print(f"\n**{title}**\n")
    print(f"| {' | '.join(head)} |\n|{' --- |' * len(head)}")
    for line in lines:
        print(f"| {' | '.join(line)} |")


# --- what travels ------------------------------------------------------------------------------------


def bytes_gathered(rows):
    fresh_cache()
    rollouts = [roll_out(rows[index // 16], index) for index in range(64)]
    references = [list(part) for part in zip(*rollouts, strict=True)]
    values = [[by_value(messages) for messages in part] for part in references]
    lines = []
    for name, parts in (("pictures", values), ("recipes", references)):
        pickling, data = timed(lambda parts=parts: [pickle.dumps(part) for part in parts])
        unpickling, _ = timed(lambda data=data: [pickle.loads(part) for part in data])
        size = sum(len(part) for part in data)
        lines.append(
            [name, f"{size / 1e6:,.2f} MB", f"{1e3 * pickling:,.1f} ms", f"{1e3 * unpickling:,.1f} ms"]
        )
    table(
        "What TRL gathers of 64 rollouts in every step (overview of 1,024 tokens, 2 crops each)",
        ["as", "pickled", "time", "and back"],
        lines,
    )


# --- pictures ----------------------------------------------------------------------------------------


def in_turn(rows):
    """Every picture made where it is asked for, from the same cache."""
    for row in rows:
        for rollout in range(GROUP):
            originals.load_shown(row.image, row.shown_size)
            for crop in range(CROPS):
                box = crops.crop_box(
                    box_of(rollout, crop),
                    frame=SETTINGS.frame,
                    shown_size=row.shown_size,
                    original_size=row.size,
                )
                crops.cut(originals.load_original(row.image), box, factor=28, max_tokens=SETTINGS.crop_tokens)


def in_threads(rows):
    """As TRL does: all resets, all calls, then the pictures are used."""
    messages = [roll_out(row, rollout) for row in rows for rollout in range(GROUP)]
    for prompt, completion in messages:
        for picture in _images([*prompt, *completion]):
            picture.load()


def picture_work(rows):
    times, decodes = defaultdict(list), {}
    for _ in range(ROUNDS):
        for name, work in (("one after another", in_turn), ("in threads", in_threads)):
            cache = fresh_cache()
            times[name].append(timed(lambda work=work: work(rows))[0])
            decodes[name] = cache.decodes / len(rows)
    ratio = statistics.median(
        a / b for a, b in zip(times["one after another"], times["in threads"], strict=True)
    )
    without = GROUP * (1 + CROPS)
    lines = [["opened anew for each picture (counted, not run)", "", f"{without}"]]
    lines += [
        [name, f"{statistics.median(values):.2f} s", f"{decodes[name]:g}"] for name, values in times.items()
    ]
    table(
        f"All pictures of {GROUPS} groups of {GROUP} rollouts with {CROPS} crops, 8K JPEG, "
        f"{lazy._cores()} cores; {ratio:.2f} times as fast in threads",
        ["how", "time", "decodes per group"],
        lines,
    )


def costs(rows):
    """Seconds of one core for one decode, one overview, one crop, and the rest of a rollout."""
    row, path = rows[0], rows[0].image
    original = originals._decode(path)
    crop = crops.crop_box(box_of(3, 1), frame=Frame.SHOWN, shown_size=row.shown_size, original_size=row.size)
    rollouts = [roll_out(rows[index // 16 % len(rows)], index) for index in range(64)]
    completions = [completion for _, completion in rollouts]
    about = [rows[index // 16 % len(rows)] for index in range(64)]
    works = {
        "decode": lambda: originals._decode(path),
        "overview": lambda: sizes.show(original, row.shown_size),
        "crop": lambda: crops.cut(original, crop, factor=28, max_tokens=1024),
        "rollout": lambda: [roll_out(row, index) for index in range(64)],
        "scores": lambda: score_transcripts(completions, about, SETTINGS),
    }
    found = {}
    for name, work in works.items():
        work()
        found[name] = statistics.median(timed(work, time.thread_time)[0] for _ in range(ROUNDS))
    found["rollout"], found["scores"] = found["rollout"] / 64, found["scores"] / 64
    return found


def calculate(rows):
    cost = costs(rows)
    # The cache holds ten originals of 8K: each is decoded for the overview and again for each round of crops.
    decodes = ORIGINALS * (1 + CROPS)
    pictures = decodes * cost["decode"] + ORIGINALS * cost["overview"] + ROLLOUTS * CROPS * cost["crop"]
    # Two terms read the whole transcript, the other two less.
    rest = ROLLOUTS * (cost["rollout"] + 4 * cost["scores"])
    total = pictures / THREADS + rest
    lines = [
        [f"decode {decodes} times", f"{1e3 * cost['decode']:.0f} ms", f"{decodes * cost['decode']:.1f} s"],
        [
            f"{ORIGINALS} overviews",
            f"{1e3 * cost['overview']:.0f} ms",
            f"{ORIGINALS * cost['overview']:.1f} s",
        ],
        [
            f"{ROLLOUTS * CROPS} crops",
            f"{1e3 * cost['crop']:.0f} ms",
            f"{ROLLOUTS * CROPS * cost['crop']:.1f} s",
        ],
        [
            f"{ROLLOUTS} resets and calls",
            f"{1e3 * cost['rollout']:.2f} ms",
            f"{ROLLOUTS * cost['rollout']:.2f} s",
        ],
        [f"{ROLLOUTS} x 4 terms", f"{1e3 * cost['scores']:.2f} ms", f"{ROLLOUTS * 4 * cost['scores']:.2f} s"],
        [
            f"pictures in {THREADS} threads, the rest in one",
            "",
            f"{total:.1f} s = {100 * total / STEP_SECONDS:.2f} % of {STEP_SECONDS:,} s",
        ],
    ]
    table(
        f"Calculated for 7B, per GPU: {ROLLOUTS} rollouts about {ORIGINALS} originals of 8K",
        ["what", "measured here, each", "per step"],
        lines,
    )


# --- a real step -------------------------------------------------------------------------------------


class Clock:
    """Wall time inside functions, per name."""

    def __init__(self):
        self.seconds = defaultdict(float)

    def watch(self, owner, attribute, name):
        work = getattr(owner, attribute)

        @functools.wraps(work)
        def measured(*args, **kwargs):
            with self.running(name):
                return work(*args, **kwargs)

        setattr(owner, attribute, measured)

    @contextmanager
    def running(self, name):
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - start


class StepTimes(TrainerCallback):
    """When each step ended; the clock starts anew after the first, which compiles and fills caches."""

    def __init__(self, clock):
        self.clock, self.ends = clock, []

    def on_step_end(self, args, state, control, **kwargs):
        if not self.ends:
            self.clock.seconds.clear()
        self.ends.append(time.perf_counter())


def demo_step(folder, steps=9):
    """Steps of the demo's small model at the demo's size: 8 questions, 8 rollouts each."""
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    list(world.make_pictures(folder, 8, seed=1, photos=world.TRAINING_PHOTOS, name="rows"))
    warm = Path(lfpc_trl.demo.__file__).parent / "warm"
    processor = processors.load_processor(warm)
    frame, factor = families.family_of(warm).frame, processors.factor(processor)
    rows = with_shown_tokens(read_rows(folder / "rows.jsonl", require_targets=True), 54, factor=factor)
    crops = CropSettings(frame=frame, factor=factor, crop_tokens=64, max_crops=2)
    clock = Clock()
    clock.watch(CropEnvironment, "reset", "environment: resets")
    clock.watch(CropEnvironment, crop_tool.TOOL_NAME, "environment: calls")
    pixels = lazy.LazyImage.im.fget

    def im(self):
        with clock.running("waiting for pictures"):
            return pixels(self)

    lazy.LazyImage.im = property(im, lazy.LazyImage.im.fset)
    for term in (rewards.AccuracyReward, rewards.FormatReward, rewards.ToolBonus, rewards.GroundingReward):
        clock.watch(term, "__call__", "reward terms and metrics")
    clock.watch(trainer, "score_transcripts", "reward terms and metrics")
    clock.watch(trainer.RolloutTrainer, "_check_tokens", "endings and checks")
    clock.watch(trainer, "ending", "endings and checks")
    clock.watch(trajectories.Round, "trajectories", "trajectory log")
    clock.watch(trajectories.TrajectoryLog, "write", "trajectory log")
    clock.watch(ToolUseAlert, "on_log", "alert")
    batch = 64
    config = GRPOConfig(
        output_dir=str(folder / "run"),
        num_generations=8,
        per_device_train_batch_size=batch,
        max_steps=steps,
        max_completion_length=512,
        max_tool_calling_iterations=2,
        generation_kwargs={"max_new_tokens": 48, **processors.never_sampled(processor, use_vllm=False)},
        temperature=0.5,
        reward_weights=[0.8, 0.2, 1.2, 1.0],
        learning_rate=1.5e-4,
        loss_type="bnpo",
        bf16=False,
        use_cpu=True,
        activation_checkpointing=False,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )

    def columns(numbers):
        return {
            "prompt": [build_prompt(frame) for _ in numbers["number"]],
            "row": [rows[number] for number in numbers["number"]],
        }

    grpo = trainer.RolloutTrainer(
        model=weights.load_model(warm),
        reward_funcs=[
            rewards.AccuracyReward(),
            rewards.FormatReward(),
            rewards.ToolBonus(),
            rewards.GroundingReward(),
        ],
        args=config,
        train_dataset=Dataset.from_dict({"number": list(range(len(rows)))}).with_transform(columns),
        processing_class=processor,
        crops=crops,
        environment_factory=environment_factory(crops),
        trajectories=trajectories.TrajectoryLog(folder / "run" / trajectories.DIRECTORY),
    )
    times = StepTimes(clock)
    grpo.remove_callback(PrinterCallback)
    grpo.add_callback(ToolUseAlert())
    grpo.add_callback(times)
    grpo.train()
    seconds = times.ends[-1] - times.ends[0]
    logged = list((folder / "run" / trajectories.DIRECTORY).glob("*.parquet"))
    lines = [
        [name, f"{1e3 * spent / (steps - 1):.1f} ms", f"{100 * spent / seconds:.2f} %"]
        for name, spent in sorted(clock.seconds.items(), key=lambda item: -item[1])
    ]
    ours = sum(clock.seconds.values())
    lines.append(["all of it", f"{1e3 * ours / (steps - 1):.1f} ms", f"{100 * ours / seconds:.2f} %"])
    lines.append(["the step", f"{1e3 * seconds / (steps - 1):.0f} ms", "100 %"])
    table(
        "Our share of a step of the demo, 64 rollouts, one torch thread, "
        f"{statistics.mean(path.stat().st_size for path in logged) / 1e3:.0f} KB of trajectories per step",
        ["what", "per step", "share"],
        lines,
    )


def main():
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = make_rows(folder, GROUPS)
        bytes_gathered(rows)
        picture_work(rows)
        calculate(rows)
        demo_step(folder / "demo")


if __name__ == "__main__":
    main()
