"""Every family as a tiny model built from its config: the suite of `lfpc doctor --model`, and LoRA."""

import dataclasses
import json

import pytest
import torch
from peft import LoraConfig
from PIL import Image
from transformers.models.gemma4.image_processing_pil_gemma4 import Gemma4ImageProcessorPil
from trl import chat_template_utils as trl_templates

from lfpc_rewards import Frame
from lfpc_trl.conformance.checks import CHECKS, examine
from lfpc_trl.data.rows import read_rows
from lfpc_trl.errors import UserError
from lfpc_trl.models import families
from lfpc_trl.models.families import FAMILIES, family_named, refused
from lfpc_trl.models.processors import load_processor
from lfpc_trl.models.weights import load_model
from lfpc_trl.train.recipe import load_recipe
from tests import tiny
from tests.conformance import record
from tests.train.scripted import make_trainer

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
TYPES = [family.model_type for family in FAMILIES]
KNOWN_TYPES = record.known_types()


@pytest.fixture(scope="module", params=KNOWN_TYPES)
def model_type(request):
    return request.param


@pytest.fixture(scope="module")
def folder(model_type, tmp_path_factory):
    return record.make_model(tmp_path_factory.mktemp(model_type), model_type)


# --- the suite ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_family_passes_and_the_page_says_so(model_type, folder):
    verdicts = list(examine(folder))
    assert [verdict.name for verdict in verdicts] == list(CHECKS)
    expected = {"family": "warning"} if family_named(model_type).frame is None else {}
    assert {each.name: each.level for each in verdicts if each.level != "ok"} == expected, verdicts
    assert record.row(model_type, verdicts) in record.PAGE.read_text(encoding="utf-8")


def test_whether_a_prompt_is_shared_follows_from_the_family(model_type, folder):
    from lfpc_trl.models.shared_prompt import why_not

    assert why_not(load_model(folder)) == family_named(model_type).unshared


def test_our_template_does_for_every_family(model_type, tmp_path):
    """A directory whose own has no tools."""
    bare = "{% for message in messages %}{{ message.content }}{% endfor %}"
    processor = load_processor(tiny.make_model(tmp_path, model_type, chat_template=bare))
    assert processor.template_problem == "it does not render tool calls or their results"
    kept = load_processor(save(processor, tmp_path))
    assert kept.template_problem is None
    assert kept.chat_template == processor.chat_template


PUBLISHED = [  # model type, template as TRL holds it, whether it is kept, whether prompts open the thinking
    ("qwen3_vl", trl_templates.qwen3_vl_chat_template, True, False),
    ("qwen3_5", trl_templates.qwen3_5_think_chat_template, True, True),
    ("qwen3_5", trl_templates.qwen3_5_nothink_chat_template, False, False),
    ("qwen3_5", trl_templates.qwen3_6_chat_template, True, True),
    ("qwen3_5", trl_templates.qwen3_8_chat_template, True, True),
    ("qwen4_exp", trl_templates.qwen3_8_chat_template, True, True),
    ("glm46v", trl_templates.glm4moe_chat_template, False, False),
]


@pytest.mark.parametrize(("kind", "template", "kept", "opens"), PUBLISHED)
def test_templates_of_released_checkpoints_pass(kind, template, kept, opens, tmp_path):
    folder = tiny.make_model(tmp_path, kind, chat_template=template)
    levels = {}
    for verdict in examine(folder):
        if verdict.name == "rollout":  # from here on the template does not matter
            break
        levels[verdict.name] = verdict.level
        if verdict.name == "chat template":
            assert verdict.text.startswith("the checkpoint's own") is kept, verdict
        elif verdict.name == "thinking":
            assert verdict.text == ("the prompt opens it" if opens else "the model opens it")
    assert {name for name, level in levels.items() if level != "ok"} <= {"family"}


def save(processor, folder):
    (folder / "chat_template.jinja").write_text(processor.chat_template)
    return folder


# --- LoRA --------------------------------------------------------------------------------------------

LEFT_ALONE = (
    "mlp.gate.weight",
    "shared_expert_gate.weight",
    "conv1d.weight",
    "conv.conv.weight",
    "indexer.index_qk_proj.weight",
)
"""Routers, gates of one row, convolutions, and an index that chooses and so has no gradient."""


