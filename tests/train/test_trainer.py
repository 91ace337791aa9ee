"""TRL's trainer with ours on top: scripted rollouts of every kind, real steps on tiny models."""

import dataclasses
import io
import math
import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from transformers import GenerationConfig
from trl import GRPOTrainer

from lfpc_rewards import Frame, _reading
from lfpc_rewards._scan import read_turns
from lfpc_trl.data.rows import read_rows
from lfpc_trl.errors import UserError
from lfpc_trl.models.engines import Picture, expanded
from lfpc_trl.models.families import family_of
from lfpc_trl.models.processors import load_processor, never_sampled
from lfpc_trl.pictures import originals
from lfpc_trl.rollouts.rewards import METRICS
from lfpc_trl.rollouts.transcript import ENDINGS
from lfpc_trl.runs.trajectories import TrajectoryLog, read_trajectories
from lfpc_trl.train.alerts import ToolUseAlert
from lfpc_trl.train.colocated import ColocatedEngine
from lfpc_trl.train.trainer import RolloutTrainer
from tests import tiny
from tests.train.scripted import CUT, make_trainer

pytestmark = [
    pytest.mark.filterwarnings("default::ResourceWarning"),
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]
ANSWER = "<think>so</think><answer>A</answer>"


@pytest.fixture(scope="module")
def kind(request):
    """One family, unless a test asks for both: most of what is tested here is the same for all."""
    return getattr(request, "param", "qwen2_5_vl")


@pytest.fixture(scope="module")
def compact_dir(kind, tmp_path_factory):
    return tiny.make_model(tmp_path_factory.mktemp("compact"), kind, chat_template=tiny.COMPACT)


@pytest.fixture(scope="module")
def rows(kind, tmp_path_factory):
    side = {"qwen2_5_vl": 28, "qwen3_vl": 32}[kind]
    return read_rows(tiny.make_rows(tmp_path_factory.mktemp("rows"), shown_size=[4 * side, 3 * side]))


@pytest.fixture
def ask(compact_dir):
    """Writes a turn that calls the tool, for a box in pixels of the shown picture."""
    scale = 9 if family_of(compact_dir).frame is Frame.RELATIVE_1000 else 1

    def write(*box, opening=tiny.CALL_OPEN):
        return f"<think>near</think>{opening}{', '.join(str(scale * side) for side in box)}{tiny.CALL_CLOSE}"

    return write


@pytest.fixture
def call(ask):
    return ask(15, 15, 50, 45)


@pytest.fixture
def script(call):
    """Three turns are allowed."""
    return [
        [call, ANSWER],  # finished
        [call, call, call],  # over_turn
        [call, "<think>so</think><tool_call>{broken</tool_call>"],  # malformed
        ["<think>so" + CUT],  # cut
    ]


def generate(trainer):
    """One round of rollouts, as the first training step would make it."""
    trainer.model.train()
    batch = next(iter(trainer.get_train_dataloader()))
    return trainer._generate_and_score_completions(batch), batch


# --- endings -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_ending_is_counted(compact_dir, rows, tmp_path, script):
    trainer = make_trainer(compact_dir, rows[:1], tmp_path, script)
    trainer.train()
    logs = trainer.state.log_history[0]
    counted = {name: logs[f"endings/{name}"] for name in ENDINGS}
    assert counted == {"finished": 0.25, "over_turn": 0.25, "malformed": 0.25, "cut": 0.25, "over_long": 0}
    assert logs["tool_use"] == 0.75
    assert logs["tool_calls"] == (1 + 2 + 1) / 4  # the third call of the second rollout is not answered
    assert logs["failed_calls"] == logs["failed_calls/outside"] == 0


@pytest.mark.slow
def test_a_result_without_room_is_over_long(compact_dir, rows, tmp_path, script, call):
    tokens = len(load_processor(compact_dir).tokenizer(f"#0#{call}")["input_ids"]) + 5
    trainer = make_trainer(compact_dir, rows[:1], tmp_path, script, config={"max_completion_length": tokens})
    trainer.train()
    logs = trainer.state.log_history[0]
    assert (logs["endings/over_long"], logs["endings/cut"], logs["tool_use"]) == (0.75, 0.25, 0)
    # TRL's own figure does not see it: the rollouts end with an end-of-turn token.
    assert logs["completions/clipped_ratio"] == 0.25


