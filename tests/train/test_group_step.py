"""The update that computes the prompt of a group once, against TRL's own update on the same rollouts."""

import copy
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate.utils import DistributedType
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from peft import LoraConfig

from lfpc_trl.data.rows import read_rows
from lfpc_trl.models.weights import load_model
from lfpc_trl.train.group_step import prepare
from lfpc_trl.train.groups import GroupedPictures, micro_batches
from tests import tiny
from tests.train.scripted import make_trainer

pytestmark = [
    pytest.mark.filterwarnings("default::ResourceWarning"),
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]
FAMILIES = ("qwen2_5_vl", "qwen3_vl", "glm46v")


@dataclass(frozen=True)
class Rollout:
    """Pieces of text by their length, with crops of so many tokens on a side between them."""

    texts: tuple[int, ...] = (5,)
    crops: tuple[tuple[int, int], ...] = ()
    masked: bool = False


@dataclass(frozen=True)
class Group:
    overviews: tuple[tuple[int, int], ...]
    rollouts: tuple[Rollout, ...]


UNEVEN = (
    Group(
        ((3, 2),),
        (
            Rollout((9,)),
            Rollout((4, 3), ((2, 2),)),
            Rollout((2, 6, 1), ((1, 2), (3, 2)), masked=True),
            Rollout((1,)),
        ),
    ),
    Group(((2, 2), (1, 3)), (Rollout((3, 2), ((2, 1),)), Rollout((12,)), Rollout((2,)), Rollout((7,)))),
)
SEVERAL = (
    Group(
        ((2, 3), (3, 1)),
        (
            Rollout((3, 2, 4), ((2, 2), (1, 3))),
            Rollout((6,)),
            Rollout((2, 5), ((3, 2),), masked=True),
            Rollout((4, 1), ((1, 1),)),
        ),
    ),
    Group(
        ((1, 2), (3, 3), (2, 1)),
        (
            Rollout((2, 3, 1), ((2, 1), (1, 2))),
            Rollout((5, 2), ((3, 3),)),
            Rollout((8,)),
            Rollout((1, 2, 2), ((1, 1), (2, 3))),
        ),
    ),
)
"""Questions about two pictures and about three."""


@pytest.fixture(scope="module")
def trainers(tmp_path_factory):
    """One trainer for each family and set of options; only its model's gradients change."""
    made = {}

    def trainer(family, *, peft=None, **config):
        key = (family, str(peft), *sorted(map(str, config.items())))
        if key not in made:
            folder = tmp_path_factory.mktemp(family)
            model_dir = tiny.make_model(folder / "model", family, chat_template=tiny.COMPACT)
            rows = read_rows(tiny.make_rows(folder, 1))
            config = {"loss_type": "dapo"} | config
            made[key] = make_trainer(model_dir, rows, folder / "run", config=config, peft_config=peft)
            made[key].model.train()
        return made[key]

    return trainer


def batch_of(trainer, groups, *, seed=0):
    """The rollouts as TRL holds them after a round."""
    draw = torch.Generator().manual_seed(seed)
    config = trainer.model.config
    patch = config.vision_config
    merge, values = patch.spatial_merge_size, 3 * patch.temporal_patch_size * patch.patch_size**2

    def text(tokens):
        return torch.randint(0, 200, (tokens,), generator=draw)

    def picture(size):
        height, width = size
        grid = torch.tensor([1, height * merge, width * merge])
        start, end = (
            getattr(config, f"{name}_token_id", None) or getattr(config, f"image_{name[7:]}_token_id")
            for name in ("vision_start", "vision_end")
        )
        ids = [start, *[config.image_token_id] * (height * width), end]
        return torch.tensor(ids), torch.randn(int(grid.prod()), values, generator=draw), grid

    prompts, completions, masks, pixels, grids, counts = [], [], [], [], [], []
    for group in groups:
        overviews = [picture(size) for size in group.overviews]
        prompt = torch.cat([text(4), *(ids for ids, _, _ in overviews), text(3)])
        for rollout in group.rollouts:
            crops = [picture(size) for size in rollout.crops]
            pieces, mask = [text(rollout.texts[0])], [torch.ones(rollout.texts[0])]
            for (ids, _, _), length in zip(crops, rollout.texts[1:], strict=True):
                pieces += [ids, text(length)]
                mask += [torch.zeros(len(ids)), torch.ones(length)]
            prompts.append(prompt)
            completions.append(torch.cat(pieces))
            masks.append(torch.cat(mask) * (not rollout.masked))
            pixels += [each for _, each, _ in overviews + crops]
            grids += [each for _, _, each in overviews + crops]
            counts.append(len(overviews) + len(crops))
    pad = torch.nn.utils.rnn.pad_sequence
    ids = {side: {"batch_first": True, "padding_side": side} for side in ("left", "right")}
    batch = {
        "prompt_ids": pad(prompts, **ids["left"]),
        "prompt_mask": pad([torch.ones_like(each) for each in prompts], **ids["left"]),
        "completion_ids": pad(completions, **ids["right"]),
        "completion_mask": pad([torch.ones_like(each) for each in completions], **ids["right"]),
        "tool_mask": pad(masks, **ids["right"]).long(),
        "advantages": torch.randn(len(prompts), generator=draw),
        "pixel_values": torch.cat(pixels),
        "image_grid_thw": torch.stack(grids),
        "num_images": counts,
    }
    batch["num_items_in_batch"] = (batch["completion_mask"] * batch["tool_mask"]).sum()
    whole = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    batch["mm_token_type_ids"] = (whole == config.image_token_id).long()
    return batch


