"""A scripted stand-in for a model: it sees what a model sees and writes what a test wants."""

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

import torch

from tests.evaluate.conftest import COLOURS


@dataclass(frozen=True)
class Prompt:
    """What the model is given for one turn.

    Attributes:
        text: the whole conversation so far, special tokens included.
        pictures: mean colour of each picture, as the image processor normalised it.
        tokens: visual tokens of each picture.
    """

    text: str
    pictures: list[torch.Tensor]
    tokens: list[int]


class ScriptedModel:
    """Answers each prompt with `script(prompt)`; `batches` records how many rollouts each call had."""

    device = torch.device("cpu")
    dtype = torch.float32
    training = True

    def __init__(self, processor, script: Callable[[Prompt], str], context: int = 100_000) -> None:
        self.tokenizer = processor.tokenizer
        self.script = script
        self.batches: list[int] = []
        text = SimpleNamespace(max_position_embeddings=context)
        self.config = SimpleNamespace(model_type="scripted", get_text_config=lambda: text)
        self.model = None  # no states that could be kept: it is given each conversation from its start

    def eval(self) -> None:
        self.training = False

    def forward(self, mm_token_type_ids) -> None:
        """Says that it asks for the types of tokens, as Qwen's models do."""

    def train(self, mode: bool = True) -> None:
        self.training = mode

    def generate(
        self, *, input_ids, attention_mask, mm_token_type_ids, pixel_values, image_grid_thw, generation_config
    ):
        assert not self.training
        self.batches.append(len(input_ids))
        patches = iter(pixel_values.split(image_grid_thw.prod(1).tolist()))
        start = self.tokenizer.convert_tokens_to_ids("<|vision_start|>")
        replies = []
        for row, mask, kinds in zip(input_ids, attention_mask, mm_token_type_ids, strict=True):
            ids = row[mask.bool()].tolist()
            pictures = [next(patches) for _ in range(ids.count(start))]
            assert int(kinds.sum()) == sum(len(picture) for picture in pictures) // 4
            prompt = Prompt(
                self.tokenizer.decode(ids),
                [picture.reshape(len(picture), 3, -1).mean((0, 2)) for picture in pictures],
                [len(picture) // 4 for picture in pictures],
            )
            reply = self.tokenizer(self.script(prompt), add_special_tokens=False)["input_ids"]
            replies.append(torch.tensor([*reply, self.tokenizer.eos_token_id]))
        assert next(patches, None) is None
        new = torch.nn.utils.rnn.pad_sequence(replies, True, self.tokenizer.pad_token_id)
        return torch.cat([input_ids, new[:, : generation_config.max_new_tokens]], 1)


def call(box: object, name: str = "image_zoom_in_tool") -> str:
    """A turn that asks for a crop; `box` is put into the JSON as it is."""
    return (
        f'<think>near</think><tool_call>{{"name": "{name}", "arguments": {{"bbox_2d": {box}}}}}</tool_call>'
    )


def answer(text: str) -> str:
    """A turn that answers."""
    return f"<think>so</think><answer>{text}</answer>"


def read(picture) -> str:
    """The colour of a picture whose mean is clearly coloured, else a word for grey."""
    strongest = int(picture.argmax())
    rest = [float(value) for index, value in enumerate(picture) if index != strongest]
    return list(COLOURS)[strongest] if float(picture[strongest]) - max(rest) > 0.3 else "grey"
