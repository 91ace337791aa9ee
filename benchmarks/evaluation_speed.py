"""Measure a whole evaluation against a plain loop and write the table of benchmarks/README-evaluation.md.

    python benchmarks/evaluation_speed.py    # about 5 minutes on an idle core; --quick for a look

Both evaluate the demo's small model on its pictures under four conditions, on one thread, with sampling as in
the demo. The plain loop asks one question at a time with transformers' `generate`, under each condition
separately, and reads and processes its pictures every time, as evaluation scripts do.
"""

import argparse
import os
import platform
import tempfile
import time
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
import transformers
from PIL import Image
from trl.chat_template_utils import parse_response

from lfpc_trl.data.rows import Row, read_rows
from lfpc_trl.demo import world
from lfpc_trl.demo.run import COARSEST, CROP_TOKENS, TEMPERATURE
from lfpc_trl.evaluate.questions import Benchmark, Question
from lfpc_trl.evaluate.records import Key, Plan, Records, open_items
from lfpc_trl.evaluate.results import write_results
from lfpc_trl.models.engines import TransformersEngine
from lfpc_trl.models.families import family_of
from lfpc_trl.models.processors import factor, load_processor, vision_token_ids
from lfpc_trl.models.weights import load_model
from lfpc_trl.pictures import originals
from lfpc_trl.pictures.crops import BoxError, crop_box, crop_size
from lfpc_trl.pictures.sizes import shown_size
from lfpc_trl.rollouts.crop_tool import TOOL_NAME, CropEnvironment, CropSettings
from lfpc_trl.rollouts.generate import RolloutSettings
from lfpc_trl.rollouts.prompts import build_prompt, user_blocks

PAGE = Path(__file__).with_name("README-evaluation.md")
START, STOP = "<!-- table: written by evaluation_speed.py -->", "<!-- end of table -->"
CONDITIONS = ("predicted", "target", "noise", "no_tool")
MAX_TURNS, MAX_NEW_TOKENS, MAX_CROPS = 3, 48, 2


@dataclass
class Measured:
    """What one way of evaluating took."""

    cpu: float
    wall: float
    turns: int
    decodes: int


class Counted:
    """A model whose generated turns are counted."""

    def __init__(self, model: Any) -> None:
        self.model, self.turns = model, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def generate(self, **inputs: Any) -> Any:
        self.turns += len(inputs["input_ids"])
        return self.model.generate(**inputs)


# --- a plain loop ------------------------------------------------------------------------------------


class PlainLoop:
    """One question after another, nothing kept from one to the next."""

    def __init__(self, model: Counted, processor: Any, crops: CropSettings) -> None:
        self.model, self.processor, self.crops = model, processor, crops
        self.decodes = 0
        self.noise = np.random.default_rng(0)

    def evaluate(self, rows: list[Row]) -> list[str]:
        """The last turns of all rows under all conditions."""
        torch.manual_seed(0)
        return [self.answer(row, condition) for condition in CONDITIONS for row in rows]

    def answer(self, row: Row, condition: str) -> str:
        with Image.open(row.image) as file:
            original = file.convert("RGB")
        self.decodes += 1
        size = shown_size(row.size, COARSEST, factor=self.crops.factor)
        tools = None if condition == "no_tool" else [CropEnvironment(self.crops).image_zoom_in_tool]
        shown = original.resize(size, Image.Resampling.BICUBIC)
        messages = build_prompt(self.crops.frame, user_blocks(row, [shown]), tools=tools is not None)
        delivered = 0
        for turn in range(MAX_TURNS):
            message = self.turn(messages, tools)
            messages.append(message)
            calls = message.get("tool_calls") or []
            if not calls or tools is None or turn == MAX_TURNS - 1:
                break
            for call in calls:
                content = self.reply(row, original, size, call, condition, delivered)
                delivered += isinstance(content, list)
                messages.append({"role": "tool", "name": TOOL_NAME, "content": content})
        return str(messages[-1].get("content"))

    def turn(self, messages: list[dict[str, Any]], tools: Any) -> dict[str, Any]:
        inputs = self.processor.apply_chat_template(
            [messages],
            tools=tools,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            processor_kwargs={"return_tensors": "pt"},
        )
        tokenizer = self.processor.tokenizer
        before = inputs["input_ids"].shape[1]
        made = self.model.generate(
            **inputs,
            max_new_tokens=MAX_NEW_TOKENS,
            do_sample=True,
            temperature=TEMPERATURE,
            top_k=0,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            suppress_tokens=vision_token_ids(self.processor),
        )
        ids = made[0, before:].tolist()
        return dict(parse_response(tokenizer, ids, prefix=inputs["input_ids"][0].tolist(), tools=tools))

    def reply(
        self,
        row: Row,
        original: Image.Image,
        size: tuple[int, int],
        call: dict[str, Any],
        condition: str,
        delivered: int,
    ) -> Any:
        try:
            if delivered >= MAX_CROPS:
                raise BoxError("limit")
            box = crop_box(
                call["function"]["arguments"]["bbox_2d"],
                frame=self.crops.frame,
                shown_size=size,
                original_size=row.size,
            )
        except (BoxError, KeyError, TypeError) as error:
            return str({"error": str(error)})
        if condition == "target":
            assert row.regions is not None
            middle = np.array(box).reshape(2, 2).mean(axis=0)
            regions = [region[-1] for region in row.regions]
            near = min(regions, key=lambda each: float(abs(each.reshape(2, 2).mean(axis=0) - middle).sum()))
            box = tuple(int(side) for side in near)
        wanted = crop_size(box, factor=self.crops.factor, max_tokens=self.crops.crop_tokens)
        if condition == "noise":
            pixels = self.noise.integers(0, 256, (wanted[1], wanted[0], 3), dtype=np.uint8)
            return [{"type": "image", "image": Image.fromarray(pixels)}]
        return [{"type": "image", "image": original.crop(box).resize(wanted, Image.Resampling.BICUBIC)}]


