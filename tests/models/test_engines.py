"""Engines write turns: the same in any batch, and with vLLM from the very prompt of the training."""

import dataclasses
import itertools
import shutil
import sys
import tempfile

import pytest
import torch
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st
from PIL import Image

from lfpc_rewards import Frame, smart_resize
from lfpc_trl.data.rows import read_rows
from lfpc_trl.errors import UserError
from lfpc_trl.jobs.workers import Failure
from lfpc_trl.models.engines import (
    Picture,
    PromptLimits,
    TransformersEngine,
    VllmEngine,
    _Draw,
    check_vllm,
    collapsed,
    expanded,
    image_token_id,
    new_engine,
)
from lfpc_trl.models.processors import load_processor, vision_token_ids
from lfpc_trl.models.vllm_failures import vllm_failures
from lfpc_trl.models.weights import load_model
from lfpc_trl.pictures.sizes import shown_size
from lfpc_trl.rollouts.crop_tool import CropEnvironment, CropSettings
from lfpc_trl.rollouts.generate import (
    Job,
    RolloutSettings,
    generate_rollouts,
    prompt_limits,
    stream_rollouts,
)
from lfpc_trl.rollouts.prompts import build_prompt
from lfpc_trl.select.ask import AskSettings, LadderItem, LadderWork
from tests import vllm_stand_in

CROPS = CropSettings(frame=Frame.SHOWN, factor=28)
LIMITS = PromptLimits(pictures=1, picture_tokens=48, tokens=3000)


@pytest.fixture(scope="session")
def model_dir(one_model_dir):
    """One family: an engine knows nothing of what differs."""
    return one_model_dir


@pytest.fixture(scope="module")
def processor(model_dir):
    return load_processor(model_dir)


@pytest.fixture(scope="module")
def tiny_engine(model_dir, processor):
    return TransformersEngine(load_model(model_dir), processor)


@pytest.fixture
def rows(work):
    sizes = itertools.cycle([(224, 168), (112, 84), (56, 28)])
    return [dataclasses.replace(row, shown_size=next(sizes)) for row in read_rows(work.data)]


def turns(engine, rows, **options):
    rollouts = generate_rollouts(
        engine, rows, crop_settings=CROPS, **({"tools": False, "max_new_tokens": 30} | options)
    )
    return [rollout.first_turn for rollout in rollouts]


# --- any batch -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_turn_does_not_depend_on_the_rows_beside_it(tiny_engine, rows, temperature):
    few = rows[:5]
    options = {"max_new_tokens": 8, "temperature": temperature, "seed": 3}
    together = turns(tiny_engine, few, **options)
    assert turns(tiny_engine, few, batch_size=2, **options) == together
    assert turns(tiny_engine, few[::-1], **options) == together[::-1]
    assert turns(tiny_engine, few[3:], **options) == together[3:]


def test_a_row_is_drawn_for_anew_at_another_size(tiny_engine, rows):
    """Two sizes must not share a stream: a word drawn by chance would pass for agreement."""
    seeds = []

    class LogprobRecorder(TransformersEngine):
        def generate(self, prompts, **options):
            seeds.extend(prompt.seed for prompt in prompts)
            return super().generate(prompts, **options)

    engine = LogprobRecorder(tiny_engine.model, tiny_engine.processor)
    for size in ((112, 84), (56, 28)):
        turns(engine, [dataclasses.replace(row, shown_size=size) for row in rows[:3]], max_new_tokens=1)
    turns(engine, rows[:1], max_new_tokens=1, seed=1)
    assert len(set(seeds)) == 7


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_draws_follow_the_distribution(temperature):
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, -torch.inf])
    seeds = range(20_000)
    drawn = _Draw(temperature, seeds, torch.device("cpu"))(None, logits.repeat(len(seeds), 1)).argmax(1)
    share = (torch.bincount(drawn, minlength=5) / len(seeds)).tolist()
    wanted = (logits / temperature).softmax(0).tolist()
    # Four standard deviations; a token that is kept out has none.
    allowed = [4 * (each * (1 - each) / len(seeds)) ** 0.5 for each in wanted]
    assert share == [pytest.approx(each, abs=much) for each, much in zip(wanted, allowed, strict=True)]


@pytest.mark.parametrize("place", [0, 1])
def test_transformers_stops_at_either_end(model_dir, processor, rows, place):
    model, end = load_model(model_dir), processor.turn_ends[place]
    model.get_output_embeddings().register_forward_hook(
        lambda _module, _inputs, logits: logits + 1000.0 * (torch.arange(logits.shape[-1]) == end)
    )
    rollouts = generate_rollouts(
        TransformersEngine(model, processor), rows[:2], crop_settings=CROPS, tools=False, max_new_tokens=9
    )
    assert [(each.first_turn, each.complete) for each in rollouts] == [([end], True)] * 2
    assert [each.messages for each in rollouts] == [[{"role": "assistant", "content": ""}]] * 2


# --- vLLM ------------------------------------------------------------------------------------------------


