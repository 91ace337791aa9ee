"""Processors, loaded from a model directory and ready for tool calls.

Nothing here needs torchvision: pictures go through transformers' Pillow image processor on every machine, so
that a picture gives the same tokens everywhere.
"""

import contextlib
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, BatchFeature, ProcessorMixin
from transformers.image_utils import make_flat_list_of_images
from trl.chat_template_utils import is_chat_template_prefix_preserving, supports_tool_calling

from lfpc_rewards import parse_completion
from lfpc_rewards.parsing import BOX_ARGUMENT, TOOL_NAME
from lfpc_trl.errors import UserError, first_line
from lfpc_trl.json_values import read_json
from lfpc_trl.models.escaping import escape_special_tokens, guard_response_parser, special_tokens
from lfpc_trl.models.families import ModelFamily, family_named, family_of
from lfpc_trl.pictures.lazy import LazyImage

MAX_IMAGE_TOKENS = 16384
"""The processor's limit, the paper's largest budget: our own code resizes pictures, not the processor."""
_USER = {"role": "user", "content": [{"type": "text", "text": "?"}]}
_CALL = {"name": TOOL_NAME, "arguments": {BOX_ARGUMENT: [1, 2, 3, 4]}}
_CALLING = {
    "role": "assistant",
    "content": [{"type": "text", "text": ""}],
    "tool_calls": [{"type": "function", "function": _CALL}],
}
_BOX = {"type": "array", "items": {"type": "number"}}
_TOOL = {
    "type": "function",
    "function": {"name": TOOL_NAME, "parameters": {"type": "object", "properties": {BOX_ARGUMENT: _BOX}}},
}
"""The part of the crop tool's schema that a parser needs: the types of arguments written in tags."""


def _image_processor_class(family: ModelFamily) -> type[Any]:
    """The family's image processor, changed to return tensors: TRL cannot split the arrays it returns.

    TRL processes the same pictures many times in a round of rollouts; `each_once` caches them.
    """

    class ImageProcessor(family.image_processor):  # type: ignore[misc, name-defined]
        _processed: dict[Any, Any] | None = None

        @contextlib.contextmanager
        def each_once(self) -> Iterator[None]:
            """Inside this context, pictures with the same recipe are processed once."""
            self._processed = {}
            try:
                yield
            finally:
                del self._processed

        def preprocess(
            self,
            images: Any,
            *args: Any,
            return_tensors: Any = None,  # noqa: ARG002
            **kwargs: Any,
        ) -> Any:
            cache, flat = self._processed, make_flat_list_of_images(images)
            if cache is None or args or kwargs or not all(isinstance(each, LazyImage) for each in flat):
                return super().preprocess(images, *args, return_tensors="pt", **kwargs)
            for image in flat:
                if image.recipe not in cache:
                    cache[image.recipe] = super().preprocess([image], return_tensors="pt")
            features = [cache[image.recipe] for image in flat]
            return BatchFeature({name: torch.cat([each[name] for each in features]) for name in features[0]})

    return _named_like(family.image_processor, ImageProcessor)


def _processor_class(family: ModelFamily) -> type[Any]:
    """The family's processor without its video part, which needs torchvision.

    All messages are rendered by it, so this is where special tokens in their text are escaped.
    """

    class Processor(family.processor):  # type: ignore[misc, name-defined]
        def __init__(
            self,
            image_processor: Any = None,
            tokenizer: Any = None,
            chat_template: str | None = None,
            **_: Any,
        ) -> None:
            for name, token in family.vision_tokens.items():
                setattr(self, name, token)
                setattr(self, f"{name}_id", tokenizer.convert_tokens_to_ids(token))
            guard_response_parser(tokenizer)
            self.special_tokens = special_tokens(tokenizer)
            # Not super(): the stock __init__ requires a video processor.
            ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)

        def apply_chat_template(self, conversation: Any, *args: Any, **kwargs: Any) -> Any:
            return super().apply_chat_template(
                escape_special_tokens(conversation, self.special_tokens), *args, **kwargs
            )

        def create_mm_token_type_ids(self, input_ids: Any) -> Any:
            # GLM's version makes an array of every row, and numpy warns if a row is a tensor.
            rows = [row.tolist() if isinstance(row, torch.Tensor) else row for row in input_ids]
            return super().create_mm_token_type_ids(rows)

    Processor.family = family
    return _named_like(family.processor, Processor)


