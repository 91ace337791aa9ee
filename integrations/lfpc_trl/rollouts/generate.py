"""Rollouts outside the trainer: the same conversation as in training, with any engine writing the turns.

What a row goes through here is what TRL does with it: the same environment, the same chat template with the
same tool description, the same parser of calls, messages of the same shape. So a model is evaluated on
exactly what it was trained on. One thing differs: a rollout has no budget of tokens for all its turns
together (`max_completion_length` of TRL), only the model's own context ends it.

`stream_rollouts` takes jobs as it has room for them and gives back rollouts as they end; `generate_rollouts`
is a list in and a list out.
"""

import json
import time
import weakref
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from PIL import Image
from transformers.utils import get_json_schema
from trl.chat_template_utils import parse_response
from trl.data_utils import prepare_multimodal_messages

from lfpc_rewards import Frame
from lfpc_rewards.parsing import is_image
from lfpc_trl.data.rows import Row, one_or_all
from lfpc_trl.models.engines import Engine, Picture, Prompt, PromptLimits, Refused, image_token_id
from lfpc_trl.models.processors import factor
from lfpc_trl.pictures.lazy import LazyImage
from lfpc_trl.pictures.sizes import tokens_of
from lfpc_trl.rollouts.crop_tool import TOOL_NAME, CropEnvironment, CropSettings, environment_for
from lfpc_trl.rollouts.prompts import Message, build_prompt, question_text, user_blocks
from lfpc_trl.rollouts.turns import TurnWriter

_REMEMBERED = 1024
"""Prompts, replies and first turns that are remembered: conditions, samples and budgets share them."""
_REPLY_TOKENS = 512
"""Tokens of the text with which calls of one turn are answered, at most as a rule: what does not fit into the
context ends its rollout."""

Turn = list[Any]
"""A turn as its writer knows it again: token ids of an engine, JSON texts of a server."""
MakePrompt = Callable[[Row], list[Message]]
"""Makes the messages before the first turn."""


@dataclass(frozen=True)
class RolloutSettings:
    """How turns are written.

    Attributes:
        max_turns: generations per rollout; a tool call in the last one stays unanswered, as in TRL.
        max_new_tokens: limit on the tokens of one turn (the paper's 2048).
        temperature: 0 decodes greedily; above it the model is sampled, from its whole distribution.
        seed: of the sampling. What is drawn for a row depends on seed, sample, id, shown size and turn, not
            on the rows beside it; torch's own random state is left as it was.
        batch_size: rollouts under way.
        batch_tokens: tokens in one call of the engine, padding included; a larger rollout stands alone. None
            sets no limit.

    Raises:
        ValueError: a setting out of range.
    """

    max_turns: int = 5
    max_new_tokens: int = 2048
    temperature: float = 0.0
    seed: int = 0
    batch_size: int = 32
    batch_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.max_turns < 1 or self.max_new_tokens < 1 or self.batch_size < 1 or self.temperature < 0:
            raise ValueError(
                "max_turns, max_new_tokens and batch_size must be at least 1 and temperature at least 0, got "
                f"{self.max_turns}, {self.max_new_tokens}, {self.batch_size} and {self.temperature}"
            )


@dataclass(frozen=True, eq=False)
class Job:
    """A rollout to be made.

    Attributes:
        row: a row with a `shown_size`.
        crops: how crops are cut and in which frame the model counts.
        tools: whether the crop tool is offered. Without it there is one turn.
        sample: which of several draws for the same row.
        first_turn: what to take as the first turn instead of generating it, so that what follows can be
            compared with another rollout that began the same, such as one with other crops.
        pictures: the pictures at their shown sizes, where they are at hand; without the tool only, which
            reads its own.
        prompt: makes the messages of the row, in place of LFPC's; there is no tool then and one turn.
    """

    row: Row
    crops: CropSettings
    tools: bool = True
    sample: int = 0
    first_turn: Sequence[Any] | None = None
    pictures: Sequence[Image.Image] | None = None
    prompt: MakePrompt | None = None

    @property
    def has_tool(self) -> bool:
        """Whether the model is told of the crop tool and its calls are answered."""
        return self.tools and self.prompt is None


@dataclass(frozen=True)
class Rollout:
    """What a model did with one row.

    Attributes:
        row: the row, as it was shown.
        messages: the completion as our trainer hands it to reward functions: turns of the model as they were
            written (`rollouts.turns`) and tool messages.
        first_turn: the first turn, for `Job.first_turn`.
        calls: whether the calls of the last turn could be parsed.
        complete: whether the last turn was ended by the model, not by a limit.
        seconds: this rollout's share of the wall time; a first turn that was given took none.
        usage: the tokens of the turns that were generated.
    """

    row: Row
    messages: list[Message]
    first_turn: Turn
    calls: bool
    complete: bool
    seconds: float
    usage: "Usage"


