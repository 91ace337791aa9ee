"""Engines: what writes the next turn of a model, transformers or vLLM.

An engine knows nothing of rows, tools and rewards. It is given the tokens of conversations, one placeholder
per picture, and their pictures; it gives back the tokens of the next turns. `rollouts` holds conversations.

What an engine writes for a prompt does not depend on the prompts beside it, up to rounding: greedy decoding
is a function of the prompt, and sampling draws from a stream of the prompt's own seed. So rows may be divided
among processes and runs at will.
"""

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from PIL import Image
from transformers import AutoConfig, GenerationConfig, LogitsProcessor

from lfpc_trl.errors import UserError, how_to_install, one_line
from lfpc_trl.models.continued import ContinuedGeneration, Conversation, Shown, up_to_end
from lfpc_trl.models.processors import factor, load_processor, pixels_of_a_token, vision_token_ids
from lfpc_trl.models.vllm_failures import vllm_failures
from lfpc_trl.models.weights import default_device, load_model
from lfpc_trl.pictures.sizes import tokens_of
from lfpc_trl.versions import MATRIX, installed, is_in

EngineName = Literal["transformers", "vllm"]

BATCHES: dict[EngineName, tuple[int, int]] = {"transformers": (32, 65_536), "vllm": (256, 262_144)}
"""Conversations, and visual tokens, that an engine is given at a time. Our choice: 80 GB hold it with 7B."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture made ready for one engine.

    Attributes:
        tokens: its visual tokens.
        data: what that engine needs of it.
    """

    tokens: int
    data: Any


@dataclass(frozen=True)
class Prompt:
    """A conversation up to the next turn of the model.

    Attributes:
        ids: its tokens, with one placeholder for each picture.
        pictures: the pictures, in the order of their placeholders.
        seed: of the draws for the next turn; not used by greedy decoding.
    """

    ids: Sequence[int]
    pictures: Sequence[Picture]
    seed: int = 0


class Refused(Exception):  # noqa: N818 - it is an answer, too
    """The engine refused this prompt (too long, too many pictures) and answered the others of the batch."""


class Engine(Protocol):
    """What `rollouts` asks of an engine.

    Attributes:
        processor: the processor of the model, of `load_processor`.
        context: tokens that a conversation may have, its visual tokens included.
    """

    processor: Any
    context: int

    def picture(self, image: Image.Image) -> Picture:
        """Make a picture ready; its sides are multiples of the side of a visual token."""

    def generate(
        self, prompts: Sequence[Prompt], *, max_new_tokens: int, temperature: float
    ) -> Sequence[list[int] | Refused]:
        """The next turn of each prompt: its tokens, up to and including the end of the turn."""


def image_token_id(processor: Any) -> int:
    """The id of the placeholder of a picture."""
    return int(processor.image_token_id)


def expanded(ids: Iterable[int], pictures: Sequence[Picture], placeholder: int) -> list[int]:
    """The tokens that the model reads: each placeholder as often as its picture has visual tokens."""
    counts = iter(picture.tokens for picture in pictures)
    return [token for each in ids for token in [each] * (next(counts) if each == placeholder else 1)]


def collapsed(ids: Sequence[int], pictures: int, placeholder: int) -> list[int]:
    """The opposite of `expanded`: one placeholder for each picture, however many visual tokens it has.

    Args:
        ids: the tokens that the model reads, in which other tokens stand between two pictures, as in the chat
            templates of Qwen-VL; or ids that are collapsed already.
        pictures: how many pictures there are.
        placeholder: the id that stands for them.

    Raises:
        ValueError: the ids hold another number of pictures.
    """
    short = [token for at, token in enumerate(ids) if token != placeholder or at == 0 or ids[at - 1] != token]
    if short.count(placeholder) != pictures:
        raise ValueError(f"a prompt must hold its {pictures} pictures, got {short.count(placeholder)} in it")
    return short


# --- transformers ------------------------------------------------------------------------------------


