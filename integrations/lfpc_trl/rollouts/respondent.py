"""Who is asked: a model directory with an engine of ours, or a server; what is known before it is opened."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from lfpc_rewards import Frame
from lfpc_trl.data.rows import Row
from lfpc_trl.errors import UserError
from lfpc_trl.models.endpoint import CONCURRENCY, Endpoint, EndpointSettings, check_url
from lfpc_trl.models.engines import BATCHES, Engine, EngineName, OpenEngine
from lfpc_trl.models.processors import MAX_IMAGE_TOKENS, factor, load_processor, token_limit
from lfpc_trl.models.weights import context_length, fingerprint
from lfpc_trl.rollouts.chat import OpenEndpoint
from lfpc_trl.rollouts.crop_tool import CropSettings
from lfpc_trl.rollouts.generate import ChatEngine, Usage, prompt_limits

Open = Callable[[], Engine | ChatEngine]
"""Opens the model in the process that asks it; it pickles."""
_ENOUGH = 1 << 30
"""A limit on visual tokens at a time that is none: a server makes batches itself."""


@dataclass(frozen=True)
class Respondent:
    """Who is asked.

    Attributes:
        model_dir: the model's directory; behind a server its processor alone is read, None where it is not at
            hand.
        engine: name of an engine of ours; "endpoint" for a server.
        endpoint: the server, None for an engine of ours.
        side: pixels per side of a visual token, where no directory tells it.
        price: of a million tokens read, and of a million written; None where it is not told.
    """

    model_dir: Path | None
    engine: str
    endpoint: EndpointSettings | None = None
    side: int = 32
    price: tuple[float, float] | None = None

    @cached_property
    def processor(self) -> Any:
        """The model's processor; None where its directory is not at hand."""
        return None if self.model_dir is None else load_processor(self.model_dir)

    @property
    def name(self) -> str:
        """As files and pages call it."""
        if self.endpoint is not None:
            return self.endpoint.model
        assert self.model_dir is not None
        return self.model_dir.resolve().name

    def fingerprint(self) -> str:
        """What answers depend on: the weights; of a server its name for them."""
        if self.endpoint is not None:
            return self.endpoint.model
        assert self.model_dir is not None
        return fingerprint(self.model_dir)

    @property
    def factor(self) -> int:
        """Pixels per side of a visual token."""
        return self.side if self.processor is None else factor(self.processor)

    @property
    def token_limit(self) -> int:
        """Visual tokens of the largest picture."""
        return MAX_IMAGE_TOKENS if self.processor is None else token_limit(self.processor)

    @property
    def context(self) -> int | None:
        """Tokens that the model reads in all; None where no directory tells it."""
        return None if self.model_dir is None else context_length(self.model_dir)

    @property
    def special_tokens(self) -> Sequence[str]:
        """Texts that a question must not spell."""
        return () if self.processor is None else tuple(self.processor.special_tokens)

    @property
    def batches(self) -> tuple[int, int]:
        """Conversations, and visual tokens, at a time."""
        return (
            (CONCURRENCY, _ENOUGH) if self.endpoint is not None else BATCHES[cast("EngineName", self.engine)]
        )

    def resolve_frame(self, stated: str) -> Frame:
        """The frame of the model's boxes.

        Args:
            stated: "family", or the frame that the user says.

        Raises:
            UserError: nobody says it, or the family says another.
        """
        if self.processor is not None:
            return cast("Frame", self.processor.family.resolve_frame(stated))
        if stated == "family":
            raise UserError(
                "--frame must say in which frame the model's boxes count, shown (pixels of the shown "
                "picture) or relative_1000 (0 to 1000), where --model does not name its directory"
            )
        return Frame(stated)

    def opener(
        self,
        rows: Sequence[Row],
        picture_tokens: int,
        *,
        max_new_tokens: int,
        max_turns: int = 1,
        crops: CropSettings | None = None,
    ) -> Open:
        """What opens the model; the arguments are those of `prompt_limits`, the largest prompt to come."""
        if self.endpoint is not None:
            return OpenEndpoint(self.endpoint, self.factor, self.model_dir)
        assert self.model_dir is not None
        limits = prompt_limits(
            self.processor,
            rows,
            picture_tokens,
            max_new_tokens=max_new_tokens,
            max_turns=max_turns,
            crops=crops,
        )
        return OpenEngine(cast("EngineName", self.engine), self.model_dir, limits)

    def cost(self, usage: Usage) -> float | None:
        """What tokens cost; None where no price was told."""
        if self.price is None:
            return None
        return (usage.prompt_tokens * self.price[0] + usage.completion_tokens * self.price[1]) / 1e6

    def bill(self, usage: Usage) -> str:
        """The same for people."""
        cost = self.cost(usage)
        tokens = f"tokens: {usage.prompt_tokens:,} read, {usage.completion_tokens:,} written"
        return tokens if cost is None else f"{tokens}, cost {cost:.4f}"


def respondent_of(args: argparse.Namespace) -> Respondent:
    """Who is asked, by the options of `options.add_respondent` and `--engine`.

    Raises:
        UserError: options that do not fit, or a server that cannot be asked for its models.
    """
    if args.endpoint is None:
        given = [name for name in ("model", "timeout", "crops", "price") if getattr(args, f"endpoint_{name}")]
        if given:
            raise UserError(f"--endpoint-{given[0]} is of a server: give --endpoint, too")
        if args.model is None:
            raise UserError("--model is needed, or --endpoint")
        return Respondent(args.model, args.engine)
    if getattr(args, "processes", 1) > 1 or getattr(args, "ray", False):
        raise UserError("--endpoint: one process asks a server, --batch-size requests at a time")
    if args.token_side < 1 or (args.endpoint_timeout is not None and args.endpoint_timeout <= 0):
        raise UserError("--token-side and --endpoint-timeout must be positive")
    settings = EndpointSettings(check_url(args.endpoint), args.endpoint_model or "")
    if args.endpoint_timeout is not None:
        settings = replace(settings, timeout=args.endpoint_timeout)
    if args.endpoint_crops is not None:
        settings = replace(settings, crops_in=args.endpoint_crops)
    price = None if args.endpoint_price is None else _price(args.endpoint_price)
    return Respondent(args.model, "endpoint", _with_model(settings), args.token_side, price)


def _with_model(settings: EndpointSettings) -> EndpointSettings:
    """The settings with the one model that the server has, where none was named."""
    if settings.model:
        return settings
    endpoint = Endpoint(settings)
    names = endpoint.models()
    endpoint.close()
    if len(names) != 1:
        raise UserError(f"--endpoint-model is needed, the server has {', '.join(names) or 'none'}")
    return replace(settings, model=names[0])


def _price(text: str) -> tuple[float, float]:
    try:
        read, written = (float(each) for each in text.split(","))
    except ValueError:
        read = written = -1.0
    if not (0 <= read < float("inf") and 0 <= written < float("inf")):
        raise UserError(
            f"--endpoint-price must be READ,WRITTEN per million tokens, such as 0.2,0.8, got {text!r}"
        )
    return read, written