@pytest.mark.slow
def test_failed_calls_are_counted_by_reason(compact_dir, rows, tmp_path, call, ask):
    unknown = ask(15, 15, 50, 45, opening=tiny.CALL_OPEN.replace("image_zoom_in_tool", "draw"))
    script = [
        [ask(900, 900, 950, 950), ANSWER],
        [unknown, ANSWER],
        [call, ask(50, 15, 15, 45), ANSWER],
        [ANSWER],
    ]
    trainer = make_trainer(compact_dir, rows[:1], tmp_path, script)
    trainer.train()
    logs = trainer.state.log_history[0]
    assert {name: logs[f"failed_calls/{name}"] for name in ("outside", "other", "inverted", "thin")} == {
        "outside": 0.25,
        "other": 0.25,
        "inverted": 0.25,
        "thin": 0,
    }
    assert (logs["failed_calls"], logs["tool_use"]) == (0.75, 0.25)


# --- masks -------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["qwen2_5_vl", "qwen3_vl"], indirect=True)
@pytest.mark.parametrize("masked", [(), ("over_turn",), ("over_turn", "cut", "malformed"), ENDINGS])
def test_a_masked_rollout_has_no_gradient_and_the_others_keep_theirs(
    compact_dir, rows, tmp_path, script, masked
):
    trainer = make_trainer(compact_dir, rows[:1], tmp_path, script, mask_endings=masked)
    output, _ = generate(trainer)
    ended = ["finished", "over_turn", "malformed", "cut"]
    kept = torch.tensor([[end not in masked] for end in ended]).int()
    free, _ = generate(make_trainer(compact_dir, rows[:1], tmp_path, script))
    # Only the loss mask differs: tokens, attention, pictures and advantages are the same.
    for name in ("completion_ids", "completion_mask", "pixel_values", "advantages"):
        assert torch.equal(output[name], free[name])
    expected = free["tool_mask"] * free["completion_mask"] * kept
    assert torch.equal(output["tool_mask"] * output["completion_mask"], expected)
    assert output["num_items_in_batch"] == expected.sum()
    trainer.current_gradient_accumulation_steps = 1
    gradient = gradients(trainer, trainer._compute_loss(trainer.model, output))
    by_hand = policy_gradient(trainer, output, expected)
    for ours, theirs in zip(gradient, by_hand, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-7)
    assert any(part.abs().max() > 0 for part in gradient) == bool(expected.sum())


def gradients(trainer, loss):
    trainer.model.zero_grad()
    loss.backward()
    return [torch.zeros(1) if p.grad is None else p.grad.clone() for p in trainer.model.parameters()]


def policy_gradient(trainer, output, mask):
    """REINFORCE written out: the mean over the masked tokens of advantage times log-probability."""
    ids = torch.cat([output["prompt_ids"], output["completion_ids"]], dim=1)
    logits = trainer.model(
        input_ids=ids,
        attention_mask=torch.cat([output["prompt_mask"], output["completion_mask"]], dim=1),
        **{name: output[name] for name in ("pixel_values", "image_grid_thw", "mm_token_type_ids")},
    ).logits
    start = output["prompt_ids"].size(1)
    likely = logits[:, start - 1 : -1].log_softmax(-1).gather(2, output["completion_ids"][..., None])[..., 0]
    loss = -(output["advantages"][:, None] * likely * mask).sum() / mask.sum().clamp(min=1)
    return gradients(trainer, loss)


@pytest.mark.slow
def test_a_step_with_nothing_but_masked_rollouts_changes_nothing(compact_dir, rows, tmp_path, call):
    trainer = make_trainer(
        compact_dir, rows[:1], tmp_path, [[call] * 3, [call] * 3] * 2, mask_endings=("over_turn",)
    )
    before = [parameter.clone() for parameter in trainer.model.parameters()]
    trainer.train()
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.model.parameters(), strict=True))
    assert trainer.state.log_history[0]["grad_norm"] == 0
    assert not math.isnan(trainer.state.log_history[0]["loss"])


def test_endings_that_do_not_exist_are_refused(compact_dir, rows, tmp_path):
    with pytest.raises(ValueError, match=r"mask_endings must be some of finished, .*, got 'overlong', did"):
        make_trainer(compact_dir, rows, tmp_path, mask_endings=("overlong",))
    with pytest.raises(ValueError, match="mask_truncated_completions must be False"):
        make_trainer(compact_dir, rows, tmp_path, config={"mask_truncated_completions": True})