def pictures_of(trainer, batch):
    return trainer._pictures(batch["prompt_ids"], batch["prompt_mask"], batch, copy=True)


def as_trl_holds(trainer, batch, pixels):
    """A micro batch of ours with its pictures in TRL's form."""
    each = [part for rollout in pixels.rollouts for part in rollout]
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    return batch | {
        "pixel_values": torch.cat([part.values for part in each]),
        "image_grid_thw": torch.cat([part.grid for part in each]),
        "num_images": [len(prompt.grid) + len(own.grid) for prompt, own in pixels.rollouts],
        "mm_token_type_ids": (ids == trainer.model.config.image_token_id).long(),
    }


def gradients(trainer, batches, *, window=None):
    """Of every update by its number and name, and the losses; `window` micro batches make one, if not all."""
    window = window or len(batches)
    trainer.current_gradient_accumulation_steps = window
    losses, updates = [], {}
    for number, batch in enumerate(batches, start=1):
        trainer.accelerator.gradient_state._set_sync_gradients(number % window == 0)
        loss = trainer._compute_loss(trainer.model, batch)
        loss.backward()
        losses.append(loss.item())
        if number % window == 0:
            named = [(name, each) for name, each in trainer.model.named_parameters() if each.requires_grad]
            updates |= {(number // window, name): each.grad for name, each in named if each.grad is not None}
            trainer.model.zero_grad()
    return updates, losses


def both_ways(trainer, groups, count, *, window=None, seed=0):
    """The gradients of a step, ours and TRL's."""
    batch = batch_of(trainer, groups, seed=seed)
    ours = micro_batches(batch, pictures_of(trainer, batch), count)
    theirs = [as_trl_holds(trainer, each, each["pixel_values"]) for each in ours]
    return gradients(trainer, ours, window=window), plain(trainer, theirs, window=window)


def plain(trainer, batches, **options):
    """The gradient of a step as TRL computes it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "_group_step", None)
        return gradients(trainer, batches, **options)


def assert_same(ours, theirs, *, relative=1e-5):
    (gradient, losses), (expected, their_losses) = ours, theirs
    assert losses == pytest.approx(their_losses, rel=relative, abs=relative)
    assert gradient.keys() == expected.keys()
    largest = max(each.abs().max() for each in expected.values())
    assert largest > 0
    for name, each in gradient.items():
        # What is zero but for rounding has the whole model for its measure.
        measure = expected[name].abs().max().clamp(min=1e-3 * largest)
        assert (each - expected[name]).abs().max() / measure <= relative, name


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("count", [1, 2, 4, 8])
@pytest.mark.parametrize("groups", [UNEVEN, SEVERAL], ids=["uneven", "several"])
def test_gradients_are_those_of_trl(trainers, family, count, groups):
    trainer = trainers(family)
    assert trainer._group_step is not None
    assert_same(*both_ways(trainer, groups, count))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_group_may_reach_over_an_update(trainers, family):
    """Two updates from one group: its prompt is computed for each, since the weights differ between them."""
    assert_same(*both_ways(trainers(family), UNEVEN, 8, window=2))


@pytest.mark.parametrize("loss_type", ["grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo", "vespo", "luspo"])
def test_every_loss_means_what_it_means_in_trl(trainers, loss_type):
    trainer = trainers("qwen2_5_vl", loss_type=loss_type, beta=0.0)
    assert_same(*both_ways(trainer, UNEVEN, 4))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_of_a_whole_batch_does_not_depend_on_the_order(trainers, family):
    """TRL divides the rollouts as they come: other micro batches, the same update."""
    trainer = trainers(family)
    batch = batch_of(trainer, UNEVEN)
    pictures = pictures_of(trainer, batch)
    ours, losses = gradients(trainer, micro_batches(batch, pictures, 2))
    batch = {name: value for name, value in batch.items() if isinstance(value, torch.Tensor)}
    parts = []
    for places in torch.randperm(8, generator=torch.Generator().manual_seed(1)).view(2, 4).tolist():
        part = {name: value if value.ndim == 0 else value[places] for name, value in batch.items()}
        parts.append(
            as_trl_holds(trainer, part, GroupedPictures([pictures.rollouts[place] for place in places]))
        )
    theirs, their_losses = plain(trainer, parts)
    assert_same((ours, [sum(losses)]), (theirs, [sum(their_losses)]))


@pytest.mark.parametrize("family", FAMILIES)
def test_checkpointing_changes_no_gradient(trainers, family):
    (name,) = tiny.NO_CHECKPOINTING
    trainer, kept = trainers(family, **{name: True}), trainers(family)
    getattr(trainer.model, f"{name}_enable")({"use_reentrant": False})  # as transformers' training loop does
    ran = []
    layer = trainer.model.model.language_model.layers[0].self_attn
    layer.register_forward_hook(lambda *_: ran.append(torch.is_grad_enabled()))
    ours, theirs = both_ways(trainer, UNEVEN, 4)
    assert len(ran) == 2 * (2 + 4) + 2 * 4  # two prompts and four micro batches, each twice; TRL's too
    assert_same(ours, theirs)
    assert_same(ours, both_ways(kept, UNEVEN, 4)[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_half_precision_differs_as_two_orders_of_the_same_sums_do(trainers, family):
    exact = both_ways(trainers(family), UNEVEN, 4)[1][0]
    ours, theirs = (each[0] for each in both_ways(trainers(family, bf16=True), UNEVEN, 4))

    def error(gradient):
        return sum(float((gradient[name] - exact[name]).norm() ** 2) for name in exact) ** 0.5

    assert 0 < error(ours) <= 1.5 * error(theirs)
    assert error(theirs) > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_log_probabilities_without_gradients_are_those_of_trl(trainers, family):
    trainer = trainers(family)
    batch = batch_of(trainer, UNEVEN)
    ids, mask = (
        torch.cat([batch[f"prompt_{name}"], batch[f"completion_{name}"]], 1) for name in ("ids", "mask")
    )
    names = ("pixel_values", "image_grid_thw", "num_images", "mm_token_type_ids")
    pictures = {name: batch[name] for name in names}

    def log_probs():
        with torch.no_grad():
            return trainer._get_per_token_logps_and_entropies(
                trainer.model, ids, mask, batch["completion_ids"].size(1), 3, compute_entropy=True, **pictures
            )

    ours = log_probs()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "_group_step", None)
        theirs = log_probs()
    for each, expected in zip(ours[:2], theirs[:2], strict=True):
        torch.testing.assert_close(each, expected, rtol=1e-5, atol=1e-5)


sizes = st.tuples(st.integers(1, 3), st.integers(1, 3))


@st.composite
def rounds(draw):
    """Groups of any shape, a number of micro batches that divides them, and micro batches per update."""
    micro_batch, count = draw(st.sampled_from([(1, 4), (2, 2), (2, 3), (3, 2), (6, 1), (1, 6)]))
    left, groups = micro_batch * count, []
    while left:
        rollouts = []
        for _ in range(draw(st.integers(1, left))):
            crops = draw(st.lists(sizes, max_size=2))
            texts = draw(st.tuples(*[st.integers(1, 6)] * (len(crops) + 1)))
            rollouts.append(Rollout(texts, tuple(crops), draw(st.booleans())))
        left -= len(rollouts)
        groups.append(Group(tuple(draw(st.lists(sizes, min_size=1, max_size=2))), tuple(rollouts)))
    assume(not all(rollout.masked for group in groups for rollout in group.rollouts))
    window = draw(st.sampled_from([each for each in range(1, count + 1) if count % each == 0]))
    return tuple(groups), count, window


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=rounds(), seed=st.integers(0, 99))
def test_whatever_the_groups_are_the_gradients_are_those_of_trl(trainers, family, case, seed):
    groups, count, window = case
    assert_same(*both_ways(trainers(family), groups, count, window=window, seed=seed))


@pytest.fixture
def in_step(trainers, monkeypatch):
    """A trainer as with DeepSpeed or FSDP, whose processes must make the same passes."""

    def trainer(family):
        made = trainers(family)
        monkeypatch.setattr(made._group_step, "in_step", True)
        monkeypatch.setattr(made, "num_generations", 4)
        return made

    return trainer


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_gradients_are_those_of_trl_where_processes_go_in_step(in_step, family, count):
    assert_same(*both_ways(in_step(family), UNEVEN, count))


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_passes_are_the_same_whatever_is_in_the_rollouts(in_step, count):
    """Without one crop, and with neighbours that ask the same about the same picture."""
    trainer = in_step("qwen2_5_vl")
    model, passes = trainer.model, []
    layer, vision = model.model.language_model.layers[0].mlp.gate_proj, model.model.visual.patch_embed
    hooks = [
        each.register_forward_pre_hook(lambda _module, _inputs, name=name: passes.append(name))
        for name, each in (("model", model), ("layer", layer), ("vision", vision))
    ]
    found = []
    plain = tuple(Group(UNEVEN[0].overviews, (Rollout(),) * 4) for _ in range(2))
    for groups in (UNEVEN, plain):
        passes.clear()
        batch = batch_of(trainer, groups)
        if groups is plain:
            first = len(batch["pixel_values"]) // 8
            for name, length in (("prompt_ids", 1), ("pixel_values", first)):
                batch[name] = batch[name][:length].repeat(8, 1)
        gradients(trainer, micro_batches(batch, pictures_of(trainer, batch), count))
        found.append(list(passes))
    for hook in hooks:
        hook.remove()
    assert found[0] == found[1]
    # In each micro batch a prompt and its completions, both through the whole model; in one, both groups.
    assert found[0] == ["model", "vision", "layer"] * 2 * max(count, 2)


@pytest.mark.parametrize(
    ("group", "own", "shared"), [(8, 4, True), (4, 8, True), (8, 8, True), (8, 12, False), (6, 4, False)]
)
def test_groups_must_end_where_they_do_in_every_process(in_step, monkeypatch, group, own, shared):
    trainer = in_step("qwen2_5_vl")
    monkeypatch.setattr(trainer.accelerator.state, "distributed_type", DistributedType.DEEPSPEED)
    monkeypatch.setattr(trainer, "num_generations", group)
    monkeypatch.setattr(trainer.args, "per_device_train_batch_size", own // 2)
    monkeypatch.setattr(trainer.args, "steps_per_generation", 2)
    reason = prepare(trainer)
    assert reason == (None if shared else "group boundaries differ between the processes")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("frozen_vision", [False, True])
def test_gradients_of_an_adapter_are_those_of_trl(trainers, family, frozen_vision):
    """The first layer's keys and values depend on no weight of the adapter where vision has none."""
    modules = ["qkv", "k_proj", "v_proj", "gate_proj"]
    if frozen_vision:
        modules = r".*language_model.layers.1.*(q_proj|v_proj|down_proj)"
    trainer = trainers(family, peft=LoraConfig(r=2, target_modules=modules, task_type="CAUSAL_LM"))
    for name, each in trainer.model.named_parameters():
        if "lora_B" in name:  # zero at the start, and A would have no gradient
            torch.nn.init.normal_(each, std=0.1)
    assert_same(*both_ways(trainer, UNEVEN, 4))


@pytest.mark.parametrize("family", FAMILIES)
def test_prompt_and_overview_are_computed_once_per_group(trainers, family):
    trainer = trainers(family)
    batch = batch_of(trainer, UNEVEN)
    read, seen = [], []
    backbone = trainer.model.model
    hooks = [
        backbone.language_model.layers[0].register_forward_pre_hook(
            lambda _, args: read.append(args[0].shape)
        ),
        backbone.visual.register_forward_pre_hook(lambda _, args: seen.append(len(args[0]))),
    ]
    gradients(trainer, micro_batches(batch, pictures_of(trainer, batch), 8))
    for hook in hooks:
        hook.remove()
    prompts = [4 + 8 + 3, 4 + 6 + 5 + 3]
    completions = sorted(batch["completion_mask"].sum(1).tolist())
    # A prompt but its last token, which is read with each completion; the shortest completions first.
    assert sorted(rows * tokens for rows, tokens, _ in read) == sorted(
        [*(length - 1 for length in prompts), *(length + 1 for length in completions)]
    )
    overviews, crops = [4 * 6, 4 * (4 + 3)], [4 * 4, 4 * (2 + 6), 4 * 2]
    assert sorted(seen) == sorted(overviews + crops)


def test_a_round_keeps_the_pictures_of_a_prompt_once(trainers):
    trainer = trainers("qwen2_5_vl")
    batch = batch_of(trainer, UNEVEN)
    kept = [
        part.values
        for micro_batch in micro_batches(batch, pictures_of(trainer, batch), 4)
        for rollout in micro_batch["pixel_values"].rollouts
        for part in rollout
    ]
    storages = {values.untyped_storage().data_ptr(): values.untyped_storage().nbytes() for values in kept}
    patches = 4 * (6 + (4 + 3)) + 4 * (4 + (2 + 6) + 2)
    assert sum(storages.values()) == patches * 1176 * 4


def test_rollouts_of_like_length_share_a_micro_batch(trainers):
    trainer = trainers("qwen2_5_vl")
    batch = batch_of(trainer, UNEVEN)
    divided = micro_batches(batch, pictures_of(trainer, batch), 4)
    lengths = [each["completion_mask"].sum(1).tolist() for each in divided]
    assert lengths == [[1, 9], [13, 21], [2, 7], [9, 12]]
    assert [each["pixel_values"].goes_on for each in divided] == [True, False, True, False]


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_training_step_is_that_of_trl(tmp_path, family):
    """From the rollouts to the gradient's norm; TRL divides the same rollouts otherwise."""
    shown = [4 * 28, 3 * 28] if "2_5" in family else [128, 96]
    rows = read_rows(tiny.make_rows(tmp_path, 1, shown_size=shown))
    call = call_of(family)
    script = [[call, "<answer>A</answer>"], ["<answer>A</answer>"], [call, call, call], ["no"]]
    rolled_out, _ = steps_are_those_of_trl(tmp_path, family, rows, script)
    assert rolled_out["tool_calls"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("pictures", [2, 3])
def test_a_training_step_about_several_pictures_is_that_of_trl(tmp_path, family, pictures):
    """Crops of different pictures in one rollout, and rollouts of a group that look into different ones."""
    columns = {} if pictures == 3 else TWO
    rows = read_rows(tiny.make_several(tmp_path, 1, 28 if "2_5" in family else 32, **columns))
    assert len(rows[0].pictures) == pictures
    first, second, last = (call_of(family, image) for image in (1, 2, pictures))
    script = [
        [first, second, "<answer>A</answer>"],
        [second, "<answer>A</answer>"],
        [last, first, "no"],
        ["A"],
    ]
    rolled_out, _ = steps_are_those_of_trl(tmp_path, family, rows, script)
    assert rolled_out["tool_calls"] == (2 + 1 + 2) / 4
    assert rolled_out["failed_calls"] == 0


TWO = {
    "images": ["images/0-1.png", "images/0-2.png"],
    "targets": [[40, 40, 80, 70]],
    "target_images": 1,
    "shown_sizes": [[112, 84], [56, 56]],
}
"""Of three pictures the first two."""


def call_of(family, image=None):
    """A call for a small box, of a picture if one is named."""
    arguments = {"bbox_2d": [side * (1 if "2_5" in family else 9) for side in (15, 15, 50, 45)]}
    arguments |= {} if image is None else {"image": image}
    if family == "glm46v":
        said = "".join(
            f"<arg_key>{name}</arg_key>\n<arg_value>{value}</arg_value>\n"
            for name, value in arguments.items()
        )
        return f"<tool_call>image_zoom_in_tool\n{said}</tool_call>"
    return f"<tool_call>{json.dumps({'name': 'image_zoom_in_tool', 'arguments': arguments})}</tool_call>"


def steps_are_those_of_trl(tmp_path, family, rows, script):
    """Train twice with shared prompts and once without; the log of the first training."""
    model_dir = tiny.make_model(tmp_path / "model", family, chat_template=tiny.COMPACT)
    logs = []
    for share_prompts in (True, True, False):
        trainer = make_trainer(
            model_dir,
            rows,
            tmp_path / str(len(logs)),
            script,
            config={"loss_type": "dapo", "beta": 0.1, "num_iterations": 2, "max_steps": 2},
            share_prompts=share_prompts,
        )
        trainer.train()
        logs.append([step for step in trainer.state.log_history if "grad_norm" in step])
    names = {"loss", "grad_norm", "kl", "entropy", "reward", "tool_calls"}
    for ours, again, theirs in zip(*logs, strict=True):
        assert {name: ours[name] for name in ours.keys() - {"step_time"}} == {
            name: again[name] for name in ours.keys() - {"step_time"}
        }
        for name in names & theirs.keys():
            assert ours[name] == pytest.approx(theirs[name], rel=1e-4, abs=1e-6), name
        assert ours["grad_norm"] > 0
    return logs[0]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda trainer: setattr(trainer, "is_fsdp_enabled", True), "set fsdp_version: 2"),
        (lambda trainer: setattr(trainer, "aux_loss_enabled", True), "load-balancing loss"),
        (
            lambda trainer: setattr(trainer.args, "gradient_checkpointing_kwargs", {"use_reentrant": True}),
            "reentrant",
        ),
        (
            lambda trainer: setattr(
                trainer.model.config.text_config, "layer_types", ["linear_attention", "full_attention"]
            ),
            "layers of linear_attention",
        ),
    ],
)
def test_what_cannot_be_shared_is_said(trainers, change, reason):
    trainer = SimpleNamespace(
        model=SimpleNamespace(
            config=copy.deepcopy(trainers("qwen2_5_vl").model.config),
            model=trainers("qwen2_5_vl").model.model,
        ),
        args=copy.copy(trainers("qwen2_5_vl").args),
        accelerator=SimpleNamespace(distributed_type=DistributedType.NO, is_fsdp2=False),
        num_generations=4,
        is_fsdp_enabled=False,
        aux_loss_enabled=False,
    )
    change(trainer)
    assert reason in prepare(trainer)


