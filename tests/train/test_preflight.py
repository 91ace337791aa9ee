"""Before a training: settings, rows and pictures that do not fit the model are found without its weights."""

import dataclasses

import pytest
from datasets import Dataset
from PIL import Image
from trl import GRPOConfig, GRPOTrainer
from trl.data_utils import prepare_multimodal_messages

from lfpc_rewards import Frame
from lfpc_trl.data.rows import Problem
from lfpc_trl.errors import UserError
from lfpc_trl.models import processors, weights
from lfpc_trl.pictures.sizes import tokens_of
from lfpc_trl.rollouts.crop_tool import CropSettings, environment_factory
from lfpc_trl.rollouts.prompts import build_prompt
from lfpc_trl.rollouts.rewards import AccuracyReward
from lfpc_trl.train import preflight as module
from lfpc_trl.train.preflight import preflight


@pytest.fixture
def processor(model_dir):
    return processors.load_processor(model_dir)


@pytest.fixture
def crops(processor):
    return CropSettings(processor.family.frame, processors.factor(processor), crop_tokens=16)


def rules(report):
    return [problem.rule for problem in report.problems]


# --- what fits ---------------------------------------------------------------------------------------


def test_rows_that_fit_pass_and_the_figures_are_there(processor, rows, crops):
    report = preflight(processor, rows, crops, trajectory_tokens=400, context=4096)
    assert report.problems == report.warnings == []
    report.check()
    assert (report.rows, report.decoded) == (4, 4)
    assert report.longest_row in {row.name for row in rows}
    assert report.longest_prompt > 12
    assert 16 < report.rollout_tokens < 400


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")
def test_the_longest_prompt_is_what_the_trainer_tokenises(
    processor, model_dir, rows, crops, tmp_path, monkeypatch
):
    """Asked of a real GRPOTrainer, with the crop tool of its own environment."""
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    longer = dataclasses.replace(rows[1], question=rows[1].question * 3, choices=("a", "b"), answer=("A",))
    wide = dataclasses.replace(rows[2], shown_size=tuple(3 * side for side in rows[2].shown_size))
    chosen = [rows[0], longer, wide]
    args = GRPOConfig(
        output_dir=str(tmp_path),
        use_cpu=True,
        report_to="none",
        num_generations=2,
        per_device_train_batch_size=2,
    )
    trainer = GRPOTrainer(
        model=weights.load_model(model_dir),
        args=args,
        reward_funcs=[AccuracyReward()],
        train_dataset=Dataset.from_dict({"prompt": ["?"]}),
        processing_class=processor,
        environment_factory=environment_factory(crops),
    )
    prompts = [build_prompt(crops.frame, trainer._environment_pool[None][0].reset(row=row)) for row in chosen]
    trainer._batch_environments = [None] * len(prompts)
    lengths = [len(ids) for ids in trainer._tokenize_prompts(prompts)[0]]
    for count in range(1, 4):
        report = preflight(processor, chosen[:count], crops, sample=1)
        assert report.longest_prompt == max(lengths[:count])
        assert report.longest_row == chosen[lengths.index(max(lengths[:count]))].name


def test_the_shortest_rollout_is_counted_as_it_is_rendered(processor, rows, crops):
    crops = dataclasses.replace(crops, crop_tokens=12)
    environment = environment_factory(crops)()
    prompt = build_prompt(crops.frame, environment.reset(row=rows[0]))
    box = module.whole_picture(rows[0], crops.frame)
    turns = [*module.crop_turns(box, environment.image_zoom_in_tool(box)), module.answer_turn("A")]

    def tokens(messages, **options):
        blocks = prepare_multimodal_messages(messages)
        return len(
            processor.apply_chat_template([blocks], tokenize=True, return_dict=True, **options)["input_ids"][
                0
            ]
        )

    digits = len(str(box)) - len(str([0, 0, 1, 1]))  # one token per byte: a longer box is a longer call
    rendered = tokens([*prompt, *turns]) - tokens(prompt, add_generation_prompt=True)
    assert preflight(processor, rows, crops).rollout_tokens == rendered - digits


