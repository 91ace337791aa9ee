"""The checks: what training with tools requires of a checkpoint, with one verdict per requirement.

Processor, tokenizer and chat template are the checkpoint's; the model is a small version of its architecture
with random weights (`conformance.shrunk`), so that no weights are read and the model's size does not matter.
"""

import functools
import itertools
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from PIL import Image
from transformers.utils import get_json_schema
from trl.chat_template_utils import parse_response
from trl.data_utils import prepare_multimodal_messages

from lfpc_rewards import Frame, parse_completion
from lfpc_rewards.parsing import BOX_ARGUMENT, TOOL_NAME, has_image
from lfpc_trl.conformance.scripted import ScriptedEngine, scripted_trainer
from lfpc_trl.conformance.shrunk import shrunk_model, weight_differences
from lfpc_trl.data.rows import Row, read_rows
from lfpc_trl.errors import UserError, one_line
from lfpc_trl.models.families import ModelFamily, family_of
from lfpc_trl.models.processors import factor, load_processor
from lfpc_trl.models.weights import check_weights, load_model
from lfpc_trl.pictures.sizes import tokens_of
from lfpc_trl.rollouts.crop_tool import CropEnvironment, CropSettings
from lfpc_trl.rollouts.generate import generate_rollouts
from lfpc_trl.rollouts.prompts import Message, build_prompt
from lfpc_trl.rollouts.turns import TurnWriter
from lfpc_trl.train.run import quiet

Level = Literal["ok", "warning", "problem", "skipped"]
_WIDTH, _HEIGHT = 8, 6
"""Sides of the picture in visual tokens; it is shown at half this size."""
_MAX_LISTED = 3
"""The most weights that a verdict names."""


class Verdict(NamedTuple):
    """One line of the report.

    Attributes:
        level: a `problem` stops a training or damages it; a `warning` may.
        name: name of the check.
        text: the result.
    """

    level: Level
    name: str
    text: str


class _Fails(Exception):  # noqa: N818 - a verdict
    """The check fails; the text says why."""


class _Warns(Exception):  # noqa: N818 - a verdict
    """The check passes with a warning."""