@dataclass(frozen=True)
class Usage:
    """What a rollout has cost.

    Attributes:
        prompt_tokens: read before its turns, all turns together; a server charges for each of them.
        completion_tokens: written.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.prompt_tokens + other.prompt_tokens, self.completion_tokens + other.completion_tokens
        )


@dataclass
class Live:
    """A rollout under way. `ids` hold one placeholder per image; a server is given messages instead."""

    job: Job
    environment: CropEnvironment
    ids: list[int] = field(default_factory=list)
    images: list[Image.Image] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    tokens: int = 0
    messages: list[Message] = field(default_factory=list)
    first_turn: Turn = field(default_factory=list)
    turns: int = 0
    calls: bool = False
    complete: bool = False
    over: bool = False
    error: Exception | None = None
    seconds: float = 0.0
    usage: Usage = Usage()

    def outcome(self) -> "Rollout | Exception":
        """What became of it."""
        return self.error or Rollout(
            self.job.row,
            self.messages,
            self.first_turn,
            self.calls,
            self.complete,
            self.seconds,
            self.usage,
        )


class Speaker(Protocol):
    """Holds the conversations of one stream."""

    def start(self, job: Job) -> Live:
        """A new rollout; over if its one turn was given, or its picture is gone."""

    def speak(self, lives: Sequence[Live]) -> list[Live]:
        """One turn of some of these rollouts, at least of one; those that have spoken."""

    def close(self) -> None:
        """Nobody waits for a turn any more."""


class ChatEngine(ABC):
    """What is asked with messages and not with tokens, and so holds conversations itself: a server.

    Attributes:
        factor: pixels per side of a visual token.
    """

    factor: int

    @abstractmethod
    def speaker(self, settings: RolloutSettings) -> Speaker:
        """Who holds the conversations of a stream."""


def factor_of_engine(engine: Engine | ChatEngine) -> int:
    """Pixels per side of a visual token of the model behind an engine."""
    return engine.factor if isinstance(engine, ChatEngine) else factor(engine.processor)


def stream_rollouts(
    engine: Engine | ChatEngine,
    next_job: Callable[[], Job | None],
    settings: RolloutSettings,
    *,
    on_first_turn: Callable[[Job, Turn], object] | None = None,
    on_turn: Callable[[Job, Sequence[Message]], object] | None = None,
) -> Iterator[tuple[Job, Rollout | Exception]]:
    """Make rollouts as jobs come in, and give each back when it ends.

    Up to `batch_size` rollouts are under way at a time. Each pass generates one turn for all of them; those
    that are done make room for the next jobs, so a long rollout does not hold up the others. A picture that
    several rollouts under way are shown is made ready once.

    Args:
        engine: what writes the turns.
        next_job: the next job, None where there is none at the moment. It is asked again after every pass;
            the stream ends when it has none while no rollout is under way.
        settings: how turns are written.
        on_first_turn: told each first turn as soon as it was generated, for jobs that are to begin with it.
        on_turn: told the messages of a rollout after each turn that was generated, answers to its calls
            included.

    Yields:
        The job with its rollout, or with the error of its picture, or the engine's refusal.

    Raises:
        ValueError: a row without `shown_size`, or without targets where crops come from them; a prompt with
            more placeholders than pictures.
    """
    speaker = _speaker(engine, settings)
    under_way: list[Live] = []
    try:
        while True:
            ended: list[Live] = []
            while len(under_way) < settings.batch_size and (job := next_job()) is not None:
                live = speaker.start(job)
                (ended if live.over else under_way).append(live)
            for batch in _batches(under_way, settings.batch_tokens):
                for live in speaker.speak(batch):
                    if live.turns == 1 and live.job.first_turn is None and on_first_turn is not None:
                        on_first_turn(live.job, live.first_turn)
                    if on_turn is not None:
                        on_turn(live.job, live.messages)
            ended += [live for live in under_way if live.over]
            if not ended and not under_way:
                return
            under_way = [live for live in under_way if not live.over]
            for live in ended:
                yield live.job, live.outcome()
    finally:
        speaker.close()


def _speaker(engine: Engine | ChatEngine, settings: RolloutSettings) -> Speaker:
    return engine.speaker(settings) if isinstance(engine, ChatEngine) else _TokenSpeaker(engine, settings)


def _batches(lives: list[Live], batch_tokens: int | None) -> Iterator[list[Live]]:
    """Rollouts that are passed to the engine together, of similar length where tokens are limited."""
    if batch_tokens is None:
        yield lives
        return
    batch: list[Live] = []
    for live in sorted(lives, key=lambda each: each.tokens, reverse=True):
        if batch and (len(batch) + 1) * batch[0].tokens > batch_tokens:
            yield batch
            batch = []
        batch.append(live)
    yield batch


def generate_rollouts(
    engine: Engine | ChatEngine,
    rows: Sequence[Row],
    *,
    crop_settings: CropSettings,
    tools: bool = True,
    max_turns: int = 5,
    max_new_tokens: int = 2048,
    temperature: float = 0.0,
    seed: int = 0,
    batch_size: int = 32,
    first_turns: Sequence[list[int]] | None = None,
    pictures: Sequence[Image.Image] | None = None,
    prompt: MakePrompt | None = None,
    progress: Callable[[int], object] | None = None,
) -> list[Rollout]:
    """Let the model work on every row, in batches; see `stream_rollouts`.

    Args:
        engine: what writes the turns.
        rows: rows with a `shown_size`.
        crop_settings: how crops are cut and in which frame the model counts.
        tools: whether the crop tool is offered. Without it there is one turn.
        max_turns: as in `RolloutSettings`, as are the next four.
        max_new_tokens: limit on the tokens of one turn.
        temperature: 0 decodes greedily.
        seed: of the sampling.
        batch_size: rollouts per pass.
        first_turns: the first turn of each row, see `Job`.
        pictures: the only picture of each row at its shown size, where they are at hand; without the tool
            only.
        prompt: makes the messages of a row, in place of LFPC's; there is no tool then and one turn.
        progress: called with the number of rollouts that were just finished, such as `tqdm.update`.

    Returns:
        One rollout per row, in the order of the rows.

    Raises:
        ValueError: a setting out of range, a row without `shown_size`, or without targets where crops
            come from them.
        OSError: a picture is gone.
        Refused: the engine does not take a row's prompt; nothing is given back then.
    """
    settings = RolloutSettings(max_turns, max_new_tokens, temperature, seed, batch_size)
    if first_turns is not None and len(first_turns) != len(rows):
        raise ValueError(f"first_turns must have one entry per row, got {len(first_turns)} for {len(rows)}")
    if pictures is not None and (tools or prompt is not None or len(pictures) != len(rows)):
        raise ValueError(
            "pictures must have one entry per row, no tool and no prompt, "
            f"got {len(pictures)} for {len(rows)}"
        )
    jobs = [
        Job(
            row,
            crop_settings,
            tools,
            first_turn=None if first_turns is None else first_turns[index],
            pictures=None if pictures is None else [pictures[index]],
            prompt=prompt,
        )
        for index, row in enumerate(rows)
    ]
    waiting = iter(jobs)
    done: dict[Job, Rollout] = {}
    for job, outcome in stream_rollouts(engine, lambda: next(waiting, None), settings):
        if isinstance(outcome, Exception):
            raise outcome
        done[job] = outcome
        if progress is not None:
            progress(1)
    return [done[job] for job in jobs]


def one_rollout(
    engine: Engine | ChatEngine,
    job: Job,
    settings: RolloutSettings,
    on_turn: Callable[[Job, Sequence[Message]], object] | None = None,
) -> Rollout | Exception:
    """The rollout of one job, or why there is none; the arguments are those of `stream_rollouts`."""
    jobs = iter([job])
    [(_, outcome)] = stream_rollouts(engine, lambda: next(jobs, None), settings, on_turn=on_turn)
    return outcome


def prompt_limits(
    processor: Any,
    rows: Sequence[Row],
    picture_tokens: int,
    *,
    max_new_tokens: int,
    max_turns: int = 1,
    crops: CropSettings | None = None,
) -> PromptLimits:
    """The largest conversation of these rows, bounded from above without tokenising them all.

    Args:
        processor: the processor of the model.
        rows: what is asked.
        picture_tokens: visual tokens of the largest picture as it is shown.
        max_new_tokens: limit on the tokens of one turn.
        max_turns: generations per rollout.
        crops: how crops are cut; None where the tool is not offered.
    """
    side = factor(processor)
    longest = max(rows, key=lambda row: len(question_text(row).encode()))
    most = max(rows, key=lambda row: len(row.pictures))
    pictures = len(most.pictures)
    blocks = user_blocks(longest, [Image.new("RGB", (side, side))] * pictures)
    frame = Frame.SHOWN if crops is None else crops.frame  # without the tool nothing is said of boxes
    text = processor.apply_chat_template(
        prepare_multimodal_messages(build_prompt(frame, blocks, tools=crops is not None, pictures=pictures)),
        tokenize=False,
        add_generation_prompt=True,
        tools=None if crops is None else tool_schema(environment_for(most, crops)),
    )
    # Qwen's tokens are pieces of UTF-8: a text has no more tokens than bytes.
    tokens = pictures * picture_tokens + len(text.encode()) + max_new_tokens
    if crops is None:
        return PromptLimits(pictures, picture_tokens, tokens)
    tokens += crops.max_crops * crops.crop_tokens + (max_turns - 1) * (max_new_tokens + _REPLY_TOKENS)
    return PromptLimits(pictures + crops.max_crops, max(picture_tokens, crops.crop_tokens), tokens)


def tool_schema(environment: CropEnvironment) -> list[Any]:
    """The description of the crop tool. TRL renders the method itself, with the same result."""
    return [get_json_schema(environment.image_zoom_in_tool)]


class _TokenSpeaker:
    """What it takes to hold a conversation with an engine; shared by the rollouts of one stream."""

    def __init__(self, engine: Engine, settings: RolloutSettings) -> None:
        self.engine, self.processor, self.tokenizer = engine, engine.processor, engine.processor.tokenizer
        self.settings = settings
        self.image_id = image_token_id(self.processor)
        self._factor = factor(self.processor)
        self._tools: dict[int, list[Any]] = {}  # by the number of a row's pictures
        self._rendered: dict[Any, list[int]] = {}
        self._turns = TurnWriter(self.processor)
        self._parsed: dict[Any, list[Message]] = {}
        self._ready: weakref.WeakValueDictionary[Any, Picture] = weakref.WeakValueDictionary()

    def start(self, job: Job) -> Live:
        """A new rollout, its prompt tokenised; over if its one turn was given, or its picture is gone."""
        start = time.perf_counter()
        live = Live(job, environment_for(job.row, job.crops))
        try:
            prompt = first_messages(live)
        except OSError as error:
            live.error, live.over = error, True
            return live
        self._extend(live, self._tokens(prompt, tools=self._offered(live)), images_of(prompt))
        if job.first_turn is not None:
            self.advance(live, list(job.first_turn))
        live.seconds = time.perf_counter() - start
        return live

    def speak(self, lives: Sequence[Live]) -> list[Live]:
        """One turn of each rollout; those that have spoken. The others are over, with an error."""
        start = time.perf_counter()
        for live in lives:
            self._make_ready(live)
        speaking = [live for live in lives if not live.over]
        turns = self.engine.generate(
            [self.prompt(live) for live in speaking],
            max_new_tokens=self.settings.max_new_tokens,
            temperature=self.settings.temperature,
        )
        for live, turn in zip(speaking, turns, strict=True):
            if isinstance(turn, Refused):
                live.error, live.over = turn, True
            else:
                live.usage += Usage(live.tokens, len(turn))
                self.advance(live, turn)
        for live in lives:
            live.seconds += (time.perf_counter() - start) / len(lives)
        return [live for live in speaking if live.error is None]

    def close(self) -> None:
        """Nothing is under way between two turns."""

    def prompt(self, live: Live) -> Prompt:
        """What the engine is given for the next turn."""
        return Prompt(live.ids, live.pictures, seed_of(live, self.settings.seed))

    def advance(self, live: Live, turn: list[int]) -> None:
        """Take in a turn of the model and answer its tool calls, unless the rollout is over."""
        tools = self._offered(live)
        calls = self._calls(live, turn, tools)
        live.messages.append(self._turns.message(turn))
        live.turns += 1
        live.first_turn = live.first_turn or turn
        live.calls, live.complete = bool(calls), self._turns.is_ended(turn)
        live.over = True
        if not calls or tools is None or live.turns >= self.settings.max_turns:
            return
        answers = [answer_call(live.environment, call) for call in calls]
        self._extend(live, turn + self._reply_tokens(answers), images_of(answers))
        if live.tokens >= self.engine.context:
            return  # as TRL: an answer that does not fit is dropped and the rollout ends before it
        live.messages.extend(answers)
        live.over = False

    def _calls(self, live: Live, turn: list[int], tools: list[Any] | None) -> list[Message]:
        """The calls of a turn; those of a first turn that several rollouts share are parsed once."""
        shared = (tuple(live.ids), tuple(turn), tools is None) if live.turns == 0 else None
        if shared in self._parsed:
            return self._parsed[shared]
        parsed = parse_response(self.tokenizer, turn, prefix=live.ids, tools=tools)
        calls: list[Message] = parsed.get("tool_calls") or []
        if shared is not None:
            _remember(self._parsed, shared, calls)
        return calls

    def _offered(self, live: Live) -> list[Any] | None:
        """The description of the tool, if the job offers it."""
        if not live.job.has_tool:
            return None
        pictures = live.environment.pictures
        if pictures not in self._tools:
            self._tools[pictures] = tool_schema(live.environment)
        return self._tools[pictures]

    def _extend(self, live: Live, ids: Sequence[int], images: Sequence[Image.Image]) -> None:
        """Append tokens and the images of their placeholders."""
        rendered = ids.count(self.image_id)
        if rendered != len(images):
            # A template that drops pictures.
            raise ValueError(
                f"row {live.job.row.id}: the prompt must hold {len(images)} pictures, got {rendered}"
            )
        live.ids.extend(ids)
        live.images.extend(images)
        live.tokens += len(ids) + sum(tokens_of(image.size, self._factor) - 1 for image in images)

    def _make_ready(self, live: Live) -> None:
        """Make the images ready that the engine has not seen yet. Not earlier: many are never shown."""
        for image in live.images[len(live.pictures) :]:
            recipe = image.recipe if isinstance(image, LazyImage) else None
            picture = None if recipe is None else self._ready.get(recipe)
            if picture is None:
                try:
                    image.load()
                except Exception as error:  # Pillow's decoders raise what they like on damaged files
                    live.error, live.over = error, True
                    return
                picture = self.engine.picture(image)
                if recipe is not None:
                    self._ready[recipe] = picture
            live.pictures.append(picture)

    def _tokens(self, messages: Sequence[Message], **options: Any) -> list[int]:
        """The tokens of messages. Those of the same words are made once, whatever their pictures are."""
        words = json.dumps([messages, options], default=lambda _: None)
        if words not in self._rendered:
            text = self.processor.apply_chat_template(
                prepare_multimodal_messages(list(messages)),
                tokenize=False,
                **({"add_generation_prompt": True} | options),
            )
            ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
            _remember(self._rendered, words, ids)
        return self._rendered[words]

    def _reply_tokens(self, answers: Sequence[Message]) -> list[int]:
        """The tokens from the end of the model's turn to the start of its next one.

        Rendered after a made-up turn, as TRL does: what the model wrote is never rendered again, so its
        tokens stay the ones it sampled.
        """
        call = {"type": "function", "function": {"name": TOOL_NAME, "arguments": {}}}
        before: list[Message] = [
            {"role": "user", "content": "?"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
        ]
        start = self._tokens(before, add_generation_prompt=False)
        end = self.tokenizer.eos_token_id
        if end in start:  # the line break behind the end of turn belongs to what follows
            start = start[: len(start) - start[::-1].index(end)]
        return self._tokens([*before, *answers])[len(start) :]


def seed_of(live: Live, seed: int) -> int:
    """The seed of the draws for the next turn of a rollout."""
    row = live.job.row
    place = f"{seed} {row.id} {one_or_all(row.shown_sizes or ())} {live.turns}"
    if live.job.sample:
        place += f" {live.job.sample}"
    return zlib.crc32(place.encode())


def _remember(known: dict[Any, Any], key: Any, value: Any) -> None:
    if len(known) >= _REMEMBERED:
        known.clear()
    known[key] = value


def first_messages(live: Live) -> list[Message]:
    """The messages before the first turn; with the tool its environment is ready.

    Raises:
        OSError: the picture is gone.
    """
    job = live.job
    if job.prompt is not None:
        return job.prompt(job.row)
    if job.pictures is not None:
        blocks = user_blocks(job.row, job.pictures)
    else:
        blocks = live.environment.reset(row=job.row)
    return build_prompt(job.crops.frame, blocks, tools=job.tools, pictures=len(job.row.pictures))


def answer_call(environment: CropEnvironment, call: Message) -> Message:
    """The tool message for a call; a call that cannot be served is told why, in TRL's words."""
    function = call.get("function") or {}
    name = function.get("name")
    try:
        if name != TOOL_NAME:
            raise ValueError(f"Tool {name} not found.")
        content = environment.image_zoom_in_tool(**function["arguments"])
    except (ValueError, TypeError, KeyError) as error:  # what arguments written by a model can cause
        content = str({"error": str(error)})
    return {"role": "tool", "name": name, "content": content}


def images_of(messages: Sequence[Message]) -> list[Image.Image]:
    """The pictures in messages, in order."""
    return [
        block["image"]
        for message in messages
        if isinstance(message["content"], list)
        for block in message["content"]
        if is_image(block)
    ]