class TransformersEngine:
    """Generation with transformers' `generate`, on the device of the model.

    Args:
        model: a model of `load_model`; its training mode is restored after every call.
        processor: a processor of `load_processor`.
    """

    def __init__(self, model: Any, processor: Any) -> None:
        self.model, self.processor = model, processor
        self.context = int(model.config.get_text_config().max_position_embeddings)
        self._placeholder = image_token_id(processor)
        merge_size = processor.image_processor.merge_size
        self._merged = merge_size**2  # patches per visual token
        self._generation = ContinuedGeneration(
            model,
            placeholder=self._placeholder,
            padding=processor.tokenizer.pad_token_id,
            merge_size=merge_size,
        )

    def picture(self, image: Image.Image) -> Picture:
        """The picture as patches. Processed once, however many turns follow."""
        features = self.processor.image_processor(images=[image], return_tensors="pt")
        grid = features["image_grid_thw"]
        return Picture(int(grid.prod()) // self._merged, (features["pixel_values"], grid))

    def generate(
        self, prompts: Sequence[Prompt], *, max_new_tokens: int, temperature: float
    ) -> list[list[int]]:
        """All prompts in one batch. What the last batch has read of them is not read again."""
        if not prompts:
            return []
        conversations = [
            Conversation(
                expanded(prompt.ids, prompt.pictures, self._placeholder),
                [Shown(picture, picture.data[0], picture.data[1][0]) for picture in prompt.pictures],
            )
            for prompt in prompts
        ]
        ends = list(self.processor.turn_ends)
        config = GenerationConfig(
            max_new_tokens=max_new_tokens,
            eos_token_id=ends,
            pad_token_id=self.processor.tokenizer.pad_token_id,
            suppress_tokens=vision_token_ids(self.processor),
            # Checkpoints bring their own penalty, which training does not apply.
            repetition_penalty=1.0,
            do_sample=False,
        )
        options: dict[str, Any] = {}
        if temperature > 0:
            seeds = [prompt.seed for prompt in prompts]
            options["logits_processor"] = [_Draw(temperature, seeds, self.model.device)]
        was_training = self.model.training
        self.model.eval()
        try:
            return self._generation.generate(conversations, config, ends, **options)
        finally:
            self.model.train(was_training)


class _Draw(LogitsProcessor):  # type: ignore[misc]
    """Sampling from the whole distribution, with a stream of random numbers for each prompt.

    The largest of the logits plus Gumbel noise is a draw from their distribution (the Gumbel-max trick), so
    `generate` decodes greedily behind it. Its own sampling draws for a whole batch from one stream.
    """

    def __init__(self, temperature: float, seeds: Sequence[int], device: torch.device) -> None:
        self.temperature = temperature
        self.streams = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        scores = scores.float() / self.temperature
        for row, stream in enumerate(self.streams):
            # Minus the logarithm of an exponential variable is a Gumbel variable.
            scores[row] -= torch.empty_like(scores[row]).exponential_(generator=stream).log()
        return scores


# --- vLLM --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PromptLimits:
    """The largest prompt to come. vLLM reserves memory for it when it starts.

    Attributes:
        pictures: pictures in one conversation.
        picture_tokens: visual tokens of one picture.
        tokens: of a whole conversation, everything included.
    """

    pictures: int
    picture_tokens: int
    tokens: int


VLLM_ALONE = ">=0.22.0,<0.34"
"""The versions for questions without a trainer, of which TRL supports fewer."""


def check_vllm(*, training: bool) -> None:
    """Raise `UserError` unless a vLLM of the supported versions is installed; imports nothing.

    Args:
        training: whether TRL is to drive it.
    """
    [supported] = [package.supported for package in MATRIX if package.name == "vllm"]
    supported = supported if training else VLLM_ALONE
    version = installed("vllm")
    if version is None:
        raise UserError(f"vllm not installed; {how_to_install('vllm')}")
    if not is_in(version, supported):
        raise UserError(f"vllm must be {supported}, got {version}")


class VllmEngine:
    """Generation with one offline vLLM engine, on the first visible GPU.

    Pictures reach vLLM at the size in which they are shown, with limits under which its own processor leaves
    that size alone. Tokens that open or fill a picture are kept from being written, as in training.

    Args:
        model_dir: a Hugging Face directory of a supported family.
        processor: its processor, of `load_processor`.
        limits: the largest prompt to come.
    """

    def __init__(self, model_dir: str | Path, processor: Any, limits: PromptLimits) -> None:
        check_vllm(training=False)
        with vllm_failures(Path(tempfile.gettempdir()), "cannot start"):
            from vllm import LLM

        self.processor, self._limits = processor, limits
        self._side = factor(processor)
        config = AutoConfig.from_pretrained(model_dir).get_text_config()
        self.context = min(int(config.max_position_embeddings), limits.tokens)
        with vllm_failures(Path(tempfile.gettempdir()), "cannot start"):
            self._llm = LLM(
                model=str(model_dir),
                dtype="bfloat16",
                max_model_len=self.context,
                limit_mm_per_prompt={"image": limits.pictures, "video": 0},
                mm_processor_kwargs={
                    "size": {
                        "shortest_edge": pixels_of_a_token(processor),
                        "longest_edge": limits.picture_tokens * pixels_of_a_token(processor),
                    }
                },
            )

    def picture(self, image: Image.Image) -> Picture:
        """The picture as it is.

        Raises:
            ValueError: vLLM would resize it.
        """
        tokens = tokens_of(image.size, self._side)
        if image.width % self._side or image.height % self._side or tokens > self._limits.picture_tokens:
            raise ValueError(
                f"a picture must have sides that are multiples of {self._side} and at most "
                f"{self._limits.picture_tokens} visual tokens, got {image.width} x {image.height} pixels"
            )
        return Picture(tokens, image)

    def generate(
        self, prompts: Sequence[Prompt], *, max_new_tokens: int, temperature: float
    ) -> list[list[int] | Refused]:
        """All prompts at once; vLLM divides them into batches itself."""
        if not prompts:
            return []
        from vllm import SamplingParams

        ends = list(self.processor.turn_ends)
        sampling = [
            SamplingParams(
                max_tokens=max_new_tokens,
                temperature=temperature,
                seed=prompt.seed if temperature > 0 else None,
                stop_token_ids=ends,
                # -100 is the least that vLLM takes.
                logit_bias=dict.fromkeys(vision_token_ids(self.processor), -100.0),
                detokenize=False,
            )
            for prompt in prompts
        ]
        inputs = [
            {
                "prompt_token_ids": list(prompt.ids),
                "multi_modal_data": {"image": [picture.data for picture in prompt.pictures]},
            }
            for prompt in prompts
        ]
        return [
            output if isinstance(output, Refused) else up_to_end(output.outputs[0].token_ids, ends)
            for output in self._ask(inputs, sampling)
        ]

    def _ask(self, inputs: list[dict[str, Any]], sampling: list[Any]) -> list[Any]:
        """What vLLM answers to each. Of a list with one that it refuses it answers none: halves are asked."""
        from vllm import exceptions

        # Since 0.31 a refusal is no ValueError any more.
        refusals = (ValueError, getattr(exceptions, "VLLMClientError", ValueError))
        try:
            return list(self._llm.generate(inputs, sampling_params=sampling, use_tqdm=False))
        except refusals as error:
            if len(inputs) == 1:
                return [Refused(f"vLLM refuses its prompt ({one_line(error)})")]
        half = len(inputs) // 2
        return [*self._ask(inputs[:half], sampling[:half]), *self._ask(inputs[half:], sampling[half:])]


@dataclass(frozen=True)
class OpenEngine:
    """Makes the engine of a process; it pickles, an engine does not.

    Attributes:
        name: of the engine.
        model_dir: the model.
        limits: the largest prompt to come.
    """

    name: EngineName
    model_dir: Path
    limits: PromptLimits

    def __call__(self) -> Engine:
        """Load the model."""
        return new_engine(self.name, self.model_dir, self.limits)


def new_engine(name: EngineName, model_dir: str | Path, limits: PromptLimits) -> Engine:
    """The engine of that name on the accelerator of this process, or on its CPU.

    Raises:
        UserError: the model cannot be loaded, or vLLM is missing or of another version.
    """
    processor = load_processor(model_dir)
    if name == "vllm":
        return VllmEngine(model_dir, processor, limits)
    device = default_device()
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    return TransformersEngine(load_model(model_dir, dtype=dtype, device=device), processor)