def test_vllm_is_given_the_prompt_of_the_training(vllm, processor, model_dir, rows):
    engine = VllmEngine(model_dir, processor, LIMITS)
    turns(engine, rows[:2])
    [(prompts, params)] = vllm.LLM.last.calls
    for row, prompt in zip(rows, prompts, strict=False):
        environment = CropEnvironment(CROPS)
        [picture] = prompt["multi_modal_data"]["image"]
        assert picture.size == row.shown_size
        messages = build_prompt(Frame.SHOWN, environment.reset(row=row), tools=False)
        wanted = processor.apply_chat_template(
            [messages], add_generation_prompt=True, tokenize=True, return_dict=True
        )["input_ids"][0]
        ready = TransformersEngine(load_model(model_dir), processor).picture(picture)
        assert expanded(prompt["prompt_token_ids"], [ready], image_token_id(processor)) == list(wanted)
    for each in params:
        assert (each.temperature, each.max_tokens, each.n, each.seed) == (0.0, 30, 1, None)
        assert each.stop_token_ids == [processor.tokenizer.eos_token_id, processor.tokenizer.pad_token_id]
        assert set(each.logit_bias) == set(vision_token_ids(processor))
        assert set(each.logit_bias.values()) == {-100.0}
        assert (each.repetition_penalty, each.top_p, each.top_k) == (1.0, 1.0, 0)


PLACEHOLDER = 9


@given(st.lists(st.tuples(st.lists(st.integers(0, 8), min_size=1), st.integers(1, 300)), max_size=4))
def test_collapsing_undoes_expanding(parts):
    """Between two pictures stands at least one other token."""
    ids = [token for text, _ in parts for token in (*text, PLACEHOLDER)]
    pictures = [Picture(tokens, None) for _, tokens in parts]
    read = expanded(ids, pictures, PLACEHOLDER)
    assert collapsed(read, len(parts), PLACEHOLDER) == ids
    assert collapsed(ids, len(parts), PLACEHOLDER) == ids  # what holds one for each is left alone


@pytest.mark.parametrize("pictures", [0, 1, 3])
def test_ids_with_another_number_of_pictures_are_not_collapsed(pictures):
    with pytest.raises(ValueError, match=f"must hold its {pictures} pictures, got 2"):
        collapsed([1, 9, 9, 2, 9, 3], pictures, PLACEHOLDER)


def test_vllm_is_started_for_no_more_than_the_run_needs(vllm, processor, model_dir):
    VllmEngine(model_dir, processor, LIMITS)
    options = vllm.LLM.last.options
    assert options.dtype == "bfloat16"
    assert options.limit_mm_per_prompt == {"image": 1, "video": 0}
    assert options.size == {"shortest_edge": 28 * 28, "longest_edge": 48 * 28 * 28}
    assert options.max_model_len == 3000
    VllmEngine(model_dir, processor, dataclasses.replace(LIMITS, tokens=9999))
    assert vllm.LLM.last.options.max_model_len == 4096  # the model's own


def test_sampling_with_vllm_has_a_seed_for_each_prompt(vllm, processor, model_dir, rows):
    engine = VllmEngine(model_dir, processor, LIMITS)
    first = turns(engine, rows, temperature=0.7, seed=1)
    seeds = [each.seed for each in vllm.LLM.last.calls[0][1]]
    assert len(set(seeds)) == len(rows)
    assert turns(engine, rows, temperature=0.7, seed=1, batch_size=3) == first


def test_a_turn_of_vllm_ends_where_one_of_transformers_ends(vllm, processor, model_dir, rows):
    engine = VllmEngine(model_dir, processor, LIMITS)
    written = turns(engine, rows, max_new_tokens=99)
    ends = [token for turn in written for token in turn if token in processor.turn_ends]
    assert ends == [turn[-1] for turn in written]
    assert set(ends) == set(processor.turn_ends)
    assert [len(turn) for turn in turns(engine, rows[:3], max_new_tokens=4)] == [4, 4, 4]
    assert engine.generate([], max_new_tokens=1, temperature=0.0) == []


@given(
    width=st.integers(1, 9000),
    height=st.integers(1, 9000),
    budget=st.integers(1, 16384),
    factor=st.sampled_from([28, 32]),
)
@profile(max_examples=300, deadline=None)
def test_vllm_s_processor_leaves_every_shown_size_as_it_is(width, height, budget, factor):
    """smart_resize with the limits that vLLM is given: the least, and the largest picture of the run."""
    if max(width, height) >= 200 * min(width, height):
        return
    shown = shown_size((width, height), budget, factor=factor)
    most = max(budget * factor**2, shown[0] * shown[1])
    for largest in (shown[0] * shown[1], most, 16384 * factor**2 + most):
        again = smart_resize(shown[1], shown[0], factor=factor, min_pixels=factor**2, max_pixels=largest)
        assert tuple(again) == (shown[1], shown[0])


@pytest.mark.parametrize("size", [(224, 167), (223, 168), (28 * 49, 28)])
def test_a_picture_that_vllm_would_resize_is_refused(vllm, processor, model_dir, size):
    engine = VllmEngine(model_dir, processor, LIMITS)
    message = rf"multiples of 28 and at most 48 visual tokens, got {size[0]} x {size[1]} pixels"
    with pytest.raises(ValueError, match=message):
        engine.picture(Image.new("RGB", size))


