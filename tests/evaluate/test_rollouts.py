import dataclasses
import re
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from trl import GRPOTrainer

from lfpc_rewards import Frame, parse_completion
from lfpc_trl.models.engines import TransformersEngine, expanded, image_token_id
from lfpc_trl.models.processors import factor, load_processor, vision_token_ids
from lfpc_trl.models.weights import load_model
from lfpc_trl.rollouts.crop_tool import CropEnvironment, CropSettings
from lfpc_trl.rollouts.generate import Job, RolloutSettings, _TokenSession, generate_rollouts
from lfpc_trl.rollouts.prompts import build_prompt
from lfpc_trl.rollouts.transcript import score_transcripts
from tests import tiny
from tests.evaluate.scripted import Prompt, ScriptedModel, answer, call


def roll(script, processor, rows, settings, **options):
    model = ScriptedModel(processor, script)
    return generate_rollouts(TransformersEngine(model, processor), rows, crop_settings=settings, **options)


def crops_then_answers(prompt: Prompt) -> str:
    """Row n crops n times (modulo 3) and then answers with its own name."""
    name = re.search(r"row(\d)", prompt.text)
    wanted = int(name[1]) % 3
    return answer(name[0]) if len(prompt.pictures) > wanted else call([10, 10, 60, 60])


def test_messages_are_what_our_trainer_hands_to_reward_functions(processor, rows, settings):
    rollouts = roll(crops_then_answers, processor, rows, settings)
    messages = rollouts[1].messages
    assert [message["role"] for message in messages] == ["assistant", "tool", "assistant"]
    assert messages[0] == {"role": "assistant", "content": call([10, 10, 60, 60])}
    assert messages[1]["name"] == "image_zoom_in_tool"
    (block,) = messages[1]["content"]
    assert isinstance(block["image"], Image.Image)
    assert messages[2] == {"role": "assistant", "content": answer("row1")}


@pytest.mark.parametrize("batch_size", [1, 2, 4, 100])
def test_rollouts_of_different_length_keep_their_order_in_any_batch(processor, rows, settings, batch_size):
    model = ScriptedModel(processor, crops_then_answers)
    told = []
    rollouts = generate_rollouts(
        TransformersEngine(model, processor),
        rows,
        crop_settings=settings,
        batch_size=batch_size,
        progress=told.append,
    )
    assert [rollout.row for rollout in rollouts] == rows
    assert [parse_completion(rollout.messages).answer for rollout in rollouts] == [row.id for row in rows]
    assert [len(rollout.messages) for rollout in rollouts] == [1, 3, 5] * 3
    assert sum(told) == len(rows)
    assert max(model.batches) <= batch_size
    assert sum(model.batches) == 18  # turns, none generated twice
    assert model.training  # as before
    assert all(rollout.seconds > 0 for rollout in rollouts)


def test_finished_rollouts_make_room_for_waiting_rows(processor, rows, settings):
    model = ScriptedModel(processor, crops_then_answers)
    generate_rollouts(TransformersEngine(model, processor), rows, crop_settings=settings, batch_size=3)
    assert model.batches == [3, 3, 3, 3, 3, 2, 1]


BAD_TURNS = [  # id, first turn, what the tool says (None: no call, the rollout ends)
    ("inverted box", call([60, 60, 10, 10]), "The box needs x1 < x2 and y1 < y2."),
    ("three numbers", call([1, 2, 3]), "bbox_2d must be four numbers"),
    ("not numbers", call('["a", "b", "c", "d"]'), "bbox_2d must be four numbers"),
    ("NaN", call("[NaN, 1, 20, 20]"), "bbox_2d must be four numbers"),
    ("outside", call([900, 900, 990, 990]), "The box is outside the image."),
    ("another tool", call([1, 1, 50, 50], name="zoom"), "Tool zoom not found."),
    ("unknown argument", '<tool_call>{"name": "image_zoom_in_tool", "arguments": {"x": 1}}</tool_call>', "x"),
    ("no box", '<tool_call>{"name": "image_zoom_in_tool", "arguments": {}}</tool_call>', "bbox_2d"),
    ("broken JSON", '<tool_call>{"name": "image_zoom_in_tool", </tool_call>', None),
    ("no JSON object", "<tool_call>[1, 2]</tool_call>", None),
    ("nothing", "", None),
    ("only tags", "<answer></tool_call><think>", None),
]


