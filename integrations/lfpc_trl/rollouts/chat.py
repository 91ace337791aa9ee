"""Rollouts with a model behind a server: the same jobs, tool, prompts and transcripts, without tokens.

The server renders the conversation itself. Pictures are sent at the size in which they are shown. A server
that resizes them makes every budget of visual tokens a fiction, so what it counts is compared once, and said:
with what the model's own processor counts, or, where that is not at hand, with what it counts itself for the
same prompt when the picture is smaller.
"""

import base64
import io
import queue
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image
from trl.data_utils import prepare_multimodal_messages

from lfpc_rewards.parsing import is_image
from lfpc_trl.errors import UserError
from lfpc_trl.models.endpoint import Endpoint, EndpointSettings, NoReply, Reply
from lfpc_trl.models.engines import image_token_id
from lfpc_trl.models.processors import factor, load_processor
from lfpc_trl.pictures.sizes import tokens_of
from lfpc_trl.rollouts.crop_tool import environment_for
from lfpc_trl.rollouts.generate import (
    ActiveRollout,
    ChatEngine,
    Job,
    RolloutSettings,
    Usage,
    answer_call,
    first_messages,
    images_of,
    seed_of,
    tool_schema,
)
from lfpc_trl.rollouts.prompts import Message

NEXT_MESSAGE = "The crop is in the next message."
"""What a tool answers where crops stand in the user's messages."""


@dataclass(frozen=True)
class OpenEndpoint:
    """Makes the engine of a process: opens the server there.

    Attributes:
        settings: where the server is.
        factor: pixels per side of a visual token.
        model_dir: the model's directory, for its processor, whose count of tokens is compared with the
            server's; None where it is not at hand.
    """

    settings: EndpointSettings
    factor: int
    model_dir: Path | None = None

    def __call__(self) -> "EndpointEngine":
        """Open it."""
        processor = None if self.model_dir is None else load_processor(self.model_dir)
        return EndpointEngine(Endpoint(self.settings), self.factor, processor)


class EndpointEngine(ChatEngine):
    """A server as an engine.

    Args:
        endpoint: the server.
        factor: pixels per side of a visual token.
        processor: of the model, to count its tokens; without it the server counts a second prompt.
    """

    def __init__(self, endpoint: Endpoint, factor: int, processor: Any = None) -> None:
        self.endpoint, self.factor, self.processor = endpoint, factor, processor
        self.compared = False

    def session(self, settings: RolloutSettings) -> "_ChatSession":
        """Who holds the conversations of a stream."""
        return _ChatSession(self, settings)


@dataclass
class _ChatRollout(ActiveRollout):
    """A rollout under way.

    Attributes:
        history: what the server is sent, pictures as pictures.
        asked: whether a turn of it is being written.
        urls: pictures of the history that were made ready, by their place in memory; the history keeps them.
    """

    history: list[Message] = field(default_factory=list)
    asked: bool = False
    urls: dict[int, str] = field(default_factory=dict)


