"""No turn stops a training or an evaluation: real steps on tiny models whose turns are made up."""

import json
import math

import pytest
import torch
from hypothesis import HealthCheck, Phase, example, given
from hypothesis import settings as profile
from hypothesis import strategies as st

from lfpc_rewards import parse_completion
from lfpc_rewards.parsing import has_image
from lfpc_trl.data.rows import read_rows
from lfpc_trl.evaluate.in_process import evaluate
from lfpc_trl.models.families import family_of
from lfpc_trl.models.processors import factor, load_processor
from lfpc_trl.rollouts.crop_tool import CropSettings
from lfpc_trl.runs.trajectories import TrajectoryLog, read_trajectories
from lfpc_trl.train.trainer import RolloutTrainer
from tests import tiny
from tests.evaluate.scripted import ScriptedModel
from tests.train.scripted import make_trainer
from tests.wild import NESTED, calls_tool, in_letters, turns

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default::ResourceWarning"),
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]
# A step takes a second: what fails is shown as it is, not made smaller.
FOUND = {
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
    "phases": [Phase.explicit, Phase.generate],
}
ANSWER = "<think>so</think><answer>A</answer>"
KILLERS = [  # id, a turn that ended a training once, or could
    *((f"{token} as a tool", calls_tool(token, {})) for token in tiny.SPECIALS),
    *((f"{token} as an argument", calls_tool("image_zoom_in_tool", {token: 1})) for token in tiny.SPECIALS),
    ("half a surrogate pair", calls_tool("\ud800", {})),
    ("nested too deeply", f'<tool_call>{{"name": "zoom", "arguments": {NESTED}</tool_call>'),
    ("nested deeply", f'<tool_call>{{"name": "zoom", "arguments": {"[" * 400}{"]" * 400}}}</tool_call>'),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Our own template, which tells the model whatever a tool says."""
    return tiny.make_model(tmp_path_factory.mktemp("model"), "qwen2_5_vl")


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return read_rows(tiny.make_rows(tmp_path_factory.mktemp("rows"), shown_size=[112, 84]))


class Playing(RolloutTrainer):
    """Every rollout writes its turns, one after the other, and then answers."""

    def play(self, script, end):
        self.script, self.end, self.sampled, self.seen = script, end, [], []

    def _generate_single_turn(self, prompt_ids, *_, **__):
        if not self.sampled:
            self.sampled = [[] for _ in prompt_ids]
            self.prompts = [list(ids) for ids in prompt_ids]
        written = []
        for ids in prompt_ids:
            # The longest conversation so far that these tokens go on from.
            place = next(
                place
                for place, turns in enumerate(self.sampled)
                if self._goes_on(list(ids), self.prompts[place], turns)
            )
            said = self.sampled[place]
            text = self.script[place][len(said)] if len(said) < len(self.script[place]) else ANSWER
            # A number of its own, so that no two rollouts of a batch are the same.
            said.append([*in_letters(self._tokenizer, f"{place} {text}"), self.end])
            written.append(list(said[-1]))
        return written, None

    @staticmethod
    def _goes_on(ids, prompt, turns):
        at = len(prompt)
        if ids[:at] != prompt:
            return False
        for turn in turns:
            while at < len(ids) and ids[at : at + len(turn)] != turn:
                at += 1
            if at >= len(ids):
                return False
            at += len(turn)
        return True

    def _calculate_rewards(self, inputs, prompts, completions, *args):
        self.seen = completions
        return super()._calculate_rewards(inputs, prompts, completions, *args)


def pictures_in(messages):
    return sum(message["role"] == "tool" and has_image(message["content"]) for message in messages)


def train(folder, rows, output, script, end="eos_token_id"):
    """One real step; what was seen is checked against what was written."""
    log = TrajectoryLog(output / "trajectories", groups=1)
    trainer = make_trainer(
        folder,
        rows[:1],
        output,
        script,
        kind=Playing,
        trajectories=log,
        config={"max_completion_length": 12_000, "learning_rate": 0.0},
    )
    trainer.play(script, getattr(trainer._tokenizer, end))
    trainer.train()
    assert trainer.state.global_step == 1
    assert math.isfinite(trainer.state.log_history[0]["reward"])
    for place, messages in enumerate(trainer.seen):
        said = [message["content"] for message in messages if message["role"] == "assistant"]
        # As written, in its order, special tokens in letters and no end.
        wanted = [*script[place], ANSWER, ANSWER, ANSWER][: len(said)]
        assert said == [f"{place} {text}".encode("utf-8", "replace").decode() for text in wanted]
        assert len(parse_completion(messages).delivered_crops) == pictures_in(messages)
    kept = read_trajectories(output)
    assert [each.ending for each in kept if each.ending == "cut"] == []
    for each, messages in zip(kept, trainer.seen, strict=True):
        kept_words = [message["content"] for message in each.messages if message["role"] == "assistant"]
        assert kept_words == [message["content"] for message in messages if message["role"] == "assistant"]
    return trainer


@given(
    script=st.lists(st.lists(turns, max_size=2), min_size=4, max_size=4),
    end=st.sampled_from(["eos_token_id", "pad_token_id"]),
)
@profile(max_examples=12, **FOUND)
def test_no_turn_stops_a_training(folder, rows, tmp_path_factory, script, end):
    train(folder, rows, tmp_path_factory.mktemp("run"), script, end)


@pytest.mark.parametrize("some", range(0, len(KILLERS), 4))
def test_no_turn_that_once_did_stops_a_training(folder, rows, tmp_path, some):
    script = [[text] for _, text in KILLERS[some : some + 4]]
    train(folder, rows, tmp_path, [*script, *[[ANSWER]] * (4 - len(script))])


class Wild(ScriptedModel):
    """Writes in letters, and ends turns with either end."""

    def generate(self, *, input_ids, attention_mask, generation_config, **_):
        lines = []
        for row, mask in zip(input_ids, attention_mask, strict=True):
            written = in_letters(self.tokenizer, self.script(row[mask.bool()]))
            end = generation_config.eos_token_id[len(written) % len(generation_config.eos_token_id)]
            lines.append(torch.tensor([*written, end]))
        new = torch.nn.utils.rnn.pad_sequence(lines, True, self.tokenizer.pad_token_id)
        return torch.cat([input_ids, new[:, : generation_config.max_new_tokens]], 1)


@given(script=st.lists(turns, min_size=1, max_size=3))
@profile(max_examples=40, **FOUND)
@example([text for _, text in KILLERS])
def test_no_turn_stops_an_evaluation(folder, rows, script):
    processor = load_processor(folder)
    crops = CropSettings(frame=family_of(folder).frame, factor=factor(processor), crop_tokens=8)
    wild, written = iter([*script, *[ANSWER] * 1000]), []

    def write(_):
        written.append(next(wild))
        return written[-1]

    model = Wild(processor, write)
    found = evaluate(
        model, processor, rows[:1], crop_settings=crops, max_new_tokens=9000, max_turns=len(script) + 1
    )
    assert math.isfinite(found.metrics["accuracy"])
    for each in found.trajectories:
        said = [message["content"] for message in each.messages if message["role"] == "assistant"]
        assert set(said) <= set(written)
        pictures = sum(
            message["role"] == "tool" and has_image(message["content"]) for message in each.messages
        )
        assert len(parse_completion(each.messages).delivered_crops) == pictures
        json.dumps([message for message in each.messages if message["role"] == "assistant"])
