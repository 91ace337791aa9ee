"""With the true vocabulary of Qwen: what the trainer's update reads is what was sampled, token by token."""

import pytest
from transformers import AutoTokenizer
from trl.chat_template_utils import parse_response

from lfpc_rewards import parse_completion
from lfpc_trl.data.rows import read_rows
from lfpc_trl.models.processors import factor, load_processor
from lfpc_trl.rollouts.crop_tool import CropSettings
from lfpc_trl.rollouts.generate import prompt_limits
from lfpc_trl.rollouts.turns import turns_of
from lfpc_trl.train.preflight import preflight
from lfpc_trl.train.trainer import RolloutTrainer
from tests import qwen_vocabulary, tiny
from tests.train.scripted import make_trainer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default::ResourceWarning"),
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]
ANSWER = "<think>so</think>\n<answer>A</answer>"
THOUGHT = "<think>near</think>\n"
PLAIN = '{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [150, 150, 500, 450]}}'
CALL = f"<tool_call>\n{PLAIN}\n</tool_call>"
ORDER = '{"arguments": {"bbox_2d": [150, 150, 500, 450]}, "name": "image_zoom_in_tool"}'
LABEL = PLAIN.replace("]}}", '], "label": "caf\\u00e9"}}')
WAYS = [  # id, a turn, whether it changes when it is parsed and rendered again
    ("as the template writes it", THOUGHT + CALL, False),
    ("an answer", ANSWER, False),
    ("words alone", "It is an A.", False),
    ("no spaces in the JSON", THOUGHT + CALL.replace(", ", ",").replace(": ", ":"), True),
    ("no lines around the JSON", f"{THOUGHT}<tool_call>{PLAIN}</tool_call>", True),
    ("keys in another order", f"{THOUGHT}<tool_call>\n{ORDER}\n</tool_call>", True),
    ("a letter as its number", f"{THOUGHT}<tool_call>\n{LABEL}\n</tool_call>", True),
    ("text after the call", f"{THOUGHT}{CALL}\nLet me see.", True),
    ("two calls with a line between", f"{THOUGHT}{CALL}\n\n{CALL}", True),
    ("a call inside words", f"{THOUGHT}I look: {CALL} Now.", True),
    ("numbers in another form", THOUGHT + CALL.replace("150, 500", "1.5e2, 500"), True),
    ("blanks at the end", f"{ANSWER}  \n", True),
    ("letter by letter", "<think>so</think>\n<answer>A sign</answer>", True),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    try:
        kept = qwen_vocabulary.folder()
    except qwen_vocabulary.NotFoundError as reason:
        pytest.skip(str(reason))
    words = AutoTokenizer.from_pretrained(kept)
    words.padding_side = "left"
    return tiny.make_model(tmp_path_factory.mktemp("model"), "qwen3_vl", words=words)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return read_rows(tiny.make_rows(tmp_path_factory.mktemp("rows"), 1, shown_size=[128, 96]))


@pytest.fixture(scope="module")
def processor(folder):
    return load_processor(folder)


@pytest.fixture(scope="module")
def words(processor):
    return processor.tokenizer


def sampled(words, name, text):
    """The tokens of a turn; a model may also write a word in pieces that the tokenizer would not choose."""
    pieces = list(text) if name == "letter by letter" else [text]
    ids = [token for piece in pieces for token in words(piece, add_special_tokens=False)["input_ids"]]
    return [*ids, words.eos_token_id]


class Playing(RolloutTrainer):
    """Writes `first` in the first round, one turn each, and `second` wherever a rollout goes on."""

    def play(self, first, second):
        self.first, self.second, self.rounds = first, second, 0

    def _generate_single_turn(self, prompt_ids, *_, **__):
        self.rounds += 1
        return [
            list(ids) for ids in (self.first if self.rounds == 1 else [self.second] * len(prompt_ids))
        ], None


def rollouts(folder, rows, output, turns, second, budget=2000):
    """One round of the trainer; what its update reads: (ids, mask) of each rollout, and what was logged."""
    config = {"num_generations": len(turns), "per_device_train_batch_size": len(turns)}
    config |= {"gradient_accumulation_steps": 1, "max_completion_length": budget}
    trainer = make_trainer(folder, rows, output, kind=Playing, config=config)
    trainer.play(turns, second)
    trainer.model.train()
    found = trainer._generate_and_score_completions(next(iter(trainer.get_train_dataloader())))
    read = zip(found["completion_ids"], found["completion_mask"].bool(), found["tool_mask"], strict=True)
    return [(ids[is_read].tolist(), mask[is_read].tolist()) for ids, is_read, mask in read], trainer, found


def test_every_way_to_write_a_turn_survives_token_by_token(folder, rows, words, tmp_path):
    assert len(WAYS) == 13
    written = [sampled(words, name, text) for name, text, _ in WAYS]
    second = sampled(words, "", ANSWER)
    read, trainer, _ = rollouts(folder, rows, tmp_path, written, second)
    for (name, text, _), turn, (ids, mask) in zip(WAYS, written, read, strict=True):
        expected = [turn, second] if "<tool_call>" in text else [turn]
        assert turns_of(ids, mask) == expected, name
    assert trainer._metrics["train"]["tools/failure_frequency"] == [0]


@pytest.mark.parametrize(("name", "text", "changes"), WAYS, ids=[name for name, *_ in WAYS])
def test_parsing_and_rendering_again_changes_most_of_them(processor, words, name, text, changes):
    """Where this fails, the library has learned to keep them."""
    turn = sampled(words, name, text)
    question = [{"role": "user", "content": [{"type": "text", "text": "?"}]}]
    prompt = processor.apply_chat_template(question, tokenize=False, add_generation_prompt=True)
    parsed = parse_response(words, turn, prefix=words(prompt)["input_ids"])
    parsed["content"] = [{"type": "text", "text": parsed["content"]}]
    whole = processor.apply_chat_template([*question, parsed], tokenize=False)
    again = words(whole.removeprefix(prompt).removesuffix("\n"), add_special_tokens=False)["input_ids"]
    assert (again != turn) == changes


def test_ten_of_thirteen_change():
    assert sum(changes for *_, changes in WAYS) == 10


def test_budgets_are_counted_in_true_tokens(folder, rows, processor, words, tmp_path):
    turn, second = sampled(words, "", WAYS[0][1]), sampled(words, "", ANSWER)
    [(ids, mask), _], _, found = rollouts(folder, rows, tmp_path, [turn] * 2, second)
    whole, answered = len(ids), len(ids) - len(second)
    assert turns_of(ids, mask) == [turn, second]
    for budget, expected in [
        (whole, "finished"),
        (whole - 1, "cut"),
        (answered, "over_long"),
        (answered - 1, "over_long"),
    ]:
        read, trainer, _ = rollouts(folder, rows, tmp_path, [turn] * 2, second, budget)
        assert trainer._endings == [expected] * 2, budget
        assert len(read[0][0]) == (budget if budget >= answered else len(turn))
    # What is checked and reserved before a run is counted in the same tokens.
    crops = CropSettings(frame=processor.family.frame, factor=factor(processor), crop_tokens=8)
    prompt = int(found["prompt_mask"][0].sum())
    assert preflight(processor, rows, crops).longest_prompt == prompt
    limits = prompt_limits(processor, rows, 12, max_new_tokens=len(second), max_turns=2, crops=crops)
    assert limits.tokens >= prompt + whole


def test_a_rollout_that_a_decoder_made_one_text_is_read_as_its_messages(words):
    """As verl does it: turns and tool answers in one list of ids, decoded with special tokens or without."""
    seen = [{"role": "tool", "content": "<|vision_start|><|image_pad|><|vision_end|>Zoomed in."}]
    between = words.apply_chat_template(seen, tokenize=False, add_generation_prompt=True)
    ids = [*sampled(words, "", THOUGHT + CALL), *words(between)["input_ids"], *sampled(words, "", ANSWER)]
    messages = [
        {"role": "assistant", "content": THOUGHT + CALL},
        {"role": "tool", "content": [{"type": "image"}]},
        {"role": "assistant", "content": ANSWER},
    ]
    looked = parse_completion(messages)
    assert looked.delivered_crops
    assert parse_completion(words.decode(ids), picture_mark="<|vision_start|>") == looked
    bare = words.decode(ids, skip_special_tokens=True)
    assert parse_completion(bare, picture_mark="Zoomed in") == looked
    assert parse_completion(bare).delivered_crops == ()
