"""Rollouts outside the trainer: the same conversation as in training, with any engine generating the turns.

A row is handled as in TRL: the same environment, the same chat template with the same tool description, the
same parser of tool calls, messages of the same shape. So a model is evaluated on exactly what it was trained
on. One difference: there is no token budget for a whole rollout (TRL's `max_completion_length`); only the
model's context length limits it.

`stream_rollouts` takes jobs as slots become free and yields rollouts as they finish; `generate_rollouts`
takes a list and returns a list.
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

_CACHE_SIZE = 1024
"""Entries per cache of prompts, replies and parsed first turns. Conditions, samples and budgets share it."""
_REPLY_TOKENS = 512
"""Estimated maximum of text tokens in the tool messages of one turn. Not enforced: a rollout that outgrows
the context ends."""

Turn = list[Any]
"""A turn in the form that its generator accepts back: token ids of an engine, JSON texts of a server."""
MakePrompt = Callable[[Row], list[Message]]
"""Builds the messages before the first turn."""


@dataclass(frozen=True)
class RolloutSettings:
    """How turns are generated.

    Attributes:
        max_turns: model turns per rollout; a tool call in the last one is not run, as in TRL.
        max_new_tokens: limit on the tokens of one turn (the paper's 2048).
        temperature: 0 decodes greedily; above 0 samples from the full distribution.
        seed: sampling seed. Draws for a row depend on seed, sample, id, shown size and turn, not on the other
            rows in the batch; torch's global random state is left unchanged.
        batch_size: concurrent rollouts.
        batch_tokens: tokens in one call of the engine, padding included; a larger rollout is generated alone.
            None: no limit.

    Raises:
        ValueError: a setting is out of range.
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
    """A request for one rollout.

    Attributes:
        row: a row with a `shown_size`.
        crops: how crops are cut, and the frame of the model's boxes.
        tools: whether the crop tool is offered. Without it there is one turn.
        sample: index among several samples of the same row.
        first_turn: used as the first turn instead of generating one, so that rollouts that differ only in
            what follows can be compared, for example with other crops.
        pictures: the pictures at their shown sizes, if already loaded; only without the tool, which opens
            its own.
        prompt: builds the messages of the row in place of LFPC's prompt; no tool and one turn.
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
        """Whether the prompt offers the crop tool and its calls are run."""
        return self.tools and self.prompt is None


@dataclass(frozen=True)
class Rollout:
    """One finished rollout.

    Attributes:
        row: the row, as it was shown.
        messages: the completion as our trainer passes it to reward functions: the model's turns verbatim
            (`rollouts.turns`) and tool messages.
        first_turn: the first turn, for `Job.first_turn`.
        calls: whether tool calls could be parsed from the last turn.
        complete: whether the model ended the last turn itself, not a limit.
        seconds: this rollout's share of the wall time; a given first turn takes none.
        usage: the tokens of the generated turns.
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
    """Token counts of a rollout.

    Attributes:
        prompt_tokens: prompt tokens summed over its turns, as a server charges them.
        completion_tokens: generated tokens.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.prompt_tokens + other.prompt_tokens, self.completion_tokens + other.completion_tokens
        )


@dataclass
class ActiveRollout:
    """A rollout in progress. `ids` hold one placeholder per image; a server gets messages instead."""

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
        """The result: a rollout, or the error that ended it."""
        return self.error or Rollout(
            self.job.row,
            self.messages,
            self.first_turn,
            self.calls,
            self.complete,
            self.seconds,
            self.usage,
        )


class RolloutSession(Protocol):
    """Runs the conversations of one stream."""

    def start(self, job: Job) -> ActiveRollout:
        """Start a rollout; already over if its only turn was given or its picture cannot be opened."""

    def step(self, lives: Sequence[ActiveRollout]) -> list[ActiveRollout]:
        """Generate a turn for at least one of these rollouts; return those that got one."""

    def close(self) -> None:
        """Stop waiting for turns."""


class ChatEngine(ABC):
    """An engine that takes messages instead of tokens and runs its own conversations: a server.

    Attributes:
        factor: pixels per side of a visual token.
    """

    factor: int

    @abstractmethod
    def session(self, settings: RolloutSettings) -> RolloutSession:
        """The speaker that runs the conversations of a stream."""


def factor_of_engine(engine: Engine | ChatEngine) -> int:
    """Pixels per side of a visual token of the engine's model."""
    return engine.factor if isinstance(engine, ChatEngine) else factor(engine.processor)


def stream_rollouts(
    engine: Engine | ChatEngine,
    next_job: Callable[[], Job | None],
    settings: RolloutSettings,
    *,
    on_first_turn: Callable[[Job, Turn], object] | None = None,
    on_turn: Callable[[Job, Sequence[Message]], object] | None = None,
) -> Iterator[tuple[Job, Rollout | Exception]]:
    """Generate rollouts as jobs come in, and yield each when it ends.

    Up to `batch_size` rollouts run at a time. Each pass generates one turn for all of them; finished rollouts
    make room for the next jobs, so a long rollout does not hold up the others. A picture shared by several
    running rollouts is preprocessed once.

    Args:
        engine: generates the turns.
        next_job: returns the next job, or None if there is none right now. Called again after every pass; the
            stream ends when it returns None while no rollout is running.
        settings: how turns are generated.
        on_first_turn: called with each first turn as soon as it is generated, for jobs that reuse it.
        on_turn: called with the messages of a rollout after each generated turn, replies to its tool calls
            included.

    Yields:
        The job with its rollout, with the error of its picture, or with the engine's refusal.

    Raises:
        ValueError: a row without `shown_size`, or without targets where crops come from them; a prompt with
            more placeholders than pictures.
    """
    speaker = _speaker(engine, settings)
    running: list[ActiveRollout] = []
    try:
        while True:
            ended: list[ActiveRollout] = []
            while len(running) < settings.batch_size and (job := next_job()) is not None:
                live = speaker.start(job)
                (ended if live.over else running).append(live)
            for batch in _batches(running, settings.batch_tokens):
                for live in speaker.step(batch):
                    if live.turns == 1 and live.job.first_turn is None and on_first_turn is not None:
                        on_first_turn(live.job, live.first_turn)
                    if on_turn is not None:
                        on_turn(live.job, live.messages)
            ended += [live for live in running if live.over]
            if not ended and not running:
                return
            running = [live for live in running if not live.over]
            for live in ended:
                yield live.job, live.outcome()
    finally:
        speaker.close()


def _speaker(engine: Engine | ChatEngine, settings: RolloutSettings) -> RolloutSession:
    return engine.session(settings) if isinstance(engine, ChatEngine) else _TokenSession(engine, settings)


def _batches(lives: list[ActiveRollout], batch_tokens: int | None) -> Iterator[list[ActiveRollout]]:
    """Split rollouts into batches for the engine, of similar length if tokens are limited."""
    if batch_tokens is None:
        yield lives
        return
    batch: list[ActiveRollout] = []
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
    """Generate one rollout per row, in batches; see `stream_rollouts`.

    Args:
        engine: generates the turns.
        rows: rows with a `shown_size`.
        crop_settings: how crops are cut, and the frame of the model's boxes.
        tools: whether the crop tool is offered. Without it there is one turn.
        max_turns: as in `RolloutSettings`, like the next four.
        max_new_tokens: limit on the tokens of one turn.
        temperature: 0 decodes greedily.
        seed: sampling seed.
        batch_size: concurrent rollouts.
        first_turns: the first turn of each row, see `Job`.
        pictures: the only picture of each row at its shown size, if already loaded; only without the tool.
        prompt: builds the messages of a row in place of LFPC's prompt; no tool and one turn.
        progress: called with the number of rollouts just finished, such as `tqdm.update`.

    Returns:
        One rollout per row, in the order of the rows.

    Raises:
        ValueError: a setting is out of range, a row has no `shown_size`, or no targets where crops come from
            them.
        OSError: a picture cannot be opened.
        Refused: the engine rejects a row's prompt; no rollout is returned then.
    """
    settings = RolloutSettings(max_turns, max_new_tokens, temperature, seed, batch_size)
    if first_turns is not None and len(first_turns) != len(rows):
        raise ValueError(f"first_turns must have one entry per row, got {len(first_turns)} for {len(rows)}")
    if pictures is not None and (tools or prompt is not None or len(pictures) != len(rows)):
        raise ValueError(
            "pictures must have one entry per row, without a tool or prompt, "
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
    pending = iter(jobs)
    done: dict[Job, Rollout] = {}
    for job, outcome in stream_rollouts(engine, lambda: next(pending, None), settings):
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
    """An upper bound on the conversations of these rows, without tokenizing them all.

    Args:
        processor: the model's processor.
        rows: the rows to be asked.
        picture_tokens: visual tokens of the largest shown picture.
        max_new_tokens: limit on the tokens of one turn.
        max_turns: model turns per rollout.
        crops: how crops are cut; None if the tool is not offered.
    """
    side = factor(processor)
    longest = max(rows, key=lambda row: len(question_text(row).encode()))
    most = max(rows, key=lambda row: len(row.pictures))
    pictures = len(most.pictures)
    blocks = user_blocks(longest, [Image.new("RGB", (side, side))] * pictures)
    frame = Frame.SHOWN if crops is None else crops.frame  # without the tool the prompt mentions no boxes
    text = processor.apply_chat_template(
        prepare_multimodal_messages(build_prompt(frame, blocks, tools=crops is not None, pictures=pictures)),
        tokenize=False,
        add_generation_prompt=True,
        tools=None if crops is None else tool_schema(environment_for(most, crops)),
    )
    # Qwen's tokens are byte sequences: a text has no more tokens than UTF-8 bytes.
    tokens = pictures * picture_tokens + len(text.encode()) + max_new_tokens
    if crops is None:
        return PromptLimits(pictures, picture_tokens, tokens)
    tokens += crops.max_crops * crops.crop_tokens + (max_turns - 1) * (max_new_tokens + _REPLY_TOKENS)
    return PromptLimits(pictures + crops.max_crops, max(picture_tokens, crops.crop_tokens), tokens)


def tool_schema(environment: CropEnvironment) -> list[Any]:
    """The JSON schema of the crop tool. TRL builds it from the method itself, with the same result."""
    return [get_json_schema(environment.image_zoom_in_tool)]


class _TokenSession:
    """Runs the conversations of one stream with a token engine."""

    def __init__(self, engine: Engine, settings: RolloutSettings) -> None:
        self.engine, self.processor, self.tokenizer = engine, engine.processor, engine.processor.tokenizer
        self.settings = settings
        self.image_id = image_token_id(self.processor)
        self._factor = factor(self.processor)
        self._schemas: dict[int, list[Any]] = {}  # by number of pictures
        self._rendered: dict[Any, list[int]] = {}
        self._turns = TurnWriter(self.processor)
        self._parsed: dict[Any, list[Message]] = {}
        self._ready: weakref.WeakValueDictionary[Any, Picture] = weakref.WeakValueDictionary()

    def start(self, job: Job) -> ActiveRollout:
        """Start a rollout and tokenize its prompt; see `RolloutSession.start`."""
        start = time.perf_counter()
        live = ActiveRollout(job, environment_for(job.row, job.crops))
        try:
            prompt = first_messages(live)
        except OSError as error:
            live.error, live.over = error, True
            return live
        self._extend(live, self._tokens(prompt, tools=self._tools(live)), images_of(prompt))
        if job.first_turn is not None:
            self.advance(live, list(job.first_turn))
        live.seconds = time.perf_counter() - start
        return live

    def step(self, lives: Sequence[ActiveRollout]) -> list[ActiveRollout]:
        """Generate a turn for each rollout; return those that got one. The others are over, with an error."""
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
        """Do nothing: no request is in flight between turns."""

    def prompt(self, live: ActiveRollout) -> Prompt:
        """The engine's input for the next turn."""
        return Prompt(live.ids, live.pictures, seed_of(live, self.settings.seed))

    def advance(self, live: ActiveRollout, turn: list[int]) -> None:
        """Append the model's turn and run its tool calls, unless the rollout has ended."""
        tools = self._tools(live)
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
            return  # as in TRL: tool messages that do not fit are dropped and the rollout ends before them
        live.messages.extend(answers)
        live.over = False

    def _calls(self, live: ActiveRollout, turn: list[int], tools: list[Any] | None) -> list[Message]:
        """The tool calls of a turn; a first turn shared by several rollouts is parsed once."""
        shared = (tuple(live.ids), tuple(turn), tools is None) if live.turns == 0 else None
        if shared in self._parsed:
            return self._parsed[shared]
        parsed = parse_response(self.tokenizer, turn, prefix=live.ids, tools=tools)
        calls: list[Message] = parsed.get("tool_calls") or []
        if shared is not None:
            _put(self._parsed, shared, calls)
        return calls

    def _tools(self, live: ActiveRollout) -> list[Any] | None:
        """The schema of the crop tool, if the job offers it."""
        if not live.job.has_tool:
            return None
        pictures = live.environment.pictures
        if pictures not in self._schemas:
            self._schemas[pictures] = tool_schema(live.environment)
        return self._schemas[pictures]

    def _extend(self, live: ActiveRollout, ids: Sequence[int], images: Sequence[Image.Image]) -> None:
        """Append tokens, and the images for their placeholders."""
        rendered = ids.count(self.image_id)
        if rendered != len(images):
            # The template dropped pictures.
            raise ValueError(
                f"row {live.job.row.id}: the prompt must hold {len(images)} pictures, got {rendered}"
            )
        live.ids.extend(ids)
        live.images.extend(images)
        live.tokens += len(ids) + sum(tokens_of(image.size, self._factor) - 1 for image in images)

    def _make_ready(self, live: ActiveRollout) -> None:
        """Load and preprocess the new images. Only now, because many are never shown to the model."""
        for image in live.images[len(live.pictures) :]:
            recipe = image.recipe if isinstance(image, LazyImage) else None
            picture = None if recipe is None else self._ready.get(recipe)
            if picture is None:
                try:
                    image.load()
                except Exception as error:  # Pillow's decoders raise all kinds of errors on damaged files
                    live.error, live.over = error, True
                    return
                picture = self.engine.picture(image)
                if recipe is not None:
                    self._ready[recipe] = picture
            live.pictures.append(picture)

    def _tokens(self, messages: Sequence[Message], **options: Any) -> list[int]:
        """Render and tokenize messages, cached by their text: pictures do not change the tokens."""
        key = json.dumps([messages, options], default=lambda _: None)
        if key not in self._rendered:
            text = self.processor.apply_chat_template(
                prepare_multimodal_messages(list(messages)),
                tokenize=False,
                **({"add_generation_prompt": True} | options),
            )
            ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
            _put(self._rendered, key, ids)
        return self._rendered[key]

    def _reply_tokens(self, answers: Sequence[Message]) -> list[int]:
        """The tokens from the end of the model's turn to the start of its next one.

        Rendered after a dummy turn, as in TRL: the model's text is never rendered again, so its tokens stay
        the sampled ones.
        """
        call = {"type": "function", "function": {"name": TOOL_NAME, "arguments": {}}}
        before: list[Message] = [
            {"role": "user", "content": "?"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
        ]
        start = self._tokens(before, add_generation_prompt=False)
        end = self.tokenizer.eos_token_id
        if end in start:  # the newline after the end-of-turn token belongs to the reply
            start = start[: len(start) - start[::-1].index(end)]
        return self._tokens([*before, *answers])[len(start) :]


def seed_of(live: ActiveRollout, seed: int) -> int:
    """The sampling seed for the next turn of a rollout."""
    row = live.job.row
    key = f"{seed} {row.id} {one_or_all(row.shown_sizes or ())} {live.turns}"
    if live.job.sample:
        key += f" {live.job.sample}"
    return zlib.crc32(key.encode())


def _put(cache: dict[Any, Any], key: Any, value: Any) -> None:
    if len(cache) >= _CACHE_SIZE:
        cache.clear()
    cache[key] = value


def first_messages(live: ActiveRollout) -> list[Message]:
    """The messages before the first turn; with the tool, its environment is reset as well.

    Raises:
        OSError: a picture cannot be opened.
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
    """Run a tool call and return its message; a failed call returns the error, worded as in TRL."""
    function = call.get("function") or {}
    name = function.get("name")
    try:
        if name != TOOL_NAME:
            raise ValueError(f"Tool {name} not found.")
        content = environment.image_zoom_in_tool(**function["arguments"])
    except (ValueError, TypeError, KeyError) as error:  # the model's arguments can cause any of these
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