class _ChatSession:
    """Conversations with a server, each turn asked in a thread of its own: none waits for another."""

    def __init__(self, engine: EndpointEngine, settings: RolloutSettings) -> None:
        self._engine, self._settings = engine, settings
        self._endpoint = engine.endpoint
        self._answers: queue.SimpleQueue[tuple[_ChatRollout, Reply | Exception, float]] = queue.SimpleQueue()

    def start(self, job: Job) -> ActiveRollout:
        """A new rollout; over if its one turn was given, or its picture is gone."""
        live = _ChatRollout(job, environment_for(job.row, job.crops))
        try:
            live.history = first_messages(live)
        except OSError as error:
            live.error, live.over = error, True
            return live
        if job.first_turn is not None:
            self._advance(live, Reply.of_turn(job.first_turn))
        return live

    def step(self, lives: Sequence[ActiveRollout]) -> list[ActiveRollout]:
        """Ask for a turn of each that waits for none, and take what has come, at least one.

        Raises:
            UserError: nothing can be had of this server.
        """
        for live in lives:
            assert isinstance(live, _ChatRollout)
            if not live.asked:
                live.asked = True
                # A daemon: at Ctrl-C nobody waits for a server.
                threading.Thread(target=self._ask, args=(live,), daemon=True).start()
        if not lives:
            return []
        come = [self._answers.get()]
        while not self._answers.empty():
            come.append(self._answers.get())
        spoken: list[ActiveRollout] = []
        for chat, reply, seconds in come:
            chat.asked = False
            chat.seconds += seconds
            if isinstance(reply, UserError):
                raise reply
            if isinstance(reply, Exception):
                chat.error, chat.over = reply, True
                continue
            chat.usage += Usage(reply.prompt_tokens or 0, reply.completion_tokens or 0)
            if not chat.turns:
                self._compare(chat, reply)
            self._advance(chat, reply)
            spoken.append(chat)
        return spoken

    def close(self) -> None:
        """Nobody waits any more; a turn that still comes is dropped."""

    def _ask(self, live: _ChatRollout) -> None:
        start = time.perf_counter()
        reply: Reply | Exception
        try:
            reply = self._endpoint.chat(
                self._wire(live),
                tools=tool_schema(live.environment) if live.job.has_tool else None,
                max_tokens=self._settings.max_new_tokens,
                temperature=self._settings.temperature,
                seed=seed_of(live, self._settings.seed) % 2**31,
            )
        except Exception as error:  # raised where the stream is read, or the end of this rollout alone
            reply = error if isinstance(error, UserError | NoReply | OSError) else UserError(repr(error))
        self._answers.put((live, reply, time.perf_counter() - start))

    def _advance(self, live: _ChatRollout, reply: Reply) -> None:
        """Take in a turn of the model and answer its calls, unless the rollout is over."""
        live.messages.append({"role": "assistant", "content": reply.text})
        live.turns += 1
        live.first_turn = live.first_turn or reply.as_turn()
        live.calls, live.complete, live.over = bool(reply.calls), reply.complete, True
        if not reply.calls or not live.job.has_tool or live.turns >= self._settings.max_turns:
            return
        answers = [answer_call(live.environment, call) for call in reply.calls]
        live.messages.extend(answers)
        calls = [dict(call) for call in reply.tool_calls]
        live.history.append({"role": "assistant", "content": reply.content, "tool_calls": calls})
        live.history += self._answered(answers, [str(call["id"]) for call in calls])
        live.over = False

    def _answered(self, answers: Sequence[Message], ids: Sequence[str]) -> list[Message]:
        """What tools answered, as the server is told; crops where it wants them."""
        told, crops = [], []
        for answer, name in zip(answers, ids, strict=True):
            content = answer["content"]
            if self._endpoint.settings.crops_in == "user" and isinstance(content, list):
                crops += content
                content = NEXT_MESSAGE
            told.append({"role": "tool", "tool_call_id": name, "content": content})
        return [*told, {"role": "user", "content": crops}] if crops else told

    def _wire(self, live: _ChatRollout) -> list[dict[str, Any]]:
        """The history as the interface has it.

        Raises:
            OSError: a picture is gone.
        """
        return [
            message | {"content": [self._block(block, live.urls) for block in message["content"]]}
            if isinstance(message["content"], list)
            else message
            for message in live.history
        ]

    @staticmethod
    def _block(block: Message, urls: dict[int, str]) -> dict[str, Any]:
        if not is_image(block):
            return block
        image = block["image"]
        if id(image) not in urls:
            urls[id(image)] = data_url(image)
        return {"type": "image_url", "image_url": {"url": urls[id(image)]}}

    # --- does it read what we send? ---

    def _compare(self, live: _ChatRollout, reply: Reply) -> None:
        """Say once whether the server reads the pictures as they are sent."""
        if self._engine.compared:
            return
        self._engine.compared = True
        name, factor = live.job.row.name, self._engine.factor
        shown = sum(tokens_of(image.size, factor) for image in images_of(live.history))
        if reply.prompt_tokens is None:
            said = f"warning: {name}: the server tells no count of tokens; {_NOT_KNOWN}"
        elif self._engine.processor is not None:
            tools = tool_schema(live.environment) if live.job.has_tool else None
            ours = prompt_tokens(self._engine.processor, live.history, tools)
            said = comparison(name, reply.prompt_tokens, ours, shown)
        else:
            scale = 0.5 if shown >= _LARGE else 2.0
            other = [_resized(message, scale, factor) for message in live.history]
            count = sum(tokens_of(image.size, factor) for image in images_of(other))
            theirs = self._count(live, other)
            said = (
                f"warning: {name}: the server does not count a second prompt; {_NOT_KNOWN}"
                if theirs is None
                else increase(name, (reply.prompt_tokens, theirs), (shown, count))
            )
        print(said, file=sys.stderr, flush=True)

    def _count(self, live: _ChatRollout, history: list[Message]) -> int | None:
        """The tokens that the server counts in another prompt of a conversation; None where it does not."""
        try:
            reply = self._endpoint.chat(
                self._wire(replace(live, history=history, urls={})),
                tools=tool_schema(live.environment) if live.job.has_tool else None,
                max_tokens=1,
                temperature=0.0,
                seed=0,
            )
        except (NoReply, UserError):
            return None
        return reply.prompt_tokens