@pytest.mark.slow
def test_an_adapter_reaches_every_matrix_of_the_language_model_in_one_update(model_type, folder, tmp_path):
    targets = family_named(model_type).lora
    adapter = LoraConfig(
        task_type="CAUSAL_LM",
        r=4,
        lora_dropout=0.0,
        target_modules=targets.modules,
        target_parameters=list(targets.parameters) or None,
    )
    side = family_named(model_type).factor
    rows = read_rows(tiny.make_rows(tmp_path, 1, shown_size=[4 * side, 3 * side]))
    script = [["<answer>A</answer>"], ["<answer>B</answer>"], ["<think>so</think>"], ["B"]]
    trainer = make_trainer(folder, rows, tmp_path / "run", script, peft_config=adapter)
    before = dict(load_model(folder).state_dict())
    trainer.train()
    after = trainer.model.merge_and_unload().state_dict()
    layers = [name for name in before if ".language_model.layers." in name and before[name].ndim > 1]
    layers = [name for name in layers if not name.endswith(LEFT_ALONE) and "hyper_connection" not in name]
    still = []
    for name in layers:
        parts = [(before[name], after[name])]
        if before[name].ndim == 3:  # each expert for itself
            parts = list(zip(before[name], after[name], strict=True))
        still += [name for old, new in parts if torch.equal(old, new)]
    assert still == []
    assert layers
    elsewhere = [name for name in before if name not in layers and not torch.equal(before[name], after[name])]
    assert elsewhere == []


def test_the_usual_seven_projections_leave_weights_alone(tmp_path):
    from peft import get_peft_model

    seven = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    folder = record.make_model(tmp_path, "qwen3_5_moe")
    model = get_peft_model(load_model(folder), LoraConfig(task_type="CAUSAL_LM", target_modules=seven))
    adapted = {name for name, _ in model.named_parameters() if "lora_B" in name}
    assert adapted
    assert not any(".experts." in name or ".linear_attn." in name for name in adapted)


def test_a_recipe_without_targets_takes_those_of_the_family():
    family = family_named("qwen3_5_moe")
    recipe = load_recipe("lora-1x24gb-stage1")
    assert recipe.lora_targets(family.lora) == (family.lora.modules, list(family.lora.parameters))
    named = load_recipe("lora-1x24gb-stage1", lora_target_modules=["q_proj", "v_proj"])
    assert named.lora_targets(family.lora) == (["q_proj", "v_proj"], None)


# --- frames ------------------------------------------------------------------------------------------


def test_a_frame_that_is_not_known_must_be_said():
    family = family_named("qwen4_exp")
    with pytest.raises(UserError, match="Qwen4-Exp does not document the frame of its boxes: set frame"):
        family.resolve_frame()
    assert family.resolve_frame("relative_1000") is Frame.RELATIVE_1000
    assert family_named("qwen3_vl").resolve_frame() is Frame.RELATIVE_1000
    with pytest.raises(UserError, match="frame is shown, but Qwen3-VL writes boxes in relative_1000"):
        family_named("qwen3_vl").resolve_frame("shown")


# --- refusals ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("model_type", [*refused.MISSING, "qwen2_vl", "qwen3", "made_up", None])
def test_every_other_family_is_told_what_it_lacks(model_type, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    with pytest.raises(UserError) as refusal:
        families.family_of(tmp_path)
    text = str(refusal.value)
    assert f"model_type {model_type!r} is not supported: {refused.what_is_missing(model_type)}" in text
    assert len(refused.what_is_missing(model_type).split()) > 8
    *names, last = (family.name for family in FAMILIES)
    assert text.endswith(f"Supported families: {', '.join(names)} and {last}")


def test_gemma_4_shows_every_picture_at_one_budget():
    """What its refusal says: a small crop costs what the whole picture costs."""
    processor = Gemma4ImageProcessorPil(max_soft_tokens=280)
    counts = [
        int(processor(Image.new("RGB", size), return_tensors="np")["num_soft_tokens_per_image"][0])
        for size in ((96, 96), (480, 480), (1920, 1920))
    ]
    assert counts == [256, 256, 256]
    assert "scales every picture up or down to one budget" in refused.MISSING["gemma4"]


def test_no_family_is_both_supported_and_refused():
    assert not set(TYPES) & set(refused.MISSING)
    assert len(set(TYPES)) == len(TYPES)
    assert all(dataclasses.is_dataclass(family) for family in FAMILIES)
