"""A model behind a server that speaks as OpenAI's chat completions do: vLLM, SGLang, a vendor.

The client library of that interface sends the requests again that fail for a while (no connection, 408,
409, 429, 5xx), waits as long as the server asks for, and gives up in the end. Here its answers become turns,
as our own engines write them, and its errors become lines.

A key is read from the environment and given to the client alone: no text that leaves here holds it.
"""

import importlib.util
import json
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from lfpc_trl.errors import UserError, how_to_install, not_one_of, one_line

KEYS = ("LFPC_ENDPOINT_KEY", "OPENAI_API_KEY")
"""Variables of the environment that may hold the key, the first one first."""
CONCURRENCY = 16
"""Requests under way at a time. Our choice: what vendors let a new customer do, and one GPU keeps up with."""
_LOST_IN_A_ROW = 8
"""Requests that the server may fail one after another, each after all its tries. Our choice."""
_MALFORMED_TRIES = 3
"""How often a reply that is no reply is asked for."""


@dataclass(frozen=True)
class EndpointSettings:
    """Where the model is, and how it is asked. There is no key in here: this travels to files and processes.

    Attributes:
        url: of the interface, such as "http://localhost:8000/v1".
        model: its name on the server.
        timeout: seconds until a request that is not answered is sent again.
        retries: how often a request is sent again.
        crops_in: whose message holds a crop. "tool" is as models are trained here; vendors that let tools
            answer with words alone want "user".
    """

    url: str
    model: str
    timeout: float = 300.0
    retries: int = 5
    crops_in: Literal["tool", "user"] = "tool"


@dataclass(frozen=True)
class Reply:
    """A turn of the model.

    Attributes:
        text: as our transcripts have it: thinking, words, then the calls as JSON between their tags.
        content: what the server calls the content, to be sent back as it came.
        tool_calls: the calls with their ids, to be sent back as they came.
        calls: those of them that can be run, as {"function": {"name": ..., "arguments": {...}}}.
        complete: whether the model ended its turn, not a limit.
        prompt_tokens: that the server counted before the turn; None where it told nothing.
        completion_tokens: that it counted in the turn; None where it told nothing.
    """

    text: str
    content: str
    tool_calls: tuple[dict[str, Any], ...] = ()
    calls: tuple[dict[str, Any], ...] = ()
    complete: bool = True
    prompt_tokens: int | None = None
    completion_tokens: int | None = None

    def as_turn(self) -> list[str]:
        """Itself in JSON texts, from which `of_turn` makes it again; what it has cost is not among them."""
        return [json.dumps([self.text, self.content, self.tool_calls, self.calls, self.complete])]

    @classmethod
    def of_turn(cls, turn: Sequence[str]) -> "Reply":
        """The reply of `as_turn`."""
        text, content, tool_calls, calls, complete = json.loads(turn[0])
        return cls(text, content, tuple(tool_calls), tuple(calls), complete)


class NoReply(Exception):  # noqa: N818 - it is an answer, too
    """The server gave no turn for this conversation: it refuses it, or failed each time it was asked."""