@pytest.mark.filterwarnings("ignore:You are using 'environment_factory':UserWarning")
@pytest.mark.parametrize(("before", "after"), [(None, "1"), ("0", "0")])
def test_a_user_decides_whether_trl_announces_its_experiments(
    compact_dir, rows, tmp_path, monkeypatch, before, after
):
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "to be put back")
    if before is None:
        monkeypatch.delenv("TRL_EXPERIMENTAL_SILENCE")
    else:
        monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", before)
    make_trainer(compact_dir, rows, tmp_path)
    assert os.environ["TRL_EXPERIMENTAL_SILENCE"] == after


# --- what TRL would let pass -------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("token", ["<|image_pad|>", "<|video_pad|>", "<|vision_start|>"])
def test_a_sampled_vision_token_stops_the_training(compact_dir, rows, tmp_path, script, token):
    script[2] = [script[2][0], f"<think>{token}</think>"]
    trainer = make_trainer(compact_dir, rows[:1], tmp_path, script)
    with pytest.raises(RuntimeError, match=r"rollout 2 of this batch sampled <\|"):
        trainer.train()


@pytest.mark.slow
def test_dropped_pictures_stop_the_training(compact_dir, rows, tmp_path, script, monkeypatch):
    script[2] = [script[2][0], "<think><|image_pad|></think>"]
    trainer = make_trainer(compact_dir, rows[:1], tmp_path, script)
    monkeypatch.setattr(trainer, "_check_tokens", lambda *_: None)
    with pytest.raises(RuntimeError, match="TRL dropped all pictures"):
        trainer.train()


def test_vision_tokens_are_suppressed_in_the_words_of_each_engine(compact_dir):
    processor = load_processor(compact_dir)
    ids = [
        processor.tokenizer.convert_tokens_to_ids(f"<|{name}|>")
        for name in ("image_pad", "video_pad", "vision_start", "vision_end", "vision_pad")
    ]
    assert never_sampled(processor, use_vllm=False) == {"suppress_tokens": ids}
    assert never_sampled(processor, use_vllm=True) == {"logit_bias": dict.fromkeys(ids, -100.0)}


@pytest.mark.slow
def test_a_model_that_wants_nothing_but_vision_tokens_samples_none(compact_dir, rows, tmp_path):
    trainer = make_trainer(compact_dir, rows[:1], tmp_path, config={"max_completion_length": 12})
    head = trainer.model.get_output_embeddings()
    ids = never_sampled(trainer.processing_class, use_vllm=False)["suppress_tokens"]

    def wish(module, inputs, logits):
        logits = logits.clone()
        logits[..., ids] += 50.0
        return logits

    head.register_forward_hook(wish)
    output, _ = generate(trainer)
    assert not torch.isin(output["completion_ids"], torch.tensor(ids)).any()


@pytest.mark.slow
@pytest.mark.parametrize("end", ["eos_token_id", "pad_token_id"])
def test_a_turn_ends_at_either_end_and_a_checkpoint_knows_both(compact_dir, rows, tmp_path, end):
    trainer = make_trainer(compact_dir, rows[:1], tmp_path, config={"max_completion_length": 12})
    words = trainer.processing_class.tokenizer
    wanted = getattr(words, end)

    def wish(module, inputs, logits):
        logits = logits.clone()
        logits[..., wanted] += 100.0
        return logits

    hook = trainer.model.get_output_embeddings().register_forward_hook(wish)
    trainer.train()
    hook.remove()
    logs = trainer.state.log_history[0]
    assert logs["completions/mean_length"] == 1
    assert (logs["endings/finished"], logs["completions/clipped_ratio"]) == (1, 0)
    trainer.save_model(str(tmp_path / "saved"))
    both = [words.eos_token_id, words.pad_token_id]
    assert GenerationConfig.from_pretrained(tmp_path / "saved").eos_token_id == both
    assert list(load_processor(tmp_path / "saved").turn_ends) == both


