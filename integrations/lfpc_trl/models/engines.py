"""Engines that generate the model's next turn: transformers or vLLM.

An engine knows nothing of rows, tools and rewards. It takes the tokens of conversations, with one placeholder
per picture, and their pictures; it returns the tokens of the next turns. `rollouts` runs the conversations.

An engine's output for a prompt does not depend on the other prompts of the batch, up to rounding: greedy
decoding is a function of the prompt, and sampling uses a random stream with the prompt's own seed. So rows
may be split across processes and runs in any way.
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
"""Conversations, and visual tokens, per engine batch. Our choice: with them a 7B model fits into 80 GB."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture preprocessed for one engine.

    Attributes:
        tokens: its visual tokens.
        data: the engine's input for it.
    """

    tokens: int
    data: Any


@dataclass(frozen=True)
class Prompt:
    """A conversation up to the model's next turn.

    Attributes:
        ids: its tokens, with one placeholder for each picture.
        pictures: the pictures, in the order of their placeholders.
        seed: sampling seed of the next turn; greedy decoding ignores it.
    """

    ids: Sequence[int]
    pictures: Sequence[Picture]
    seed: int = 0


class Refused(Exception):  # noqa: N818 - it is returned as a result, too
    """The engine rejected this prompt (too long, too many pictures); the rest of the batch was generated."""


class Engine(Protocol):
    """The interface of an engine.

    Attributes:
        processor: the model's processor, from `load_processor`.
        context: the most tokens of a conversation, visual tokens included.
    """

    processor: Any
    context: int

    def picture(self, image: Image.Image) -> Picture:
        """Preprocess a picture; its sides are multiples of the side of a visual token."""

    def generate(
        self, prompts: Sequence[Prompt], *, max_new_tokens: int, temperature: float
    ) -> Sequence[list[int] | Refused]:
        """Generate the next turn of each prompt: its tokens, up to and including the end-of-turn token."""


def image_token_id(processor: Any) -> int:
    """The token id of the picture placeholder."""
    return int(processor.image_token_id)


def expanded(ids: Iterable[int], pictures: Sequence[Picture], placeholder: int) -> list[int]:
    """Repeat each placeholder once per visual token of its picture, as the model reads it."""
    counts = iter(picture.tokens for picture in pictures)
    return [token for each in ids for token in [each] * (next(counts) if each == placeholder else 1)]


def collapsed(ids: Sequence[int], pictures: int, placeholder: int) -> list[int]:
    """The inverse of `expanded`: keep one placeholder per picture.

    Args:
        ids: the tokens that the model reads, with other tokens between two pictures, as in the chat templates
            of Qwen-VL; or ids that are already collapsed.
        pictures: the number of pictures.
        placeholder: the token id of the placeholder.

    Raises:
        ValueError: the ids hold a different number of pictures.
    """
    short = [token for at, token in enumerate(ids) if token != placeholder or at == 0 or ids[at - 1] != token]
    if short.count(placeholder) != pictures:
        raise ValueError(f"a prompt must hold its {pictures} pictures, got {short.count(placeholder)}")
    return short


# --- transformers ------------------------------------------------------------------------------------


class TransformersEngine:
    """Generation with transformers' `generate`, on the model's device.

    Args:
        model: from `load_model`; its training mode is restored after every call.
        processor: from `load_processor`.
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
        """Process a picture into patches, once for all the turns that follow."""
        features = self.processor.image_processor(images=[image], return_tensors="pt")
        grid = features["image_grid_thw"]
        return Picture(int(grid.prod()) // self._merged, (features["pixel_values"], grid))

    def generate(
        self, prompts: Sequence[Prompt], *, max_new_tokens: int, temperature: float
    ) -> list[list[int]]:
        """Generate all turns in one batch, reusing the keys and values of the last batch."""
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
            # Checkpoints set their own penalty, which training does not apply.
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
    """Sampling from the full distribution, with a random stream for each prompt.

    The argmax of the logits plus Gumbel noise is a sample from their distribution (the Gumbel-max trick), so
    `generate` decodes greedily afterward. Its own sampling uses one stream for a whole batch.
    """

    def __init__(self, temperature: float, seeds: Sequence[int], device: torch.device) -> None:
        self.temperature = temperature
        self.streams = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        scores = scores.float() / self.temperature
        for row, stream in enumerate(self.streams):
            # The negative log of an exponential variable is a Gumbel variable.
            scores[row] -= torch.empty_like(scores[row]).exponential_(generator=stream).log()
        return scores


# --- vLLM --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PromptLimits:
    """Upper bounds on the prompts. vLLM reserves memory for them when it starts.

    Attributes:
        pictures: pictures in one conversation.
        picture_tokens: visual tokens of one picture.
        tokens: all tokens of one conversation.
    """

    pictures: int
    picture_tokens: int
    tokens: int


VLLM_ALONE = ">=0.22.0,<0.34"
"""Supported versions without a trainer; TRL supports fewer."""


def check_vllm(*, training: bool) -> None:
    """Raise `UserError` unless a supported vLLM version is installed; does not import it.

    Args:
        training: whether TRL will use it.
    """
    [supported] = [package.supported for package in MATRIX if package.name == "vllm"]
    supported = supported if training else VLLM_ALONE
    version = installed("vllm")
    if version is None:
        raise UserError(f"vllm is not installed; {how_to_install('vllm')}")
    if not is_in(version, supported):
        raise UserError(f"vllm must be {supported}, got {version}")


class VllmEngine:
    """Generation with one offline vLLM engine, on the first visible GPU.

    Pictures are passed at their shown size, with limits that keep vLLM's own processor from resizing them.
    Vision tokens are never sampled, as in training.

    Args:
        model_dir: a Hugging Face directory of a supported family.
        processor: its processor, from `load_processor`.
        limits: upper bounds on the prompts.
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
        """Wrap a picture unchanged.

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
        """Generate all turns; vLLM splits them into batches itself."""
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
                # -100 is the lowest bias that vLLM accepts.
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
            for output in self._generate(inputs, sampling)
        ]

    def _generate(self, inputs: list[dict[str, Any]], sampling: list[Any]) -> list[Any]:
        """Run vLLM on all inputs. One rejected input fails the whole call, so its halves are retried."""
        from vllm import exceptions

        # Since 0.31 a rejection is no longer a ValueError.
        refusals = (ValueError, getattr(exceptions, "VLLMClientError", ValueError))
        try:
            return list(self._llm.generate(inputs, sampling_params=sampling, use_tqdm=False))
        except refusals as error:
            if len(inputs) == 1:
                return [Refused(f"vLLM refuses its prompt ({one_line(error)})")]
        half = len(inputs) // 2
        return [
            *self._generate(inputs[:half], sampling[:half]),
            *self._generate(inputs[half:], sampling[half:]),
        ]


@dataclass(frozen=True)
class OpenEngine:
    """Creates the engine of a process; unlike an engine, it can be pickled.

    Attributes:
        name: name of the engine.
        model_dir: the model's directory.
        limits: upper bounds on the prompts.
    """

    name: EngineName
    model_dir: Path
    limits: PromptLimits

    def __call__(self) -> Engine:
        """Load the model into a new engine."""
        return new_engine(self.name, self.model_dir, self.limits)


def new_engine(name: EngineName, model_dir: str | Path, limits: PromptLimits) -> Engine:
    """Create an engine on the accelerator of this process, or on its CPU.

    Raises:
        UserError: the model cannot be loaded, or vLLM is missing or an unsupported version.
    """
    processor = load_processor(model_dir)
    if name == "vllm":
        return VllmEngine(model_dir, processor, limits)
    device = default_device()
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    return TransformersEngine(load_model(model_dir, dtype=dtype, device=device), processor)