@pytest.mark.parametrize(
    ("turn", "reply"), [case[1:] for case in BAD_TURNS], ids=[case[0] for case in BAD_TURNS]
)
def test_whatever_the_model_writes_is_data(processor, rows, settings, turn, reply):
    def script(prompt: Prompt) -> str:
        return answer("x") if "<tool_response>" in prompt.text.split("Which colour")[1] else turn

    (rollout,) = roll(script, processor, rows[:1], settings)
    if reply is None:
        assert [message["role"] for message in rollout.messages] == ["assistant"]
    else:
        assert [message["role"] for message in rollout.messages] == ["assistant", "tool", "assistant"]
        assert rollout.messages[1]["content"].startswith("{'error': ")
        assert reply in rollout.messages[1]["content"]
    assert score_transcripts([rollout.messages], rows[:1], settings)[0].crops == ()


def test_the_last_turn_s_call_stays_unanswered(processor, rows, settings):
    rollouts = roll(lambda _: call([10, 10, 60, 60]), processor, rows[:2], settings, max_turns=2)
    assert [message["role"] for message in rollouts[0].messages] == ["assistant", "tool", "assistant"]


def test_a_refused_crop_is_told_and_the_rollout_goes_on(processor, rows, settings):
    few = dataclasses.replace(settings, max_crops=1)
    (rollout,) = roll(lambda _: call([10, 10, 60, 60]), processor, rows[:1], few, max_turns=3)
    assert [isinstance(message.get("content"), list) for message in rollout.messages[1::2]] == [True, False]
    assert "No more crops" in rollout.messages[3]["content"]


def test_without_tools_there_is_one_turn_and_no_word_of_the_tool(processor, rows, settings):
    seen = []

    def script(prompt: Prompt) -> str:
        seen.append(prompt.text)
        return call([10, 10, 60, 60])

    (rollout,) = roll(script, processor, rows[:1], settings, tools=False)
    assert len(rollout.messages) == len(seen) == 1
    assert "image_zoom_in_tool" not in seen[0]
    assert "crop" not in seen[0]


def test_a_prompt_of_ones_own_never_offers_the_crop_tool(processor, rows, settings):
    seen = []

    def script(prompt: Prompt) -> str:
        seen.append(prompt.text)
        return call([10, 10, 60, 60])

    def ask(row):
        return [{"role": "user", "content": f"Where is {row.id}?"}]

    rollouts = generate_rollouts(
        _Blind(ScriptedModel(processor, script), processor), rows[:2], crop_settings=settings, prompt=ask
    )
    assert [len(rollout.messages) for rollout in rollouts] == [1, 1]
    assert not any("image_zoom_in_tool" in text for text in seen)
    assert "Where is row0?" in seen[0]


class _Blind(TransformersEngine):
    """Prompts without pictures, which the model's own engine does not pass on."""

    def generate(self, prompts, **_):
        words = self.processor.tokenizer
        texts = [Prompt(words.decode(prompt.ids), [], []) for prompt in prompts]
        return [words(self.model.script(text), add_special_tokens=False)["input_ids"] for text in texts]


def test_a_tool_result_that_exceeds_the_context_is_dropped_as_in_trl(processor, rows, settings):
    model = ScriptedModel(processor, lambda _: call([10, 10, 60, 60]), context=10)
    (rollout,) = generate_rollouts(TransformersEngine(model, processor), rows[:1], crop_settings=settings)
    assert [message["role"] for message in rollout.messages] == ["assistant"]