# --- pictures ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_step_decodes_each_original_once(compact_dir, rows, tmp_path, call, monkeypatch):
    """Four micro steps, two prompts, four rollouts each, two rounds of crops."""
    decoded, decode = [], originals._decode
    monkeypatch.setattr(originals, "_PICTURES", originals.PictureCache())
    monkeypatch.setattr(originals, "_decode", lambda path: decoded.append(path) or decode(path))
    trainer = make_trainer(
        compact_dir,
        rows[:2],
        tmp_path,
        [[call, call, ANSWER]] * 8,
        config={"gradient_accumulation_steps": 4},
    )
    trainer.train()
    assert trainer.state.log_history[0]["tool_calls"] == 2
    assert sorted(decoded) == sorted(row.image for row in rows[:2])


@pytest.mark.slow
def test_no_picture_is_held_for_a_table_that_is_not_printed(compact_dir, rows, tmp_path, script):
    trainer = make_trainer(compact_dir, rows[:1], tmp_path, script)
    generate(trainer)
    assert not trainer._logs["prompt"]
    assert not trainer._logs["completion"]


# --- trajectories ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_rollouts_of_a_step_are_kept(compact_dir, rows, tmp_path, script):
    log = TrajectoryLog(tmp_path / "trajectories", groups=1)
    row = dataclasses.replace(rows[0], choices=("A", "B"))
    trainer = make_trainer(
        compact_dir, [row], tmp_path, script, mask_endings=("over_turn",), trajectories=log
    )
    trainer.train()
    logged = read_trajectories(tmp_path)
    assert logged == read_trajectories(log.directory / "step-000001.parquet")
    assert [each.ending for each in logged] == ["finished", "over_turn", "malformed", "cut"]
    assert [each.masked for each in logged] == [False, True, False, False]
    assert [(each.step, each.group, each.rollout) for each in logged] == [(1, 0, n) for n in range(4)]
    first = logged[0]
    assert (first.row_id, first.question, first.answer) == (row.id, row.question, "A")
    assert (first.choices, first.accepted, first.image) == (("A", "B"), row.answer, str(row.image))
    assert first.targets == [region.tolist() for region in row.regions]
    assert first.boxes == ((30, 30, 100, 90),)
    assert [len(each.boxes) for each in logged] == [1, 2, 1, 0]
    # Pictures: the shown one and a thumbnail per crop, where the messages say.
    roles = [message["role"] for message in first.messages]
    assert roles == ["system", "user", "assistant", "tool", "assistant"]
    assert first.messages[1]["content"][0:1] == [{"type": "text", "text": ""}]
    assert first.messages[1]["content"][1] == {"type": "image", "thumbnail": 0}
    assert first.messages[3]["content"] == [{"type": "image", "thumbnail": 1}]
    shown, crop = (Image.open(io.BytesIO(data)) for data in first.thumbnails)
    assert (shown.format, shown.size) == ("JPEG", row.shown_size)
    assert max(crop.size) <= 256
    # Scores add up to the reward that the trainer logged.
    assert first.scores == {"accuracy": 1, "format": -1, "tool_bonus": 1}  # "#0#" stands before the thought
    assert first.reward == pytest.approx(0.8 - 0.2 + 1.2)
    mean = sum(each.reward for each in logged) / 4
    assert mean == pytest.approx(trainer.state.log_history[0]["reward"])
    spread = torch.tensor([each.reward for each in logged]).std().item() + 1e-4
    assert [each.advantage for each in logged] == pytest.approx(
        [(each.reward - mean) / spread for each in logged], abs=1e-4
    )


@pytest.mark.slow
def test_trajectories_are_sampled_by_step_and_by_group(compact_dir, rows, tmp_path):
    log = TrajectoryLog(tmp_path / "trajectories", every=2, groups=1)
    trainer = make_trainer(
        compact_dir,
        rows[:2],
        tmp_path,
        [[ANSWER]] * 8,
        # Two prompts per round and one per update: two updates are one step of ours.
        config={"generation_batch_size": 8, "max_steps": 6},
        trajectories=log,
    )
    trainer.train()
    assert [path.name for path in sorted(log.directory.iterdir())] == [
        "step-000001.parquet",
        "step-000003.parquet",
    ]
    assert [(each.step, each.group) for each in read_trajectories(tmp_path)] == [(1, 0)] * 4 + [(3, 0)] * 4


# --- vLLM in the processes of the training ------------------------------------------------------------