def test_a_sample_is_spread_and_holds_the_longest_prompt(processor, rows, crops, monkeypatch):
    seen = []
    decode = module._decode
    monkeypatch.setattr(module, "_decode", lambda *args: seen.append(args[1].id) or decode(*args))
    many = [dataclasses.replace(rows[0], id=str(number)) for number in range(40)]
    many[17] = dataclasses.replace(many[17], question="What? " * 30)
    steps = []
    report = preflight(processor, many, crops, sample=3, progress=steps.append)
    assert seen == ["0", "17", "19", "39"]
    assert (report.decoded, sum(steps)) == (4, 4)
    assert preflight(processor, many[:5], crops, sample=None).decoded == 5


# --- settings ----------------------------------------------------------------------------------------


def test_settings_that_do_not_fit_the_model_are_named(processor, rows, crops):
    other = Frame.SHOWN if crops.frame is Frame.RELATIVE_1000 else Frame.RELATIVE_1000
    wrong = dataclasses.replace(crops, frame=other, factor=30, crop_tokens=20000)
    report = preflight(processor, rows, wrong)
    name = processor.family.name
    assert [str(problem) for problem in report.problems] == [
        f"frame: {name} counts in {crops.frame.value}, got {other.value}",
        f"factor: a visual token of this model is {crops.factor} pixels wide, got 30",
        "crop_tokens: must be from 1 to 16384 (this processor), got 20000",
    ]
    with pytest.raises(UserError, match=rf"frame: {name} counts in .* \(and 2 more\)"):
        report.check()


def test_a_budget_below_one_crop_is_refused_with_the_numbers(processor, rows, crops):
    needed = preflight(processor, rows, crops).rollout_tokens
    assert preflight(processor, rows, crops, trajectory_tokens=needed).problems == []
    [problem] = preflight(processor, rows, crops, trajectory_tokens=needed - 1).problems
    rule = f"one crop of 16 visual tokens and an answer need {needed} tokens, got {needed - 1}"
    assert problem == Problem("trajectory_tokens", rule)


def test_small_pictures_need_no_room_for_crops_they_cannot_have(processor, rows, crops):
    native = tokens_of(module.native_size(rows[0].size, crops.factor), crops.factor)
    report = preflight(processor, rows, dataclasses.replace(crops, crop_tokens=1024))
    assert report.rollout_tokens - preflight(processor, rows, crops).rollout_tokens == native - 16


def test_the_context_must_hold_prompt_crop_and_answer(processor, rows, crops):
    report = preflight(processor, rows, crops)
    enough = report.longest_prompt + report.rollout_tokens
    assert preflight(processor, rows, crops, context=enough).problems == []
    problems = preflight(processor, rows, crops, context=enough - 1).problems
    assert [problem.place for problem in problems] == [row.name for row in rows]
    assert problems[0].rule == (
        f"its prompt ({report.longest_prompt} tokens), one crop and an answer ({report.rollout_tokens}) "
        f"must fit the context, got {enough - 1}"
    )


def test_a_budget_that_the_context_cuts_short_is_a_warning(processor, rows, crops):
    report = preflight(processor, rows, crops, context=4096, trajectory_tokens=4096)
    assert report.problems == []
    [warning] = report.warnings
    left = 4096 - report.longest_prompt
    assert str(warning) == (
        f"trajectory_tokens: rollouts of the longest prompt end after {left} tokens, where the context ends, "
        "got 4096"
    )


def test_no_rows_is_a_mistake_of_the_caller(processor, crops):
    with pytest.raises(ValueError, match="rows must hold at least one row"):
        preflight(processor, [], crops)


# --- rows --------------------------------------------------------------------------------------------

BAD = [
    ("no size", {"shown_size": None}, "no shown_size; choose it with 'lfpc select-resolution'"),
    ("another model's size", {"shown_size": (90, 60)}, r"shown_size must be multiples of (28|32) \(this mod"),
    ("too large", {"shown_size": (28 * 32 * 6, 28 * 32 * 4)}, "must have at most 16384 visual tokens, got"),
    ("spelled token", {"question": "What is <|image_pad|>?"}, r"must not spell '<\|image_pad\|>'"),
    ("end of a turn", {"question": "What is <|im_end|>?"}, r"must not spell '<\|im_end\|>'"),
    ("token in a choice", {"choices": ("a", "<|vision_end|>")}, r"must not spell '<\|vision_end\|>'"),
]