@pytest.mark.parametrize(("room", "turns"), [(0, 1), (1, 3)])
def test_the_context_counts_the_visual_tokens_of_every_picture(processor, rows, settings, room, turns):
    lengths = []

    def script(prompt: Prompt) -> str:
        ids = processor.tokenizer(prompt.text, add_special_tokens=False)["input_ids"]
        lengths.append(len(ids))  # the text holds a placeholder for every visual token
        return call([10, 10, 60, 60]) if len(prompt.pictures) == 1 else answer("x")

    roll(script, processor, rows[:1], settings)
    model = ScriptedModel(processor, script, context=lengths[1] + room)
    (rollout,) = generate_rollouts(TransformersEngine(model, processor), rows[:1], crop_settings=settings)
    assert len(rollout.messages) == turns


def test_given_first_turns_are_not_generated_again(processor, rows, settings):
    first = roll(crops_then_answers, processor, rows, settings)
    model = ScriptedModel(processor, lambda _: answer("other"))
    again = generate_rollouts(
        TransformersEngine(model, processor),
        rows,
        crop_settings=settings,
        first_turns=[rollout.first_turn for rollout in first],
    )
    assert [rollout.messages[0] for rollout in again] == [rollout.messages[0] for rollout in first]
    assert sum(model.batches) == 6  # the three rollouts that answered at once are over
    answers = [parse_completion(rollout.messages).answer for rollout in again]
    assert answers == ["row0", "other", "other", "row3", "other", "other", "row6", "other", "other"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_turns": 0}, "at least 1"),
        ({"batch_size": 0}, "at least 1"),
        ({"temperature": -1.0}, "temperature at least 0"),
        ({"first_turns": []}, "first_turns must have one entry per row, got 0 for 9"),
        ({"pictures": [], "tools": False}, "one entry per row, without a tool or prompt, got 0 for 9"),
        ({"pictures": [None] * 9}, "one entry per row, without a tool or prompt, got 9 for 9"),
        (
            {"pictures": [None] * 9, "prompt": list},
            "one entry per row, without a tool or prompt, got 9 for 9",
        ),
    ],
)
def test_settings_out_of_range_are_named(processor, rows, settings, options, message):
    with pytest.raises(ValueError, match=message):
        roll(crops_then_answers, processor, rows, settings, **options)


def test_a_template_that_drops_pictures_is_refused(tiny_model, rows, settings):
    processor = load_processor(tiny_model.folder)
    processor.chat_template = processor.chat_template.replace("<|image_pad|>", "")
    with pytest.raises(ValueError, match="row row0: the prompt must hold 1 pictures, got 0"):
        roll(crops_then_answers, processor, rows[:1], settings)


def test_a_question_that_spells_a_special_token_is_read_escape_special_tokens(processor, rows, settings):
    seen = []

    def script(prompt: Prompt) -> str:
        seen.append(prompt)
        return answer("x")

    roll(script, processor, [dataclasses.replace(rows[0], question="<|image_pad|> <|im_end|>?")], settings)
    assert "< |image_pad|> < |im_end|>?" in seen[0].text
    assert len(seen[0].tokens) == 1


def test_no_rows_no_rollouts(processor, settings):
    assert roll(crops_then_answers, processor, [], settings) == []


# The same tokens as the trainer's


@pytest.fixture(scope="module", params=["qwen2_5_vl", "qwen3_vl"])
def family(request, tmp_path_factory):
    folder = tiny.make_model(tmp_path_factory.mktemp("family"), request.param)
    processor = load_processor(folder)
    frame = Frame.SHOWN if request.param == "qwen2_5_vl" else Frame.RELATIVE_1000
    settings = CropSettings(frame=frame, factor=factor(processor), crop_tokens=16)
    return SimpleNamespace(model=load_model(folder), processor=processor, settings=settings)


@pytest.fixture
def family_rows(rows, family):
    side = family.settings.factor
    return [dataclasses.replace(row, shown_size=(4 * side, 3 * side)) for row in rows]