@dataclass
class _Subject:
    """The model directory under test, and test inputs that are created when first used."""

    model_dir: Path
    work: Path

    @functools.cached_property
    def family(self) -> ModelFamily:
        return family_of(self.model_dir)

    @functools.cached_property
    def processor(self) -> Any:
        return load_processor(self.model_dir)

    @functools.cached_property
    def crops(self) -> CropSettings:
        return CropSettings(self.family.frame or Frame.RELATIVE_1000, factor(self.processor), crop_tokens=16)

    @functools.cached_property
    def row(self) -> Row:
        """A picture with a target, shown at half its size."""
        side = factor(self.processor)
        Image.effect_noise((_WIDTH * side, _HEIGHT * side), 80).convert("RGB").save(self.work / "picture.png")
        record = {
            "id": "conformance",
            "question": "What is on the sign? <|image_pad|> <|image|>",
            "answer": ["A"],
            "image": "picture.png",
            "shown_size": [_WIDTH // 2 * side, _HEIGHT // 2 * side],
        }
        path = self.work / "rows.jsonl"
        path.write_text(json.dumps(record) + "\n", encoding="utf-8")
        return read_rows(path)[0]

    @functools.cached_property
    def box(self) -> list[float]:
        """The upper left quarter, in the model's frame."""
        if self.crops.frame is Frame.RELATIVE_1000:
            return [0, 0, 500, 500]
        width, height = self.row.shown_size or (0, 0)
        return [0, 0, width // 2, height // 2]

    @functools.cached_property
    def tools(self) -> list[Any]:
        return [get_json_schema(CropEnvironment(self.crops).image_zoom_in_tool)]

    @functools.cached_property
    def conversation(self) -> list[Message]:
        """A prompt, a call, a tool message with a picture, and the last turn."""
        environment = CropEnvironment(self.crops)
        prompt = build_prompt(self.crops.frame, environment.reset(row=self.row))
        call = {"name": TOOL_NAME, "arguments": {BOX_ARGUMENT: self.box}}
        return [
            *prompt,
            {
                "role": "assistant",
                "content": "<think>near</think>",
                "tool_calls": [{"type": "function", "function": call}],
            },
            {"role": "tool", "name": TOOL_NAME, "content": environment.image_zoom_in_tool(self.box)},
            {"role": "assistant", "content": "<think>so</think><answer>A</answer>"},
        ]

    def render(self, messages: list[Message], **options: Any) -> str:
        return str(
            self.processor.apply_chat_template(
                prepare_multimodal_messages(messages), tools=self.tools, tokenize=False, **options
            )
        )

    @functools.cached_property
    def prompt(self) -> str:
        return self.render(self.conversation[:2], add_generation_prompt=True)

    @functools.cached_property
    def opens_thinking(self) -> bool:
        return self.prompt.rstrip().endswith("<think>")

    def turn(self, text: str, *, thinking: str = "near") -> list[int]:
        """The tokens of a turn with thinking, then `text`, and the end-of-turn token."""
        opening = "" if self.opens_thinking else "<think>"
        ids = self.ids(f"{opening}{thinking}</think>{text}")
        return [*ids, self.end(text)]

    def end(self, text: str) -> int:
        """The token with which the template ends a turn with this text."""
        calling, answering = (
            self.render(self.conversation[:3]),
            self.render([*self.conversation[:2], self.conversation[4]]),
        )
        rendered = calling if "<tool_call>" in text else answering
        ends: list[int] = list(self.processor.turn_ends)
        tokens = self.processor.tokenizer.convert_ids_to_tokens(ends)
        return next(end for end, token in zip(ends, tokens, strict=True) if rendered.rstrip().endswith(token))

    @functools.cached_property
    def call(self) -> str:
        """The call as rendered by the template."""
        text = self.render(self.conversation[:3])
        start = text.rindex("<tool_call>")
        return text[start : text.rindex("</tool_call>") + len("</tool_call>")]

    def ids(self, text: str) -> list[int]:
        return list(self.processor.tokenizer(text, add_special_tokens=False)["input_ids"])

    @functools.cached_property
    def script(self) -> list[list[list[int]]]:
        """Four rollouts with different rewards, two of them with crops."""
        call, right, wrong = (
            self.turn(text) for text in (self.call, "<answer>A</answer>", "<answer>B</answer>")
        )
        return [[call, right], [right], [call, wrong], [wrong]]


# --- the files ---------------------------------------------------------------------------------------


def _family(subject: _Subject) -> str:
    family = subject.family
    text = f"{family.name}; calls in {family.calls.name}; {family.factor} pixels per visual token"
    if family.frame is None:
        raise _Warns(f"{text}; frame of boxes {family.frame_source}: frame in a recipe, --frame of lfpc eval")
    return f"{text}; boxes in {family.frame}, {family.frame_source}"


def _weights(subject: _Subject) -> str:
    check_weights(subject.model_dir)
    wrong, unexpected = weight_differences(subject.model_dir)
    if wrong:
        raise _Fails(_some(wrong))
    if unexpected:
        raise _Warns(_some(unexpected))
    return "names and shapes match the config"


def _some(texts: list[str]) -> str:
    more = f" (and {len(texts) - _MAX_LISTED} more)" if len(texts) > _MAX_LISTED else ""
    return "; ".join(texts[:_MAX_LISTED]) + more


def _processor(subject: _Subject) -> str:
    side, expected = factor(subject.processor), subject.family.factor
    if side != expected:
        raise _Warns(f"{side} pixels per visual token, but {subject.family.name} has {expected}")
    missing = [
        token
        for token in subject.family.vision_tokens.values()
        if token not in subject.processor.tokenizer.get_vocab()
    ]
    if missing:
        raise _Fails(f"its tokenizer has no {', '.join(missing)}")
    ends = subject.processor.tokenizer.convert_ids_to_tokens(subject.processor.turn_ends)
    return f"{side} pixels per visual token; turns end with {', '.join(ends)}"


# --- the chat template -------------------------------------------------------------------------------


def _template(subject: _Subject) -> str:
    lacks = subject.processor.template_problem
    return "the checkpoint's own" if lacks is None else f"ours; the checkpoint's own does not work: {lacks}"


def _round_trip(subject: _Subject) -> str:
    text = subject.render(subject.conversation)
    back = subject.processor.tokenizer.decode(subject.ids(text))
    if back != text:
        start = next(at for at, (a, b) in enumerate(itertools.zip_longest(text, back)) if a != b)
        raise _Fails(
            f"tokens decode to {back[start : start + 40]!r}, but {text[start : start + 40]!r} was rendered"
        )
    for part in ("What is on the sign?", "near", json.dumps(subject.box), "<answer>A</answer>"):
        if part not in text:
            raise _Fails(f"{part!r} is missing from the rendered conversation")
    return f"{len(subject.ids(text)):,} tokens decode to the rendered text"


def _prefix(subject: _Subject) -> str:
    texts = [subject.render(subject.conversation[:end]) for end in range(2, 6)]
    for shorter, longer in itertools.pairwise(texts):
        if not longer.startswith(shorter):
            raise _Fails("earlier messages are rendered differently once later ones are added")
    return "later messages do not change the rendering of earlier ones"


def _calls(subject: _Subject) -> str:
    call, broken = subject.call, "<tool_call>{</tool_call>"
    turns = {  # text after the thinking: expected number of calls that are run and scored
        call: 1,
        f"{call}\n{call}": 2,
        f"{broken}{call}": 0,
        call.removesuffix("</tool_call>"): 0,
        f"{call}</think><answer>A</answer>": 0,
        "<answer>A</answer>": 0,
    }
    writer, prefix = TurnWriter(subject.processor), subject.ids(subject.prompt)
    for text, count in turns.items():
        ids = subject.turn(text)
        parsed = parse_response(subject.processor.tokenizer, ids, prefix=prefix, tools=subject.tools).get(
            "tool_calls"
        )
        run = [each["function"]["arguments"].get(BOX_ARGUMENT) for each in parsed or []]
        if run != [subject.box] * count:
            raise _Fails(f"of {text!r} the calls {run} are run, expected {[subject.box] * count}")
        scored = [crop.box for crop in parse_completion([writer.message(ids)]).crops]
        if run and scored != [tuple(subject.box)] * count:
            raise _Fails(f"of {text!r} the boxes {scored} are scored, expected {[subject.box] * count}")
    return f"in {subject.family.calls.name}: in {len(turns)} kinds of turns, the calls run are those scored"


def _thinking(subject: _Subject) -> str:
    writer = TurnWriter(subject.processor)
    ids = subject.turn("<answer>A</answer>", thinking="so")
    if not parse_completion([writer.message(ids)]).well_formed:
        raise _Fails(f"{writer.message(ids)['content']!r} is not parsed as thinking and an answer")
    if writer.is_ended(ids[:-1]) or not writer.is_ended(ids):
        raise _Fails("the end of a turn is not recognized")
    unclosed = subject.ids("<answer>A</answer>" if subject.opens_thinking else "<think><answer>A</answer>")
    if parse_completion([writer.message(unclosed)]).well_formed:
        raise _Fails("thinking that is never closed counts as well formed")
    return "the prompt opens it" if subject.opens_thinking else "the model opens it"


def _pictures(subject: _Subject) -> str:
    messages = subject.conversation
    pictures = [
        block["image"]
        for message in (messages[1], messages[3])
        for block in message["content"]
        if block["type"] == "image"
    ]
    inputs = subject.processor(text=[subject.render(messages)], images=pictures)
    merged = subject.processor.image_processor.merge_size**2
    features = [int(grid.prod()) // merged for grid in inputs["image_grid_thw"]]
    planned = [tokens_of(picture.size, factor(subject.processor)) for picture in pictures]
    tokens = list(inputs["input_ids"][0]).count(subject.processor.image_token_id)
    if features != planned:
        raise _Fails(f"pictures must have {planned} visual tokens, got {features}")
    if tokens != sum(features):
        raise _Fails(f"{tokens} picture tokens for {sum(features)} features")
    return f"{len(pictures)} pictures, {tokens} tokens and as many features"


# --- the model ---------------------------------------------------------------------------------------


def _rollout(subject: _Subject) -> str:
    first = subject.turn(subject.call)
    engine = ScriptedEngine(shrunk_model(subject.model_dir), subject.processor, first)
    [rollout] = generate_rollouts(
        engine, [subject.row], crop_settings=subject.crops, max_turns=2, max_new_tokens=4
    )
    roles = [message["role"] for message in rollout.messages]
    if roles != ["assistant", "tool", "assistant"]:
        raise _Fails(f"a call is followed by {', '.join(roles[1:]) or 'nothing'}")
    if not has_image(rollout.messages[1]["content"]):
        raise _Fails(f"the tool returned no picture: {rollout.messages[1]['content']}")
    before, after = engine.prompts
    if after[: len(before) + len(first)] != before + first:
        raise _Fails("the second prompt does not begin with the first prompt and its turn")
    return (
        f"a call, its crop and a model turn; the second prompt extends the first, of {len(before):,} tokens"
    )


def _update(subject: _Subject) -> str:
    model = shrunk_model(subject.model_dir)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    trainer = scripted_trainer(
        model, subject.processor, subject.row, subject.crops, subject.script, subject.work / "run"
    )
    trainer.train()
    logs = trainer.state.log_history[0]
    if logs["tools/call_frequency"] != 0.5 or logs["tools/failure_frequency"] != 0:
        raise _Fails(
            f"of two calls in four rollouts, {4 * logs['tools/call_frequency']:g} were run and "
            f"{logs['tools/failure_frequency']:.0%} failed"
        )
    unchanged = [name for name, weight in model.named_parameters() if torch.equal(weight, before[name])]
    if not torch.isfinite(torch.tensor(logs["grad_norm"])) or len(unchanged) == len(before):
        raise _Fails(
            f"gradient norm {logs['grad_norm']}, {len(unchanged)} of {len(before)} weights unchanged"
        )
    shared = trainer.shares_prompts
    how = "the prompt computed once for its group" if shared else "every rollout computed by itself"
    but = f" but {_some(unchanged)}" if unchanged else ""
    return f"{len(before)} weights changed{but}; {how}"


def _save_and_load(subject: _Subject) -> str:
    saved, last = _last_weights(subject)
    for name, weight in load_model(saved).state_dict().items():
        if not torch.equal(weight, last[name]):
            raise _Fails(f"{name} differs after saving and loading")
    differences = weight_differences(saved)
    if any(differences):
        raise _Fails(_some([*differences[0], *differences[1]]))
    return "all weights are equal"


def _resume(subject: _Subject) -> str:
    _, last = _last_weights(subject)
    trainer = scripted_trainer(
        shrunk_model(subject.model_dir),
        subject.processor,
        subject.row,
        subject.crops,
        subject.script,
        subject.work / "run",
    )
    trainer.train(resume_from_checkpoint=str(subject.work / "run" / "checkpoint-1"))
    for name, weight in trainer.model.state_dict().items():
        if not torch.equal(weight, last[name]):
            raise _Fails(f"{name} differs from the uninterrupted run")
    return "resumed from the first step, it ends with the weights of the uninterrupted run"


def _last_weights(subject: _Subject) -> tuple[Path, dict[str, torch.Tensor]]:
    """The checkpoint of the run's last step, and the weights loaded from it."""
    saved = subject.work / "run" / "checkpoint-2"
    return saved, load_model(saved).state_dict()


_Check = Callable[[_Subject], str]
CHECKS: dict[str, tuple[_Check, tuple[str, ...]]] = {
    "family": (_family, ()),
    "weights": (_weights, ("family",)),
    "processor": (_processor, ("family",)),
    "chat template": (_template, ("processor",)),
    "round trip": (_round_trip, ("processor",)),
    "prefix": (_prefix, ("processor",)),
    "calls": (_calls, ("processor",)),
    "thinking": (_thinking, ("processor",)),
    "pictures": (_pictures, ("processor",)),
    "rollout": (_rollout, ("calls", "pictures")),
    "update": (_update, ("calls", "pictures")),
    "save and load": (_save_and_load, ("update",)),
    "resume": (_resume, ("update",)),
}
"""Name: the check, and the checks that must have passed before."""


def examine(model_dir: str | Path) -> Iterator[Verdict]:
    """Check a model directory; takes a minute on a CPU, whatever the model's size.

    Args:
        model_dir: a Hugging Face model directory.

    Yields:
        A verdict for each of `CHECKS`, in order.
    """
    passed: set[str] = set()
    with tempfile.TemporaryDirectory(prefix="lfpc-doctor-") as work:
        subject = _Subject(Path(model_dir), Path(work))
        for name, (check, needed) in CHECKS.items():
            missing = [each for each in needed if each not in passed]
            if missing:
                yield Verdict("skipped", name, f"needs {' and '.join(missing)}")
                continue
            verdict = _verdict(name, check, subject)
            if verdict.level != "problem":
                passed.add(name)
            yield verdict


def _verdict(name: str, check: _Check, subject: _Subject) -> Verdict:
    try:
        with quiet():
            return Verdict("ok", name, check(subject))
    except _Warns as warning:
        return Verdict("warning", name, str(warning))
    except (_Fails, UserError) as reason:
        return Verdict("problem", name, " ".join(str(reason).split()))
    except Exception as error:  # a strange checkpoint can raise anything, and the report must be complete
        return Verdict("problem", name, f"{type(error).__name__}: {one_line(error)}")