@pytest.mark.parametrize(("_", "change", "message"), BAD, ids=[case[0] for case in BAD])
def test_a_row_that_does_not_fit_is_named_and_the_others_are_still_checked(
    processor, rows, crops, _, change, message
):
    wrong = dataclasses.replace(rows[1], **change)
    report = preflight(processor, [rows[0], wrong, rows[2]], crops)
    [problem] = report.problems
    assert problem.place == rows[1].name
    with pytest.raises(UserError, match=message):
        report.check()
    assert report.decoded == 2
    assert preflight(processor, [wrong], crops).decoded == 0


def test_every_bad_row_is_listed(processor, rows, crops):
    sizes = [(90, 60), rows[1].shown_size, (45, 60), None]
    mixed = [dataclasses.replace(row, shown_size=size) for row, size in zip(rows, sizes, strict=True)]
    assert [problem.place for problem in preflight(processor, mixed, crops).problems] == [
        rows[index].name for index in (0, 2, 3)
    ]


def test_a_picture_whose_pixels_are_damaged_is_found_by_decoding_it(processor, rows, crops, tmp_path):
    path = tmp_path / "damaged.tif"
    Image.new("RGB", (224, 168), "red").save(path, compression="tiff_lzw")
    content = bytearray(path.read_bytes())
    content[8:40] = b"\xff" * 32
    path.write_bytes(content)
    damaged = dataclasses.replace(rows[1], image=path)
    [problem] = preflight(processor, [rows[0], damaged], crops).problems
    assert problem.place == rows[1].name
    assert problem.rule.startswith(f"image must be readable, got '{path}' (")


def test_a_picture_too_small_for_any_crop_is_found(processor, rows, crops, tmp_path):
    Image.new("RGB", (40, 5)).save(tmp_path / "thin.png")
    thin = dataclasses.replace(rows[0], image=tmp_path / "thin.png", size=(40, 5))
    assert rules(preflight(processor, [thin], crops)) == [
        "no crop of its picture is possible: The box is too small or too narrow."
    ]


def test_a_long_strip_passes(processor, rows, crops, tmp_path):
    Image.new("RGB", (1900, 10)).save(tmp_path / "strip.png")
    strip = dataclasses.replace(rows[0], image=tmp_path / "strip.png", size=(1900, 10))
    assert preflight(processor, [strip], crops).problems == []


# --- a processor that scales, a template that loses pictures -----------------------------------------


def test_a_processor_that_scales_the_shown_picture_is_found(processor, rows, crops):
    side = crops.factor
    processor.image_processor.size = {"shortest_edge": 100 * side**2, "longest_edge": 16384 * side**2}
    [first, *_] = preflight(processor, rows, crops).problems
    assert first.rule.startswith("the processor must leave pictures of [[")


def test_a_processor_that_scales_only_the_crop_is_found(processor, rows, crops):
    side = crops.factor
    small = [dataclasses.replace(row, shown_size=(4 * side, 3 * side)) for row in rows]
    processor.image_processor.size = {"shortest_edge": side**2, "longest_edge": 14 * side**2}
    crops = dataclasses.replace(crops, crop_tokens=14)
    assert preflight(processor, small, crops).problems == []
    processor.image_processor.size = {"shortest_edge": 12 * side**2, "longest_edge": 20 * side**2}
    tiny_crops = dataclasses.replace(crops, crop_tokens=6)
    [first, *_] = preflight(processor, small, tiny_crops).problems
    assert first.rule.startswith("the processor must leave pictures of")


def test_a_wrong_number_of_image_tokens_is_found(processor, rows, crops, monkeypatch):
    kept = type(processor).replace_image_token

    def one_short(self, *args, **kwargs):
        return kept(self, *args, **kwargs).removeprefix("<|image_pad|>")

    monkeypatch.setattr(type(processor), "replace_image_token", one_short)
    [first, *others] = preflight(processor, rows, crops).problems
    assert len(others) == 3
    features = 24  # overview and crop, 4 x 3 tokens each
    assert first == Problem(
        rows[0].name, f"{features} image features need as many image tokens, got {features - 2}"
    )


def test_a_template_that_loses_a_picture_is_found(processor, rows, crops):
    picture = "<|vision_start|><|image_pad|><|vision_end|>"
    assert picture in processor.chat_template
    processor.chat_template = processor.chat_template.replace(picture, "")
    problems = preflight(processor, rows, crops).problems
    assert len(problems) == 4
    # transformers 5.23 counts as well, 5.17 does not.
    assert problems[0].rule.startswith(
        (
            "template and processor must take its pictures, got: ",
            "24 image features need as many image tokens",
        )
    )
