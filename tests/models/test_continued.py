"""Generation from kept states, against the model's own generation from the start of each conversation."""

import itertools
import zlib

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import GenerationConfig, LogitsProcessor

from lfpc_trl.models.continued import ContinuedGeneration, Conversation, Shown
from lfpc_trl.models.processors import load_processor, vision_token_ids
from lfpc_trl.models.weights import load_model
from tests import tiny

FAMILIES = ("qwen2_5_vl", "qwen3_vl")
NEW = 5


class Logits(LogitsProcessor):
    """Notes what each token was chosen from, and chooses by noise that all conversations share."""

    def __init__(self, seed=0):
        self.steps, self.seed = [], seed

    def __call__(self, input_ids, scores):  # noqa: ARG002
        self.steps.append(scores.clone())
        draw = torch.Generator().manual_seed(self.seed + len(self.steps))
        return scores + 100 * torch.rand(scores.shape[1], generator=draw)


class Tiny:
    """A tiny model with its processor, and conversations of random tokens."""

    def __init__(self, folder, family):
        model_dir = tiny.make_model(folder, family, chat_template=tiny.COMPACT)
        self.model, self.processor = load_model(model_dir).eval(), load_processor(model_dir)
        self.placeholder = self.model.config.image_token_id
        self.ends = list(self.processor.turn_ends)
        self.read, self.seen = [], []
        backbone = self.model.model
        backbone.language_model.layers[0].register_forward_pre_hook(
            lambda _, args: self.read.append(tuple(args[0].shape[:2]))
        )
        backbone.visual.register_forward_pre_hook(lambda _, args: self.seen.append(len(args[0])))

    def generation(self):
        return ContinuedGeneration(
            self.model,
            placeholder=self.placeholder,
            padding=self.processor.tokenizer.pad_token_id,
            merge_size=self.processor.image_processor.merge_size,
        )

    def text(self, tokens, seed):
        draw = torch.Generator().manual_seed(seed)
        return torch.randint(0, 200, (tokens,), generator=draw).tolist()

    def picture(self, key, height, width):
        vision = self.model.config.vision_config
        merge, values = vision.spatial_merge_size, 3 * vision.temporal_patch_size * vision.patch_size**2
        grid = torch.tensor([1, height * merge, width * merge])
        draw = torch.Generator().manual_seed(zlib.crc32(repr(key).encode()))
        return Shown(key, torch.randn(int(grid.prod()), values, generator=draw), grid)

    def tokens(self, *pieces):
        """Texts and pictures as a conversation."""
        ids, pictures = [], []
        for piece in pieces:
            if isinstance(piece, Shown):
                visual = int(piece.grid.prod()) // self.processor.image_processor.merge_size**2
                config = self.model.config
                ids += [config.vision_start_token_id, *[self.placeholder] * visual]
                ids.append(config.vision_end_token_id)
                pictures.append(piece)
            else:
                ids += piece
        return Conversation(tuple(ids), pictures)

    def turns(self, generation, conversations, seed=0):
        """(turns, logits of every token of them)."""
        logits = Logits(seed)
        config = GenerationConfig(
            max_new_tokens=NEW,
            eos_token_id=self.ends,
            pad_token_id=self.processor.tokenizer.pad_token_id,
            suppress_tokens=vision_token_ids(self.processor),
            do_sample=False,
        )
        turns = generation.generate(conversations, config, self.ends, logits_processor=[logits])
        steps = torch.stack(logits.steps, 1)
        return turns, [rows[: len(turn)] for rows, turn in zip(steps, turns, strict=True)]

    def from_nothing(self, conversations, seed=0):
        generation = self.generation()
        generation._can_cache = False
        return self.turns(generation, conversations, seed)

    def assert_same(self, generation, conversations, seed=0):
        turns, logits = self.turns(generation, conversations, seed)
        expected, their_logits = self.from_nothing(conversations, seed)
        assert turns == expected
        for ours, theirs in zip(logits, their_logits, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
        return turns


@pytest.fixture(scope="module", params=FAMILIES)
def tiny_model(request, tmp_path_factory):
    return Tiny(tmp_path_factory.mktemp("model") / "model", request.param)


def went_on(conversation, turn, *more):
    """A conversation after a turn and its answer."""
    return Conversation((*conversation.ids, *turn, *more[0].ids), [*conversation.pictures, *more[0].pictures])


def test_every_turn_is_that_of_the_whole_conversation(tiny_model):
    generation = tiny_model.generation()
    one = tiny_model.tokens([1, 2], tiny_model.picture("a", 3, 2), tiny_model.text(6, 1))
    alike = tiny_model.tokens([1, 2], tiny_model.picture("b", 3, 2), tiny_model.text(6, 1))
    assert alike.ids == one.ids  # another picture of the same size under the same words
    longer = tiny_model.tokens(tiny_model.text(3, 2), tiny_model.picture("c", 2, 4), tiny_model.text(20, 3))
    live = [one, one, alike, longer, one]
    turns = tiny_model.assert_same(generation, live)
    assert turns[2] == turns[0]  # so that only the picture tells the two apart
    crops = [tiny_model.picture(("crop", number), 1 + number % 3, 2) for number in range(5)]
    live = [
        went_on(each, turn, tiny_model.tokens(tiny_model.text(2 + number, number), crops[number]))
        if number != 1
        else went_on(each, turn, tiny_model.tokens([7, 8, 9]))
        for number, (each, turn) in enumerate(zip(live, turns, strict=True))
    ]
    live = [live[3], live[0], live[1], live[2]]  # one is over, the others come in another order
    turns = tiny_model.assert_same(generation, live, seed=10)
    new = tiny_model.tokens([3], tiny_model.picture("d", 2, 2), tiny_model.text(2, 8))
    live = [
        went_on(live[0], turns[0], tiny_model.tokens(crops[4], [5])),
        new,
        went_on(live[2], turns[2], tiny_model.tokens([6])),
        live[1],  # asked again
    ]
    tiny_model.assert_same(generation, live, seed=20)


def test_a_prompt_is_read_once_per_group_and_a_turn_once(tiny_model):
    generation = tiny_model.generation()
    overviews = [tiny_model.picture(name, 3, 2) for name in "ab"]
    prompts = [tiny_model.tokens([1], overview, tiny_model.text(4, 5)) for overview in overviews]
    live = [prompts[0]] * 4 + [prompts[1]] * 4
    tiny_model.read.clear(), tiny_model.seen.clear()
    turns, _ = tiny_model.turns(generation, live)
    length, steps = len(prompts[0].ids), max(map(len, turns))
    assert tiny_model.read == [(2, length - 1), *[(8, 1)] * steps]
    assert tiny_model.seen == [2 * 24]
    crops = [tiny_model.picture(number, 2, 2) for number in range(3)]
    live = [
        went_on(live[place], turns[place], tiny_model.tokens([9], crop))
        for place, crop in zip((0, 5, 6), crops, strict=True)
    ]
    tiny_model.read.clear(), tiny_model.seen.clear()
    again, _ = tiny_model.turns(generation, live)
    # The last token of a turn of full length was drawn, never read; then the answer but its last token.
    answer = 1 + 6 - 1 + max(len(turn) == steps for turn in (turns[0], turns[5], turns[6]))
    assert tiny_model.read == [(3, answer), *[(3, 1)] * max(map(len, again))]
    assert tiny_model.seen == [3 * 16]


def test_what_was_read_before_the_weights_changed_is_forgotten(tiny_model):
    generation = tiny_model.generation()
    prompt = tiny_model.tokens([1], tiny_model.picture("a", 2, 2), [2, 3])
    [turn], _ = tiny_model.turns(generation, [prompt])
    generation.forget()
    tiny_model.read.clear()
    tiny_model.turns(generation, [went_on(prompt, turn, tiny_model.tokens([4]))])
    assert tiny_model.read[0] == (1, len(prompt.ids) + len(turn))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_goes_on_is_as_if_read_from_its_start(tiny_model, data):
    keys = itertools.count()

    def piece(number):
        if data.draw(st.booleans()):
            return tiny_model.picture(next(keys), 2, 2 + data.draw(st.integers(0, 1)))
        return tiny_model.text(data.draw(st.integers(1, 6)), number)

    prompts = [tiny_model.tokens([number], piece(number), tiny_model.text(2, number)) for number in range(2)]
    live = data.draw(st.lists(st.sampled_from(prompts), min_size=1, max_size=5))
    generation = tiny_model.generation()
    for round_ in range(data.draw(st.integers(1, 3))):
        turns = tiny_model.assert_same(generation, live, seed=round_)
        live = [
            went_on(each, turn, tiny_model.tokens(piece(number), [1]))
            for number, (each, turn) in enumerate(zip(live, turns, strict=True))
            if number == 0 or data.draw(st.booleans())
        ]