def test_a_trainer_that_cannot_share_says_so_once_and_goes_on(tmp_path, capsys):
    model_dir = tiny.make_model(tmp_path / "model", "qwen2_5_vl", chat_template=tiny.COMPACT)
    rows = read_rows(tiny.make_rows(tmp_path, 1))
    (name,) = tiny.NO_CHECKPOINTING
    config = {name: True, f"{name}_kwargs": {"use_reentrant": True}}
    trainer = make_trainer(model_dir, rows, tmp_path / "run", config=config)
    assert trainer._group_step is None
    said = capsys.readouterr().err
    assert said.count("every rollout is computed separately: reentrant gradient checkpointing") == 1
    make_trainer(model_dir, rows, tmp_path / "run", share_prompts=False)
    assert "by itself" not in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(("group", "checkpointing"), [(4, "on"), (8, "off")])
def test_two_processes_take_the_steps_of_trl(tmp_path, group, checkpointing):
    """DDP; each process has four rollouts of a round: a group of its own, or half of one group."""
    model_dir = tiny.make_model(tmp_path / "model", "qwen2_5_vl", chat_template=tiny.COMPACT)
    rows = tiny.make_rows(tmp_path, 4)
    for share in ("on", "off"):
        script = Path(__file__).with_name("one_of_two.py")
        arguments = [model_dir, rows, tmp_path, share, group, checkpointing]
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
        subprocess.run([*command, script, *map(str, arguments)], check=True, env=environment)
    before = load_model(model_dir).state_dict()
    ours, other, theirs = (torch.load(tmp_path / name) for name in ("on-0.pt", "on-1.pt", "off-0.pt"))
    for name, start in before.items():
        assert torch.equal(ours[name], other[name])
        moved, expected = ours[name] - start, theirs[name] - start
        assert (moved - expected).abs().max() <= 1e-4 * expected.abs().max() + 1e-6, name
    assert any((ours[name] - start).abs().max() > 1e-2 for name, start in before.items())