def test_limits_hold_the_largest_prompt_and_not_much_more(processor, rows):
    long = dataclasses.replace(rows[0], question="Which of the words — é, ü, 汉字 — is on the sign?" * 9)
    limits = prompt_limits(processor, [*rows, long], 48, max_new_tokens=100)
    assert (limits.pictures, limits.picture_tokens) == (1, 48)
    blocks = CropEnvironment(CROPS).reset(row=long)
    ids = processor.apply_chat_template(
        [build_prompt(Frame.SHOWN, blocks, tools=False)],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
    )["input_ids"][0]
    assert len(ids) - 12 + 48 + 100 <= limits.tokens  # shown at 112 x 84, 12 tokens
    assert limits.tokens < len(ids) + 400


VERSIONS = [(None, "vllm is not installed"), ("0.21.9", "vllm must be >=0.22.0,<0.34, got 0.21.9")]
VERSIONS += [("0.34.0", "got 0.34.0")]


@pytest.mark.parametrize(("version", "message"), VERSIONS)
def test_another_vllm_is_refused_before_it_is_imported(tmp_path, monkeypatch, model_dir, version, message):
    if version is not None:
        folder = vllm_stand_in.install(tmp_path, version)
        (folder / "vllm" / "__init__.py").write_text("raise AssertionError('imported')")
        monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "vllm", raising=False)
    with pytest.raises(UserError, match=message):
        new_engine("vllm", model_dir, LIMITS)


@pytest.mark.parametrize("version", ["0.22.0", "0.31.0", "0.31.0+cu129", "0.31.0.post1"])
def test_the_versions_that_trl_supports_are_accepted(tmp_path, monkeypatch, version):
    monkeypatch.syspath_prepend(vllm_stand_in.install(tmp_path, version))
    check_vllm(training=True)
    check_vllm(training=False)


@pytest.mark.parametrize("version", ["0.31.1", "0.32.0", "0.33.1"])
def test_without_a_trainer_newer_versions_are_accepted_as_well(tmp_path, monkeypatch, version):
    monkeypatch.syspath_prepend(vllm_stand_in.install(tmp_path, version))
    check_vllm(training=False)
    with pytest.raises(UserError, match=rf"vllm must be >=0\.22\.0,<=0\.31\.0, got {version}"):
        check_vllm(training=True)


# --- what vLLM refuses, and where it fails -------------------------------------------------------------


@pytest.mark.parametrize("kind", ["VLLMValidationError", "ValueError"])
def test_a_refused_prompt_is_named_and_the_others_are_answered(
    vllm, processor, model_dir, rows, monkeypatch, kind
):
    """vLLM answers none of a list with one that it refuses; since 0.31 that is no ValueError any more."""
    from vllm import exceptions

    engine = VllmEngine(model_dir, processor, LIMITS)
    wanted = turns(engine, rows)
    refusal, plain = getattr(exceptions, kind, ValueError), vllm.LLM.generate

    def generate(llm, prompts, **options):
        if any(prompt["prompt_token_ids"] == long for prompt in prompts):
            raise refusal("The decoder prompt (length 9) is longer than the maximum model length of 3.")
        return plain(llm, prompts, **options)

    long = vllm.LLM.last.calls[0][0][3]["prompt_token_ids"]
    monkeypatch.setattr(vllm.LLM, "generate", generate)
    jobs = [Job(row, CROPS, tools=False) for row in rows]
    waiting = iter(jobs)
    found = dict(stream_rollouts(engine, lambda: next(waiting, None), RolloutSettings(max_new_tokens=30)))
    assert "refuses its prompt (The decoder prompt (length 9) is longer" in str(found[jobs[3]])
    others = [found[job].first_turn for job in jobs if job is not jobs[3]]
    assert others == [*wanted[:3], *wanted[4:]]
    work = LadderWork(engine, AskSettings(batch_size=16, max_new_tokens=30))
    items = {row.id: LadderItem(row, (row.shown_sizes,)) for row in rows}
    outcomes = list(work(iter(items.items())))
    assert [outcome.keys for outcome in outcomes if isinstance(outcome, Failure)] == [(rows[3].id,)]
    assert len(outcomes) == len(rows)


def test_an_engine_that_cannot_start_is_one_line_with_a_file(
    vllm, processor, model_dir, tmp_path, monkeypatch
):
    broken = tmp_path / "broken"
    shutil.copytree(model_dir, broken)
    (broken / "tokenizer.json").write_text("{")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(UserError, match="vLLM cannot start, Exception: EOF") as told:
        VllmEngine(broken, processor, LIMITS)
    [log] = tmp_path.glob("vllm-*.log")
    assert "\n" not in str(told.value)
    assert str(told.value).endswith(f"; the full traceback is in {log}")
    assert "in __init__" in log.read_text()


def test_what_does_not_come_from_vllm_stays_as_it_is(tmp_path):
    with pytest.raises(ZeroDivisionError), vllm_failures(tmp_path, "has failed"):
        _ = 1 / 0
    assert not list(tmp_path.iterdir())