def _named_like(base: type[Any], derived: type[Any]) -> type[Any]:
    """Give a class the name of its base, by which transformers saves and checks processors."""
    derived.__name__ = derived.__qualname__ = base.__name__
    return derived


def new_processor(
    model_type: str, tokenizer: Any, *, patch_size: int, merge_size: int, max_tokens: int
) -> Any:
    """A processor for a model built from a config, without a directory.

    Args:
        model_type: of a supported family, as in `config.json`.
        tokenizer: with its chat template set.
        patch_size: pixels per side of a patch.
        merge_size: patches per side of a visual token.
        max_tokens: visual tokens of the largest picture that is not downscaled.
    """
    family = family_named(model_type)
    if family is None:
        raise ValueError(f"model_type must be that of a supported family, got {model_type!r}")
    side = family.frames_per_picture * (patch_size * merge_size) ** 2
    image_processor = _image_processor_class(family)(
        patch_size=patch_size,
        temporal_patch_size=2,
        merge_size=merge_size,
        size={"shortest_edge": side, "longest_edge": max_tokens * side},
    )
    processor = _processor_class(family)(image_processor, tokenizer, chat_template=tokenizer.chat_template)
    processor.turn_ends = (tokenizer.eos_token_id,)
    return processor


def load_processor(model_dir: str | Path) -> Any:
    """The processor of a model directory, ready for tool calls.

    The directory's own chat template is kept if it renders tool calls and their results without changing
    earlier turns; otherwise ours replaces it (stock Qwen2.5-VL has no tools in its template). The limits on
    picture size are lifted, because pictures are resized before they reach the processor.

    Returns:
        A transformers processor; `processor.tokenizer.response_template` is set, `processor.family` is the
        model's `ModelFamily`, `processor.turn_ends` are the token ids that end a turn, and
        `processor.template_problem` says why the directory's own template was replaced (None if kept).

    Raises:
        UserError: not a supported model, files missing, or a template whose tool calls cannot be parsed.
    """
    family = family_of(model_dir)
    processor_class = _processor_class(family)
    try:
        image_processor = _image_processor_class(family).from_pretrained(model_dir)
        # Not the stock processor: it takes its image processor class from a name in the files, which may
        # belong to another version, while we know the family.
        tokenizer = AutoTokenizer.from_pretrained(model_dir)
        settings, _ = processor_class.get_processor_dict(model_dir)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{model_dir}: its processor cannot be loaded ({first_line(error)})") from error
    processor = processor_class(image_processor, tokenizer, chat_template=settings.get("chat_template"))
    side = pixels_of_a_token(processor)
    processor.image_processor.size = {"shortest_edge": side, "longest_edge": MAX_IMAGE_TOKENS * side}
    tokenizer.padding_side = tokenizer.truncation_side = "left"
    processor.turn_ends = _turn_ends(Path(model_dir) / "generation_config.json", tokenizer, family)
    processor.template_problem = template_problem_of(processor)
    if processor.template_problem is not None:
        template = resources.files("lfpc_trl.models.families") / family.template
        processor.chat_template = template.read_text(encoding="utf-8")
    if getattr(tokenizer, "response_template", None) is None:
        tokenizer.response_template = dict(family.calls.response_template)
    _check_calls_can_be_parsed(processor, model_dir)
    return processor