# --- measuring ---------------------------------------------------------------------------------------


def plain(model: Counted, processor: Any, crops: CropSettings, rows: list[Row]) -> int:
    """Evaluate with the plain loop; the pictures decoded."""
    loop = PlainLoop(model, processor, crops)
    assert len(loop.evaluate(rows)) == len(rows) * len(CONDITIONS)
    return loop.decodes


def ours(
    model: Counted, processor: Any, crops: CropSettings, rows: list[Row], folder: Path, batch_size: int
) -> int:
    """Evaluate as `lfpc eval` does, results and thumbnails written; the pictures decoded."""
    originals._PICTURES = cache = originals.PictureCache()  # noqa: SLF001 - counted from zero
    benchmark = Benchmark("demo", tuple(Question(row, row.id) for row in rows))
    plan = Plan((benchmark,), (COARSEST,), CONDITIONS, 1, crops.factor)
    settings = RolloutSettings(MAX_TURNS, MAX_NEW_TOKENS, TEMPERATURE, 0, batch_size)
    work = Records(TransformersEngine(model, processor), crops, settings)
    records = {}
    for piece in work(iter(open_items(plan, {}).items())):
        record = piece.record
        key = Key("demo", record["id"], tuple(record["shown"]), record["condition"], record["sample"])
        records[key] = record
    assert len(records) == len(rows) * len(CONDITIONS)
    write_results(folder, plan, records, crops)
    return cache.decodes


def measure(model: Counted, evaluate: Any) -> Measured:
    model.turns = 0
    wall, cpu = time.perf_counter(), time.process_time()
    decodes = evaluate()
    return Measured(time.process_time() - cpu, time.perf_counter() - wall, model.turns, decodes)


def table(found: dict[str, Measured], rollouts: int) -> str:
    slow = found["plain loop"]
    lines = [
        "| | CPU seconds | turns generated | CPU ms per rollout | pictures decoded | times as fast |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {name} | {each.cpu:.1f} | {each.turns} | {1000 * each.cpu / rollouts:.0f} | {each.decodes} | "
        f"{slow.cpu / each.cpu:.1f} |"
        for name, each in found.items()
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="three pictures, and no page is written")
    args = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    folder = Path(str(resources.files("lfpc_trl.demo") / "warm"))
    processor, model = load_processor(folder), Counted(load_model(folder))
    model.eval()
    crops = CropSettings(family_of(folder).frame, factor(processor), CROP_TOKENS, MAX_CROPS)
    before = os.getloadavg()
    with tempfile.TemporaryDirectory() as name:
        pictures = 3 if args.quick else 40
        list(world.make_pictures(Path(name), pictures, seed=5, photos=world.UNSEEN_PHOTOS, name="test"))
        rows, output = read_rows(Path(name) / "test.jsonl"), Path(name) / "output"
        ways = {
            "plain loop": lambda some: plain(model, processor, crops, some),
            "`lfpc eval`, one rollout at a time": lambda some: ours(model, processor, crops, some, output, 1),
            "`lfpc eval`, 32 rollouts at a time": lambda some: ours(
                model, processor, crops, some, output, 32
            ),
        }
        for evaluate in ways.values():
            evaluate(rows[:3])  # what is loaded and compiled once
        found = {way: measure(model, lambda run=run: run(rows)) for way, run in ways.items()}
    text = table(found, len(rows) * len(CONDITIONS))
    loads = " and ".join(" / ".join(f"{each:.1f}" for each in load) for load in (before, os.getloadavg()))
    text += (
        f"\n\n{pictures} pictures of {rows[0].size[0]} x {rows[0].size[1]} pixels, {len(rows)} questions, "
        f"{len(CONDITIONS)} conditions. {os.cpu_count()} cores, one thread, Python "
        f"{platform.python_version()}, torch {torch.__version__}, transformers {transformers.__version__}, "
        f"Pillow {PIL.__version__}. Load of the machine before and after: {loads}. "
        f"{datetime.now().astimezone():%Y-%m-%d}."
    )
    print(text)
    if not args.quick:
        page = PAGE.read_text(encoding="utf-8")
        head, rest = page.split(START)
        PAGE.write_text(f"{head}{START}\n\n{text}\n\n{STOP}{rest.split(STOP)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