_NOT_KNOWN = "whether it resizes pictures is not known"
_LARGE = 16
"""Visual tokens of a picture that can be halved. No processor that we know enlarges one of four."""


def _resized(message: Message, scale: float, factor: int) -> Message:
    """A message with its pictures scaled, to whole visual tokens."""
    if not isinstance(message["content"], list):
        return message
    content = []
    for block in message["content"]:
        if is_image(block):
            sides = [max(1, round(side * scale / factor)) * factor for side in block["image"].size]
            block = block | {"image": block["image"].resize(sides)}
        content.append(block)
    return message | {"content": content}


def increase(name: str, theirs: tuple[int, int], ours: tuple[int, int]) -> str:
    """What is said of the first prompt where the model's processor is not at hand.

    Args:
        name: of its row.
        theirs: tokens that the server counted in it, and in the same with the picture at another size.
        ours: visual tokens of the picture, and of that at the other size.
    """
    more, expected = theirs[0] - theirs[1], ours[0] - ours[1]
    found = (
        f"{name}: the server counts {theirs[0]} tokens in the prompt, and {theirs[1]} with its picture at "
        f"{ours[1]} visual tokens instead of {ours[0]}"
    )
    if more == expected:
        return f"{found}: the difference is the {abs(expected)} that it must be"
    return (
        f"warning: {found}: the difference is {more}, not {expected}; the server resizes pictures, or "
        "--token-side is not this model's, so budgets of visual tokens are not what they say"
    )


def comparison(name: str, theirs: int, ours: int, shown: int) -> str:
    """What is said of the first prompt.

    Args:
        name: of its row.
        theirs: tokens that the server counted.
        ours: tokens that the model's processor counts.
        shown: those of them that are its picture.
    """
    found = f"{name}: the server counts {theirs} tokens in the prompt, the model's processor {ours}"
    if theirs == ours:
        return f"{found}, {shown} of them for the picture"
    return (
        f"warning: {found}, {shown} of them for the picture; the server resizes pictures or renders prompts "
        "in another way, so budgets of visual tokens are not what they say"
    )


def prompt_tokens(processor: Any, messages: Sequence[Message], tools: list[Any] | None) -> int:
    """The tokens of a prompt, its pictures' visual tokens included."""
    text = processor.apply_chat_template(
        prepare_multimodal_messages(list(messages)), tokenize=False, add_generation_prompt=True, tools=tools
    )
    ids = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    shown = sum(tokens_of(image.size, factor(processor)) for image in images_of(messages))
    return len(ids) - int(ids.count(image_token_id(processor))) + int(shown)


def data_url(image: Image.Image) -> str:
    """A picture as the interface takes it: PNG, so that no pixel differs.

    Raises:
        OSError: the picture cannot be read any more.
    """
    image.load()
    file = io.BytesIO()
    image.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