def template_problem_of(processor: Any) -> str | None:
    """Why a chat template cannot be used for tool calls; None if it can."""
    if not supports_tool_calling(processor):
        return "it does not render tool calls or their results"
    shown = {"role": "user", "content": [{"type": "image"}]}
    if processor.apply_chat_template([shown], tokenize=False).count(processor.image_token) != 1:
        return "it does not render pictures"
    if not is_chat_template_prefix_preserving(processor):
        return "it renders earlier turns differently once later ones are added"
    answer = {"role": "tool", "name": TOOL_NAME, "content": [{"type": "image"}]}
    text = processor.apply_chat_template([_USER, _CALLING, answer], tokenize=False)
    if text.count(processor.image_token) != 1:
        return "it drops the pictures in tool messages"
    ends = processor.tokenizer.convert_ids_to_tokens(processor.turn_ends)
    text = processor.apply_chat_template([_USER, _CALLING], tokenize=False)
    if not text.rstrip().endswith(tuple(ends)):
        return f"its turns do not end with a token at which generation stops ({', '.join(ends)})"
    prompt = processor.apply_chat_template([_USER], tokenize=False, add_generation_prompt=True)
    if prompt.rstrip().endswith("</think>"):
        return "its prompts end with an empty <think> block, but the model is asked to think"
    return None


def _turn_ends(path: Path, tokenizer: Any, family: ModelFamily) -> tuple[int, ...]:
    """The token ids at which generation stops: checkpoints list several, the tokenizer has only one."""
    try:
        named = read_json(path).get("eos_token_id")
    except FileNotFoundError:
        named = None
    except (ValueError, AttributeError) as error:
        raise UserError(f"{path}: not readable ({first_line(error)})") from None
    ends = named if isinstance(named, list) else [] if named is None else [named]
    if not all(type(end) is int and 0 <= end < len(tokenizer) for end in ends):
        raise UserError(f"{path}: eos_token_id must hold ids of its tokenizer, got {named!r}")
    ends += [tokenizer.convert_tokens_to_ids(token) for token in family.turn_ends]
    return tuple(dict.fromkeys([tokenizer.eos_token_id, *ends]))


def _check_calls_can_be_parsed(processor: Any, model_dir: str | Path) -> None:
    """Check that a rendered call can be parsed back, both by TRL, which runs it, and by the rewards."""
    text = processor.apply_chat_template([_USER, _CALLING], tokenize=False)
    before, anchor, turn = text.rpartition(processor.family.calls.response_template["start_anchor"])
    try:
        parsed = processor.tokenizer.parse_response(turn, prefix=before + anchor, tools=[_TOOL])
    except ValueError:
        parsed = {}
    if [each["function"] for each in parsed.get("tool_calls") or []] != [_CALL]:
        raise UserError(f"{model_dir}: the tool calls of its chat template cannot be parsed")
    if [crop.box for crop in parse_completion(turn).crops] != [(1, 2, 3, 4)]:
        raise UserError(f"{model_dir}: the rewards cannot read the tool calls of its chat template")


def factor(processor: Any) -> int:
    """Pixels per side of one visual token: patch size times merge size."""
    image_processor = processor.image_processor
    return int(image_processor.patch_size * image_processor.merge_size)


def factor_of(model_dir: str | Path) -> int:
    """The `factor` of a model directory."""
    return factor(load_processor(model_dir))


def pixels_of_a_token(processor: Any) -> int:
    """Pixels of one visual token, as the image processor counts them for its limits."""
    return int(processor.family.frames_per_picture * factor(processor) ** 2)


def token_limit(processor: Any) -> int:
    """Visual tokens of the largest picture that the processor does not downscale."""
    return int(processor.image_processor.size["longest_edge"]) // pixels_of_a_token(processor)


def vision_token_ids(processor: Any) -> list[int]:
    """Token ids that must never be sampled: a picture token without a picture crashes the training."""
    vocabulary = processor.tokenizer.get_vocab()
    return [vocabulary[token] for token in processor.family.vision_tokens.values() if token in vocabulary]


def never_sampled(processor: Any, *, use_vllm: bool) -> dict[str, Any]:
    """TRL's `generation_kwargs` that keep vision tokens from being sampled.

    TRL 1.16 suppresses only the picture token, and nothing with vLLM.

    Args:
        processor: from `load_processor`.
        use_vllm: whether vLLM generates, in either mode; otherwise transformers does.

    Returns:
        Keyword arguments of transformers' `GenerationConfig`, or of vLLM's `SamplingParams`.
    """
    ids = vision_token_ids(processor)
    # -100 is the lowest bias that vLLM accepts: it scales the odds of a token by e^-100.
    return {"logit_bias": dict.fromkeys(ids, -100.0)} if use_vllm else {"suppress_tokens": ids}