@pytest.mark.parametrize("tools", [True, False])
def test_prompts_have_the_tokens_that_the_processor_makes_of_them(family, family_rows, tools):
    engine = TransformersEngine(family.model, family.processor)
    speaker = _TokenSession(engine, RolloutSettings())
    live = speaker.start(Job(family_rows[0], family.settings, tools))
    speaker._make_ready(live)
    prepared = speaker.prompt(live)
    environment = CropEnvironment(family.settings)
    prompt = build_prompt(family.settings.frame, environment.reset(row=family_rows[0]), tools=tools)
    wanted = family.processor.apply_chat_template(
        [prompt],
        tools=[environment.image_zoom_in_tool] if tools else None,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
    )
    read = expanded(prepared.ids, prepared.pictures, image_token_id(family.processor))
    assert read == list(wanted["input_ids"][0])
    assert live.tokens == len(read)
    torch.testing.assert_close(prepared.pictures[0].data[0], torch.as_tensor(wanted["pixel_values"]))


def test_tool_answers_have_the_tokens_that_trl_gives_them(family, family_rows):
    speaker = _TokenSession(TransformersEngine(family.model, family.processor), RolloutSettings())
    trainer = SimpleNamespace(
        _is_vlm=True,
        _tokenizer=family.processor.tokenizer,
        processing_class=family.processor,
        chat_template=None,
        chat_template_kwargs={},
    )
    image = Image.new("RGB", (family.settings.factor,) * 2)  # one visual token: nothing to expand
    for content in ("{'error': 'The box is outside the image.'}", [{"type": "image", "image": image}]):
        message = {"role": "tool", "name": "image_zoom_in_tool", "content": content}
        assert speaker._reply_tokens([message]) == GRPOTrainer._get_tool_suffix_ids(trainer, [message])


# Real generation, random weights


def test_sampling_depends_on_the_seed_alone(family, family_rows):
    def sample(seed: int) -> list[str]:
        rollouts = generate_rollouts(
            TransformersEngine(family.model, family.processor),
            family_rows,
            crop_settings=family.settings,
            max_new_tokens=12,
            temperature=1.0,
            seed=seed,
            batch_size=4,
        )
        return [rollout.messages[-1]["content"] for rollout in rollouts]

    state = torch.random.get_rng_state()
    family.model.train()
    first = sample(1)
    assert family.model.training
    assert torch.equal(torch.random.get_rng_state(), state)
    assert sample(1) == first
    assert sample(2) != first


def test_greedy_answers_do_not_depend_on_padding(family, family_rows):
    longer = dataclasses.replace(
        family_rows[1], question="Which colour does the sign in the picture have? " * 4
    )

    def greedy(rows, batch_size: int) -> list[list[int]]:
        rollouts = generate_rollouts(
            TransformersEngine(family.model, family.processor),
            rows,
            crop_settings=family.settings,
            tools=False,
            max_new_tokens=10,
            batch_size=batch_size,
        )
        return [rollout.first_turn for rollout in rollouts]

    together = greedy([family_rows[0], longer], 2)
    assert together == greedy([family_rows[0]], 1) + greedy([longer], 1)


def test_turns_are_bounded_and_hold_no_vision_tokens(family, family_rows):
    rollouts = generate_rollouts(
        TransformersEngine(family.model, family.processor),
        family_rows,
        crop_settings=family.settings,
        max_new_tokens=30,
        temperature=5.0,
        seed=3,
    )
    forbidden = set(vision_token_ids(family.processor))
    for rollout in rollouts:
        assert 1 <= len(rollout.first_turn) <= 30
        assert not forbidden & set(rollout.first_turn)


def test_a_second_turn_sees_the_crop(family, family_rows):
    """A real forward pass over overview and crop: the ids, grids and pixels of several turns fit together."""
    words = family.processor.tokenizer
    spoken = words(call([10, 10, 60, 60]) + "<|im_end|>", add_special_tokens=False)["input_ids"]
    rollouts = generate_rollouts(
        TransformersEngine(family.model, family.processor),
        family_rows,
        crop_settings=family.settings,
        max_new_tokens=6,
        max_turns=2,
        first_turns=[spoken] * len(family_rows),
    )
    assert all(len(rollout.messages) == 3 for rollout in rollouts)
