"""What the libraries around an engine leave open, as far as one process can show it."""

import weakref
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.integrations import deepspeed
from trl import GRPOTrainer

from lfpc_trl.errors import UserError
from lfpc_trl.models import weights
from lfpc_trl.train import run
from lfpc_trl.train.recipe import load_recipe
from lfpc_trl.train.sharding import allow_numbered_cpus, check_engine, unsharded_models
from tests.train.scripted import make_trainer

# TRL 1.16 asks transformers 5.23 by an old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")


def accelerator(kind, **plugins):
    return SimpleNamespace(distributed_type=kind, state=SimpleNamespace(**plugins))


def test_a_run_whose_engine_is_not_the_one_that_was_asked_for_does_not_start(
    model_dir, rows, tmp_path, monkeypatch
):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    small = load_recipe("cpu-stage1", steps=1, threads=1)
    with pytest.raises(
        UserError, match="ACCELERATE_USE_FSDP asks for FSDP, but accelerate would train without"
    ):
        run.train(small, model_dir, rows, tmp_path / "run")
    monkeypatch.delenv("ACCELERATE_USE_FSDP")
    assert not (tmp_path / "run" / "manifest.json").exists()


def test_the_engine_that_was_asked_for_is_let_in(monkeypatch):
    check_engine(accelerator("MULTI_CPU"))
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    check_engine(accelerator("DEEPSPEED"))
    with pytest.raises(UserError, match="ACCELERATE_USE_DEEPSPEED asks for DeepSpeed"):
        check_engine(accelerator("MULTI_CPU"))


@pytest.mark.parametrize(
    ("plugins", "message"),
    [
        (
            {"fsdp_plugin": SimpleNamespace(state_dict_type="StateDictType.SHARDED_STATE_DICT")},
            "fsdp_state_dict_type must be FULL_STATE_DICT",
        ),
        (
            {"deepspeed_plugin": SimpleNamespace(zero_stage=3, zero3_save_16bit_model=False)},
            "zero3_save_16bit_model must be true",
        ),
    ],
    ids=["fsdp", "zero3"],
)
def test_an_engine_that_could_not_save_a_model_is_refused(plugins, message):
    with pytest.raises(UserError, match=message):
        check_engine(accelerator("FSDP", **plugins))


def test_models_are_whole_while_deepspeed_is_configured(monkeypatch):
    class ZeRO3:
        def is_zero3(self):
            return True

    settings = ZeRO3()
    monkeypatch.setattr(deepspeed, "_hf_deepspeed_config_weak_ref", weakref.ref(settings))
    with unsharded_models():
        assert not deepspeed.is_deepspeed_zero3_enabled()
    assert deepspeed.is_deepspeed_zero3_enabled()


def test_a_checkpoint_can_be_read_onto_the_cpus_of_a_process(tmp_path):
    torch.save({"weight": torch.ones(2)}, tmp_path / "optimizer.pt")
    allow_numbered_cpus()
    read = torch.load(tmp_path / "optimizer.pt", map_location=torch.device("cpu", 1), weights_only=True)
    assert read["weight"].tolist() == [1, 1]


def names(folder):
    with safe_open(folder / "model.safetensors", "pt") as file:
        return set(file.keys())


def test_a_model_is_saved_with_the_names_it_was_read_with(model_dir, tmp_path, monkeypatch):
    """Also where transformers keeps renamings that it had no use for, as under ZeRO-3."""
    load = weights.AutoModelForImageTextToText.from_pretrained

    def as_under_zero3(*args, **kwargs):
        model = load(*args, **kwargs)
        unused = [each for each in get_model_conversion_mapping(model) if not each.was_used()]
        model._weight_conversions = [*model._weight_conversions, *unused]
        return model

    monkeypatch.setattr(weights.AutoModelForImageTextToText, "from_pretrained", as_under_zero3)
    weights.load_model(model_dir).save_pretrained(tmp_path)
    assert names(tmp_path) == names(model_dir)


def test_processes_that_share_a_vllm_hand_it_as_many_prompts(model_dir, rows, tmp_path, monkeypatch):
    """TRL takes equal counts for granted and gives a process what was written for another one."""
    handed = []

    def engine(_, prompt_ids, images, *__, **___):
        handed.append((prompt_ids, images))
        return [[index] for index in range(len(prompt_ids))], [[-0.5] for _ in prompt_ids]

    trainer = make_trainer(model_dir, rows, tmp_path)
    monkeypatch.setattr(GRPOTrainer, "_generate_single_turn", engine)
    monkeypatch.setattr("lfpc_trl.train.lockstep.most", lambda *_: 3)
    trainer.use_vllm, trainer.vllm_mode = True, "server"
    trainer._filler = [7], ["spare"]
    written = trainer._generate_single_turn([[1], [2]], [["a"], ["b"]], {}, num_generations=1)
    assert written == ([[0], [1]], [[-0.5], [-0.5]])
    trainer._join_turn(3)
    assert handed == [
        ([[1], [2], [7]], [["a"], ["b"], ["spare"]]),
        ([[7], [7], [7]], [["spare"], ["spare"], ["spare"]]),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("family", ["qwen2_5_vl"], indirect=True)
def test_who_accompanies_the_turns_of_others_changes_nothing_of_its_own(
    taught_dir, rows, tmp_path, monkeypatch
):
    after, turns = [], []
    turn = run.RolloutTrainer._turn

    def counted(trainer, *args, **kwargs):
        turns[-1] += trainer.generation_config.max_new_tokens == 1
        return turn(trainer, *args, **kwargs)

    monkeypatch.setattr(run.RolloutTrainer, "_turn", counted)
    for accompanied in (0, 2):
        trainer = make_trainer(taught_dir, rows, tmp_path, config={"max_steps": 2})
        further = {0: iter([0, 0]), 2: iter([1, 1, 0, 0])}[
            accompanied
        ]  # what others say when this one is done
        monkeypatch.setattr(
            "lfpc_trl.train.lockstep.most", lambda own, _, further=further: own or next(further)
        )
        monkeypatch.setattr(trainer, "_needs_lockstep", lambda: True)
        turns.append(0)
        trainer.train()
        after.append({name: weight.clone() for name, weight in trainer.model.state_dict().items()})
    assert turns == [0, 2]
    assert all(torch.equal(after[0][name], after[1][name]) for name in after[0])