class ColocatedLLM:
    """The engine that TRL drives in colocate mode: keeps the prompts it is given and plays a script.

    As vLLM it puts the tokens of a picture in place of one placeholder, whatever stands behind that.
    """

    def __init__(self, trainer, script):
        self.tokenizer, self.script, self.prompts = trainer._tokenizer, script, []
        self.side, self.placeholder = trainer._crops.factor, trainer.processing_class.image_token_id
        config = SimpleNamespace(max_model_len=4096, dtype=torch.float32)
        self.llm_engine = SimpleNamespace(model_config=config)

    def generate(self, prompts, **_):
        self.prompts += prompts
        return [self.turn(place, self.read(prompt)) for place, prompt in enumerate(prompts)]

    def read(self, prompt):
        images = prompt["multi_modal_data"]["image"]
        images = images if isinstance(images, list) else [images]
        counts = iter([each.width * each.height // self.side**2 for each in images])
        return [
            token
            for each in prompt["prompt_token_ids"]
            for token in [each] * (next(counts, 1) if each == self.placeholder else 1)
        ]

    def turn(self, place, ids):
        said = re.findall(r"#(\d+)#", self.tokenizer.decode(ids))
        rollout = int(said[0]) if said else place
        text = f"#{rollout}#{self.script[rollout][len(said)]}"
        written = [*self.tokenizer(text)["input_ids"], self.tokenizer.eos_token_id]
        certain = [{token: SimpleNamespace(rank=1, logprob=0.0)} for token in written]
        return SimpleNamespace(
            prompt_token_ids=ids, outputs=[SimpleNamespace(token_ids=written, logprobs=certain)]
        )


def colocate(trainer, script, monkeypatch):
    """Let TRL's own code of colocate mode ask a `ColocatedLLM`."""
    from trl.generation import vllm_generation

    monkeypatch.setattr(vllm_generation, "SamplingParams", SimpleNamespace, raising=False)
    llm = ColocatedLLM(trainer, script)
    generation = object.__new__(vllm_generation.VLLMGeneration)
    vars(generation).update(
        {"mode": "colocate", "llm": ColocatedEngine(llm, llm.placeholder), "model": trainer.model},
        accelerator=trainer.accelerator,
        tensor_parallel_size=1,
        enable_sleep_mode=False,
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        min_p=None,
        repetition_penalty=1.0,
        logprobs=0,
        max_completion_length=600,
        generation_kwargs={},
        structured_outputs_regex=None,
    )
    trainer.use_vllm, trainer.vllm_mode, trainer.vllm_generation = True, "colocate", generation
    trainer._last_loaded_step = trainer.state.global_step
    return llm.prompts


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["qwen2_5_vl", "qwen3_vl"], indirect=True)
def test_vllm_beside_the_trainer_is_given_one_placeholder_for_each_picture(
    compact_dir, rows, tmp_path, call, monkeypatch
):
    script = [[call, ANSWER], [call, call, ANSWER], [ANSWER], [ANSWER]]
    trainer = make_trainer(compact_dir, rows[:1], tmp_path, script)
    plain = RolloutTrainer._generate_single_turn
    monkeypatch.setattr(type(trainer), "_generate_single_turn", plain)  # no script of the trainer's own
    given = colocate(trainer, script, monkeypatch)
    output, _ = generate(trainer)
    picture = trainer.processing_class.image_token_id
    pictures = [prompt["multi_modal_data"]["image"] for prompt in given]
    pictures = [each if isinstance(each, list) else [each] for each in pictures]
    assert [len(each) for each in pictures] == [1, 1, 1, 1, 2, 2, 3]
    assert [prompt["prompt_token_ids"].count(picture) for prompt in given] == [1, 1, 1, 1, 2, 2, 3]
    # The trainer goes on with the tokens that the model reads: as many as each picture has.
    read = torch.cat([output["prompt_ids"], output["completion_ids"]], 1)
    assert (read == picture).sum() == output["image_grid_thw"].prod(-1).sum() // 4
    # And what vLLM makes of its prompts is just that.
    side = trainer._crops.factor
    tokens = [Picture(each.width * each.height // side**2, None) for each in pictures[-1]]
    whole = expanded(given[-1]["prompt_token_ids"], tokens, picture)
    row = read[1][torch.cat([output["prompt_mask"], output["completion_mask"]], 1)[1].bool()].tolist()
    assert row[: len(whole)] == whole


@pytest.mark.slow
def test_without_the_mend_trl_has_vllm_read_another_prompt_and_no_training_starts(
    compact_dir, rows, tmp_path, monkeypatch
):
    """Where nothing is raised, TRL has mended its issue 6294, and most of `colocated.py` can go."""
    trainer = make_trainer(compact_dir, rows[:1], tmp_path, [[ANSWER]] * 4)
    monkeypatch.setattr(type(trainer), "_generate_single_turn", RolloutTrainer._generate_single_turn)
    monkeypatch.setattr(ColocatedEngine, "_collapsed", lambda _, prompt: prompt)
    colocate(trainer, trainer.script, monkeypatch)
    wanted = r"rollout 0 has (\d+) tokens, 12 of them visual, vLLM read (\d+) tokens, 23 of them visual"
    with pytest.raises(UserError, match=wanted) as refused:
        trainer.train()
    ours, theirs = map(int, re.search(wanted, str(refused.value)).groups())
    assert theirs == ours + 11


@pytest.mark.parametrize(
    "prompt",
    [
        {"prompt_token_ids": [1, 9, 2], "multi_modal_data": {"image": ["picture"]}},
        {
            "prompt_token_ids": [1, 9, 9, 2],
            "mm_placeholders": [(1, 2)],
            "multi_modal_data": {"image": ["picture"]},
        },
        {"prompt_token_ids": [1, 2]},
    ],
    ids=["one placeholder per picture", "placeholders named", "no picture"],
)
def test_prompts_of_a_trl_that_has_healed_are_left_alone(prompt):
    given = []
    answer = SimpleNamespace(prompt_token_ids=[1, 9, 9, 2])
    engine = ColocatedEngine(SimpleNamespace(generate=lambda prompts: given.extend(prompts) or [answer]), 9)
    engine.generate([prompt])
    assert given == [prompt]
    engine.check_read([[1, 9, 9, 2]])


@pytest.mark.slow
def test_vllm_on_a_server_is_given_what_the_trainer_reads(compact_dir, rows, tmp_path, monkeypatch):
    """There TRL says where the pictures are, and vLLM adds nothing."""
    trainer = make_trainer(compact_dir, rows[:1], tmp_path, [[ANSWER]] * 4)
    asked = []
    monkeypatch.setattr(
        GRPOTrainer, "_generate_single_turn", lambda _, ids, *__: (asked.append(ids) or [], None)
    )
    trainer.use_vllm, trainer.vllm_mode = True, "server"
    RolloutTrainer._generate_single_turn(trainer, [[7, 8, 8, 8]], [["picture"]], {}, 1)
    assert asked == [[[7, 8, 8, 8]]]


# --- curves ------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_curve_reaches_tensorboard_and_stands_on_its_page(compact_dir, rows, tmp_path, script):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    trainer = make_trainer(compact_dir, rows[:1], tmp_path, script, config={"report_to": "tensorboard"})
    trainer.add_callback(ToolUseAlert())
    trainer.train()
    (file,) = tmp_path.rglob("events.out.tfevents.*")
    seen = events.EventAccumulator(str(file)).Reload()
    names = {tag.removeprefix("train/") for tag in seen.Tags()["scalars"]}
    assert {*METRICS, *(f"endings/{name}" for name in ENDINGS), "rewards/accuracy/mean", "reward"} <= names
    for name in (*METRICS, "reward"):
        (event,) = seen.Scalars(f"train/{name}")
        assert event.value == pytest.approx(trainer.state.log_history[0][name])
    page = (Path(__file__).parents[2] / "docs" / "reference" / "metrics.md").read_text(encoding="utf-8")
    ours = {*METRICS, *(f"endings/{name}" for name in ENDINGS)}
    assert [name for name in sorted(ours) if f"`{name}`" not in page] == []


def test_a_batch_is_read_once_for_all_terms_curves_and_trajectories(
    compact_dir, rows, ask, tmp_path, monkeypatch
):
    batches = []
    monkeypatch.setattr(_reading, "read_turns", lambda *given: batches.append(given) or read_turns(*given))
    log = TrajectoryLog(tmp_path / "trajectories", groups=1)
    script = [[ask(0, 0, 40, 40), ANSWER], [ANSWER], ["no tags"], [ANSWER]]
    trainer = make_trainer(compact_dir, rows[:1], tmp_path, script, trajectories=log)
    batches.clear()  # a processor reads a call of its own when it is loaded
    trainer.train()
    assert len(batches) == 1
    assert len(read_trajectories(tmp_path)) == 4