def check_url(url: str) -> str:
    """An address as the client wants it: a bare host gets the path that such servers have.

    Raises:
        UserError: it is no address of a server, or holds a name and password, which would be written down.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(f"--endpoint must be an address such as http://localhost:8000/v1, got {url!r}")
    if parts.username is not None or parts.password is not None or parts.query:
        raise UserError(f"--endpoint must hold no password and no key: set {KEYS[0]} in the environment")
    return url.rstrip("/") if parts.path.strip("/") else f"{parts.scheme}://{parts.netloc}/v1"


def check_openai() -> None:
    """Raise `UserError` unless the client library is installed; imports nothing."""
    if importlib.util.find_spec("openai") is None:
        raise UserError(f"openai not installed, the client of such servers; {how_to_install('endpoint')}")


class Endpoint:
    """The server. Its methods may be called from several threads.

    Args:
        settings: where it is.
    """

    def __init__(self, settings: EndpointSettings) -> None:
        check_openai()
        import openai

        self.settings = settings
        key = next((found for name in KEYS if (found := os.environ.get(name))), "")
        self._secret = key
        self._client = openai.OpenAI(
            base_url=settings.url,
            api_key=key or "none",  # servers of one's own want none, the client wants one
            timeout=settings.timeout,
            max_retries=settings.retries,
        )
        self._limit = "max_tokens"
        self._lock = threading.Lock()
        self._answered = False
        self._lost = 0

    def models(self) -> list[str]:
        """The names of the models that the server has.

        Raises:
            UserError: it cannot be asked.
        """
        import openai

        try:
            return [each.id for each in self._client.models.list()]
        except openai.OpenAIError as error:
            raise self._broken(error) from None

    def chat(
        self,
        messages: Sequence[dict[str, Any]],
        *,
        tools: Sequence[Any] | None,
        max_tokens: int,
        temperature: float,
        seed: int,
    ) -> Reply:
        """The next turn of a conversation.

        Args:
            messages: as the interface has them, pictures as data URLs.
            tools: what the model may call; None for nothing.
            max_tokens: limit on the turn.
            temperature: 0 decodes greedily.
            seed: of the sampling, where the server knows one.

        Raises:
            NoReply: there is no turn for this conversation.
            UserError: nothing can be had of this server, or nothing any more.
        """
        options: dict[str, Any] = {"temperature": temperature}
        if tools:
            options["tools"] = list(tools)
        if temperature > 0:
            options["seed"] = seed
        for _ in range(_MALFORMED_TRIES):
            try:
                reply = read_reply(self._ask(messages, max_tokens, options))
            except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
                malformed = error
                continue
            with self._lock:
                self._answered, self._lost = True, 0
            return reply
        raise self._given_up(f"its reply is none ({type(malformed).__name__}: {one_line(malformed)})")

    def _ask(self, messages: Sequence[dict[str, Any]], max_tokens: int, options: dict[str, Any]) -> Any:
        import openai

        asked: Any = {"model": self.settings.model, "messages": list(messages), **options}
        try:
            try:
                return self._client.chat.completions.create(**asked, **{self._limit: max_tokens})
            except openai.BadRequestError as error:
                if self._limit == "max_tokens" and "max_completion_tokens" in str(error):
                    self._limit = "max_completion_tokens"  # newer models of OpenAI know no other name
                    return self._client.chat.completions.create(**asked, **{self._limit: max_tokens})
                raise
        except openai.NotFoundError as error:
            raise self._not_there(error) from None
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            raise self._broken(error) from None
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            raise NoReply(f"the server refuses it ({self._told(error)})") from None
        except openai.OpenAIError as error:
            raise self._given_up(self._told(error)) from None

    def _given_up(self, reason: str) -> Exception:
        """What becomes of a request that failed each time: its own end, or that of all."""
        with self._lock:
            self._lost += 1
            if not self._answered:
                return UserError(f"{self.settings.url}: gives no answer, {reason}")
            if self._lost >= _LOST_IN_A_ROW:
                return UserError(
                    f"{self.settings.url}: has stopped answering, {self._lost} requests failed one after "
                    f"another, the last one: {reason}"
                )
        return NoReply(f"the server gives no answer, {reason}")

    def _not_there(self, error: Exception) -> UserError:
        """The model, or the path of the interface; the first can be told from what the server has."""
        try:
            names = self.models()
        except UserError:
            names = []
        if not names or self.settings.model in names:
            return self._broken(error)
        wrong = not_one_of("--endpoint-model", self.settings.model, names)
        return UserError(f"{self.settings.url}: {wrong}")

    def _broken(self, error: Exception) -> UserError:
        hint = f"; a key is read from {' or '.join(KEYS)}" if "401" in str(error) else ""
        return UserError(f"{self.settings.url}: {self._told(error)}{hint}")

    def _told(self, error: Exception) -> str:
        """An error in one line. Servers repeat the key that they refuse."""
        text = f"{type(error).__name__}: {one_line(error)}"
        return text.replace(self._secret, "...") if self._secret else text

    def close(self) -> None:
        """Let go of all connections; requests under way end."""
        self._client.close()


def read_reply(response: Any) -> Reply:
    """A turn in what the client gives back.

    Raises:
        AttributeError, IndexError, TypeError, ValueError: it is none.
    """
    choice, usage = response.choices[0], response.usage
    message = choice.message
    content = message.content or ""
    if not isinstance(content, str):
        raise TypeError(f"content must be a text, got {type(content).__name__}")
    thought = getattr(message, "reasoning_content", None) or getattr(message, "reasoning", None) or ""
    said = f"<think>{thought}</think>{content}" if thought else content
    if "</think>" in said and "<think>" not in said:  # the template had opened it
        said = f"<think>{said}"
    tool_calls, calls = [], []
    for call in message.tool_calls or ():
        name, words = call.function.name, call.function.arguments or ""
        try:
            arguments = json.loads(words)
        except ValueError:
            said += f"<tool_call>{words}</tool_call>"
            continue
        function = {"name": name, "arguments": arguments}
        said += f"<tool_call>{json.dumps(function, ensure_ascii=False)}</tool_call>"
        calls.append({"type": "function", "function": function})
        tool_calls.append({"id": call.id, "type": "function", "function": {"name": name, "arguments": words}})
    return Reply(
        text=said,
        content=content,
        tool_calls=tuple(tool_calls),
        calls=tuple(calls),
        complete=choice.finish_reason != "length",
        prompt_tokens=None if usage is None else usage.prompt_tokens,
        completion_tokens=None if usage is None else usage.completion_tokens,
    )
