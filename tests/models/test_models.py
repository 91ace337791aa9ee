"""Model directories of both families: processors, templates, the parser."""

import itertools
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from trl import GRPOTrainer
from trl import chat_template_utils as trl_templates
from trl.data_utils import prepare_multimodal_messages

from lfpc_rewards import Frame, parse_completion
from lfpc_trl import errors
from lfpc_trl.errors import UserError
from lfpc_trl.models import families, processors, weights
from lfpc_trl.pictures.lazy import LazyImage, Noise
from lfpc_trl.rollouts.crop_tool import CropEnvironment, CropSettings
from lfpc_trl.rollouts.prompts import build_prompt
from tests import tiny


@pytest.fixture(scope="module")
def processor(model_dir):
    return processors.load_processor(model_dir)


def set_template(model_dir, folder, template):
    """A copy of the model directory with another template, in the file where old checkpoints keep it."""
    shutil.copytree(model_dir, folder, dirs_exist_ok=True)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    return folder


# --- families ----------------------------------------------------------------------------------------


def test_the_family_names_the_frame_and_the_token_side(model_dir, processor, family):
    expected = {"qwen2_5_vl": (Frame.SHOWN, 28), "qwen3_vl": (Frame.RELATIVE_1000, 32)}
    assert (families.family_of(model_dir).frame, processors.factor(processor)) == expected[family]
    assert processors.factor_of(model_dir) == expected[family][1]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "not a model directory, it has no config.json"),
        ("{", "config.json: not readable"),
        (
            '{"model_type": "llama"}',
            "model_type 'llama' is not supported: the installed transformers has no image-text-to-text model",
        ),
        ("[]", "model_type None is not supported"),
    ],
)
def test_a_directory_that_is_no_qwen_vl(tmp_path, config, message):
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    for load in (families.family_of, processors.load_processor, weights.load_model):
        with pytest.raises(UserError, match=message):
            load(tmp_path)


def test_a_model_directory_without_its_other_files(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "qwen2_5_vl"}')
    with pytest.raises(UserError, match="its processor cannot be loaded"):
        processors.load_processor(tmp_path)
    with pytest.raises(UserError, match="holds no weights"):
        weights.load_model(tmp_path)


NAMES = ["Qwen2_5_VLImageProcessor", "Qwen3VLImageProcessorFast", "SomebodysImageProcessor", None]


@pytest.mark.parametrize("name", NAMES)
def test_the_family_decides_on_the_image_processor_whatever_its_files_call_it(
    model_dir, processor, tmp_path, name
):
    shutil.copytree(model_dir, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "preprocessor_config.json"
    settings = json.loads(path.read_text()) | {"image_processor_type": name}
    path.write_text(json.dumps({key: value for key, value in settings.items() if value is not None}))
    loaded = processors.load_processor(tmp_path)
    picture = Image.new("RGB", (4 * processors.factor(processor),) * 2, (90, 100, 110))
    values = [
        each.image_processor(images=[picture], return_tensors="pt")["pixel_values"]
        for each in (loaded, processor)
    ]
    assert torch.equal(*values)
    assert loaded.chat_template == processor.chat_template
    assert processors.factor(loaded) == processors.factor(processor)


def test_a_processor_that_cannot_be_loaded_is_one_short_line(model_dir, tmp_path, monkeypatch):
    def refuse(*_args, **_options):
        raise ValueError(
            "Unrecognized image processor in DIR. Should be one of: " + "AlbumImageProcessor, " * 150
        )

    monkeypatch.setattr(processors.AutoTokenizer, "from_pretrained", refuse)
    with pytest.raises(UserError) as caught:
        processors.load_processor(model_dir)
    assert str(caught.value) == (
        f"{model_dir}: its processor cannot be loaded (Unrecognized image processor in DIR.)"
    )


LONG = [  # text, its first line, all of it in one
    ("no luck", "no luck", "no luck"),
    ("a line\nand another", "a line", "a line and another"),
    ("", "ValueError", "ValueError"),
    ("x" * 500, "x" * 157 + "...", "x" * 157 + "..."),
    (
        "One sentence with a few words. " + "more " * 100,
        "One sentence with a few words.",
        "One sentence with a few words.",
    ),
]


@pytest.mark.parametrize(("text", "first", "whole"), LONG, ids=range(5))
def test_errors_of_other_libraries_are_cut_to_a_short_sentence(text, first, whole):
    assert errors.first_line(ValueError(text)) == first
    assert errors.one_line(ValueError(text)) == whole
    assert errors.first_line(ValueError(errors.first_line(ValueError(text)))) == first


KERNEL = "kernels-community/flash-attn2"
ATTENTIONS = [("attn_implementation", KERNEL), ("_attn_implementation", KERNEL)]
ATTENTIONS += [("attn_implementation", {"text_config": KERNEL})]


@pytest.mark.parametrize(("name", "value"), ATTENTIONS, ids=range(3))
def test_a_config_that_names_a_kernel_of_the_hub_is_refused(model_dir, tmp_path, name, value):
    shutil.copytree(model_dir, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    with pytest.raises(
        UserError, match=r"config\.json: attn_implementation must not name a kernel on the Hub"
    ):
        weights.load_model(tmp_path)


def test_pictures_of_one_recipe_are_processed_once_while_asked_for(processor, monkeypatch):
    image_processor = processor.image_processor
    one, two = (LazyImage(Noise((seed,), (2 * 32 * 7, 32 * 7))) for seed in (1, 2))
    twin, plain = LazyImage(one.recipe), Image.fromarray(np.asarray(two))
    expected = image_processor(images=[one, two, twin], return_tensors="pt")
    done = []
    stock = type(image_processor).__mro__[1]
    preprocess = stock.preprocess

    def counted(self, images, *args, **kwargs):
        done.append(len(images))
        return preprocess(self, images, *args, **kwargs)

    monkeypatch.setattr(stock, "preprocess", counted)
    with image_processor.each_once():
        for asked in ([one, two, twin], [[one], [two, twin]]):
            found = image_processor(images=asked, return_tensors="pt")
            assert found.keys() == expected.keys()
            assert all(torch.equal(found[name], expected[name]) for name in expected)
        assert done == [1, 1]
        mixed = image_processor(images=[one, plain])  # an ordinary picture has no recipe
        assert torch.equal(mixed["pixel_values"], image_processor(images=[one, two])["pixel_values"])
        assert done == [1, 1, 2]
    image_processor(images=[one])
    assert done == [1, 1, 2, 1]


def test_weights_load_in_the_asked_precision(model_dir):
    assert weights.load_model(model_dir).dtype == torch.float32
    assert weights.load_model(model_dir, dtype=torch.bfloat16).dtype == torch.bfloat16


# --- templates ---------------------------------------------------------------------------------------


def test_the_processor_is_ready_for_turns_with_tools(processor):
    assert trl_templates.supports_tool_calling(processor)
    assert trl_templates.is_chat_template_prefix_preserving(processor)
    assert processor.tokenizer.response_template is not None


def test_a_stock_template_without_tools_is_replaced(processor):
    assert "<tools>" in processor.chat_template
    assert processor.chat_template != tiny.STOCK_QWEN2_5


@pytest.mark.parametrize(
    "template", [tiny.COMPACT, trl_templates.qwen3_vl_chat_template], ids=["own", "qwen3"]
)
def test_a_template_that_does_the_job_is_kept(model_dir, tmp_path, template):
    processor = processors.load_processor(set_template(model_dir, tmp_path, template))
    assert processor.chat_template == template


def test_the_response_template_of_a_directory_is_kept(model_dir, tmp_path):
    processor = processors.load_processor(model_dir)
    own = families.RESPONSE_TEMPLATE | {"defaults": {"role": "assistant", "kept": "yes"}}
    processor.tokenizer.response_template = own
    shutil.copytree(model_dir, tmp_path, dirs_exist_ok=True)
    processor.save_pretrained(tmp_path)
    assert processors.load_processor(tmp_path).tokenizer.response_template == own


def test_a_template_whose_calls_cannot_be_parsed_is_refused(model_dir, tmp_path):
    other = tiny.COMPACT.replace("<tool_call>", "<call>").replace("</tool_call>", "</call>")
    with pytest.raises(UserError, match="tool calls of its chat template cannot be parsed"):
        processors.load_processor(set_template(model_dir, tmp_path, other))


def conversation(frame, row, factor):
    environment = CropEnvironment(CropSettings(frame=frame, factor=factor))
    prompt = build_prompt(frame, environment.reset(row=row))
    call = {"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [30, 30, 600, 600]}}
    return [
        *prompt,
        {
            "role": "assistant",
            "content": [{"type": "text", "text": "<think>near</think>"}],
            "tool_calls": [{"type": "function", "function": call}],
        },
        {
            "role": "tool",
            "name": "image_zoom_in_tool",
            "content": environment.image_zoom_in_tool([30, 30, 600, 600]),
        },
        {"role": "assistant", "content": [{"type": "text", "text": "<think>so</think><answer>A</answer>"}]},
    ]


def test_our_template_renders_a_whole_conversation(processor, model_dir, rows):
    frame = families.family_of(model_dir).frame
    messages = conversation(frame, rows[0], processors.factor(processor))
    tool = CropEnvironment(CropSettings(frame=frame, factor=28)).image_zoom_in_tool
    text = processor.apply_chat_template(messages, tools=[tool], tokenize=False)
    picture = "<|vision_start|><|image_pad|><|vision_end|>"
    assert '"name": "image_zoom_in_tool"' in text
    assert '"return"' not in text
    assert text.endswith(
        f"<|im_start|>user\n{picture}What is on the sign?<|im_end|>\n"
        "<|im_start|>assistant\n<think>near</think>\n<tool_call>\n"
        '{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [30, 30, 600, 600]}}\n</tool_call>'
        f"<|im_end|>\n<|im_start|>user\n<tool_response>\n{picture}\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n<think>so</think><answer>A</answer><|im_end|>\n"
    )


def test_earlier_messages_render_the_same_whatever_follows(processor, model_dir, rows):
    messages = conversation(families.family_of(model_dir).frame, rows[0], processors.factor(processor))
    texts = [processor.apply_chat_template(messages[:end], tokenize=False) for end in range(2, 6)]
    for text, longer in itertools.pairwise(texts):
        assert longer.startswith(text)


def test_generation_marks_name_exactly_what_the_model_writes(processor, model_dir, rows):
    messages = conversation(families.family_of(model_dir).frame, rows[0], processors.factor(processor))
    # The tokenizer, not the processor: transformers 5.17 loses the marks behind pictures.
    inputs = processor.tokenizer.apply_chat_template(
        messages,
        chat_template=processor.chat_template,
        tokenize=True,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    ids = [token for token, mark in zip(inputs["input_ids"], inputs["assistant_masks"], strict=True) if mark]
    assert processor.tokenizer.decode(ids) == (
        "<think>near</think>\n<tool_call>\n"
        '{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [30, 30, 600, 600]}}\n</tool_call><|im_end|>'
        "<think>so</think><answer>A</answer><|im_end|>"
    )


# --- the parser --------------------------------------------------------------------------------------

CALL = '<tool_call>\n{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [1, 2, 30, 40]}}\n</tool_call>'


def parse(processor, text):
    prompt = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "text", "text": "?"}]}],
        add_generation_prompt=True,
        tokenize=False,
    )
    prefix, ids = processor.tokenizer([prompt, text + "<|im_end|>"], add_special_tokens=False)["input_ids"]
    return trl_templates.parse_response(processor.tokenizer, ids, prefix=prefix)


def test_a_call_is_parsed_and_its_thinking_stays_visible(processor):
    turn = parse(processor, f"<think>near</think>{CALL}")
    assert turn["tool_calls"][0]["function"]["arguments"] == {"bbox_2d": [1, 2, 30, 40]}
    answer = {"role": "assistant", "content": "<think>so</think><answer>A</answer>"}
    rollout = parse_completion([turn, {"role": "tool", "content": [{"type": "image"}]}, answer])
    assert rollout.well_formed
    assert rollout.crops[0].box == (1, 2, 30, 40)


@pytest.mark.parametrize(
    "text",
    [
        "<think>so</think><answer>A</answer>",
        "<tool_call>{'name': 'image_zoom_in_tool'}</tool_call>",
        "<tool_call>[1, 2]</tool_call>",
        "<tool_call></tool_call>",
        f"{CALL}<tool_call>broken</tool_call>",
        f"<think>{CALL}</think><answer>A</answer>",
        CALL.removesuffix("</tool_call>"),
        "",
        "<|im_start|>assistant\n",
    ],
)
def test_any_other_turn_is_plain_text(processor, text):
    turn = parse(processor, text)
    assert not turn.get("tool_calls")
    assert "<think>so" not in text or turn["content"] == text


@pytest.mark.parametrize(
    "text", [f"<think>{CALL}", f"{CALL}<tool_call>open", f"<think>{CALL}</think>{CALL}{CALL}", f"{CALL} so"]
)
def test_the_calls_that_are_run_are_those_that_are_scored(processor, text):
    assert len(parse(processor, text)["tool_calls"]) == len(parse_completion(text).crops)


def test_a_call_that_is_nested_too_deeply_is_plain_text(processor):
    deep = '<tool_call>{"name": "image_zoom_in_tool", "arguments": ' + "[" * 1500 + "</tool_call>"
    assert not parse(processor, deep).get("tool_calls")
    with pytest.raises(ValueError, match="nested too deeply"):
        processor.tokenizer.parse_response(deep, prefix="")


def test_both_ends_of_a_turn_are_known(model_dir, tmp_path):
    shutil.copytree(model_dir, tmp_path, dirs_exist_ok=True)
    words, path = processors.load_processor(tmp_path).tokenizer, tmp_path / "generation_config.json"
    end, pad = words.eos_token_id, words.pad_token_id
    for named, expected in [([end, pad], (end, pad)), (pad, (end, pad)), (end, (end,)), (None, (end,))]:
        path.write_text(json.dumps({"eos_token_id": named}))
        assert processors.load_processor(tmp_path).turn_ends == expected
    path.unlink()
    assert processors.load_processor(tmp_path).turn_ends == (end,)
    for wrong in ("<|im_end|>", [end, True], [10**9]):
        path.write_text(json.dumps({"eos_token_id": wrong}))
        with pytest.raises(UserError, match=r"generation_config\.json: eos_token_id must hold ids"):
            processors.load_processor(tmp_path)


def test_a_template_whose_calls_only_the_parser_reads_is_refused(model_dir, tmp_path):
    other = tiny.COMPACT.replace("<tool_call>", "<call>").replace("</tool_call>", "</call>")
    processor = processors.load_processor(model_dir)
    fields = families.RESPONSE_TEMPLATE["fields"]
    calls = {"open": "<call>", "close_pattern": r"</call>\s*"}
    calls |= {
        name: value for name, value in fields["tool_calls"].items() if name not in ("open_pattern", *calls)
    }
    own = families.RESPONSE_TEMPLATE | {"fields": fields | {"tool_calls": calls}}
    processor.tokenizer.response_template = own
    folder = set_template(model_dir, tmp_path, other)
    processor.chat_template = other
    processor.save_pretrained(folder)
    with pytest.raises(UserError, match="the rewards cannot read the tool calls"):
        processors.load_processor(folder)


def test_thinking_that_the_template_opens_is_still_seen(model_dir, tmp_path):
    opening = trl_templates.qwen3_vl_chat_template.replace(
        "{{- '<|im_start|>assistant\\n' }}\n{%- endif %}",
        "{{- '<|im_start|>assistant\\n<think>\\n' }}\n{%- endif %}",
    )
    assert opening != trl_templates.qwen3_vl_chat_template
    processor = processors.load_processor(set_template(model_dir, tmp_path, opening))
    turn = parse(processor, "so</think><answer>A</answer>")
    assert parse_completion([turn]).well_formed
    assert not parse_completion([parse(processor, "never closed")]).well_formed


# --- pictures ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens", [(1, 1), (1, 3), (4, 3), (20, 16)])
def test_the_processor_leaves_our_sizes_alone(processor, tokens):
    side = processors.factor(processor)
    picture = Image.new("RGB", (tokens[0] * side, tokens[1] * side))
    grid = processor.image_processor(images=[picture])["image_grid_thw"]
    assert isinstance(grid, torch.Tensor)
    assert grid.tolist() == [[1, 2 * tokens[1], 2 * tokens[0]]]


def test_vision_tokens_are_never_sampled(processor):
    names = processor.tokenizer.convert_ids_to_tokens(processors.vision_token_ids(processor))
    assert set(names) == {
        *("<|image_pad|>", "<|video_pad|>"),
        *("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>"),
    }


def test_pixels_of_a_picture_reach_the_model_in_order(processor):
    side = processors.factor(processor)
    picture = np.zeros((side, 2 * side, 3), dtype=np.uint8)
    picture[:, side:] = 255
    pixels = processor.image_processor(images=[Image.fromarray(picture)])["pixel_values"]
    left, right = pixels.mean(1)[:4], pixels.mean(1)[4:]
    assert (left < 0).all()
    assert (right > 0).all()


# --- inside TRL --------------------------------------------------------------------------------------


def test_trl_adds_a_tool_message_to_what_the_model_wrote(processor, model_dir, rows):
    """The tokens that TRL puts between two turns, from its own function."""
    trainer = SimpleNamespace(
        processing_class=processor,
        _tokenizer=processor.tokenizer,
        _is_vlm=True,
        chat_template=None,
        chat_template_kwargs={},
    )
    message = conversation(families.family_of(model_dir).frame, rows[0], processors.factor(processor))[3]
    suffix = processor.tokenizer.decode(GRPOTrainer._get_tool_suffix_ids(trainer, [message]))
    width, height = message["content"][0]["image"].size
    pads = "<|image_pad|>" * (width * height // processors.factor(processor) ** 2)
    assert suffix == (
        f"\n<|im_start|>user\n<tool_response>\n<|vision_start|>{pads}<|vision_end|>\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_a_prompt_is_the_same_whoever_builds_it(processor, model_dir, rows):
    frame = families.family_of(model_dir).frame
    blocks = CropEnvironment(CropSettings(frame=frame, factor=28)).reset(row=rows[0])
    ours = build_prompt(frame, blocks)
    # What TRL makes of the empty prompt and the observation.
    trls = build_prompt(frame)
    trls[-1] = trls[-1] | {"content": [{"type": "text", "text": trls[-1]["content"]}, *blocks]}
    texts = [
        processor.apply_chat_template(prepare_multimodal_messages(prompt), tokenize=False)
        for prompt in (ours, trls)
    ]
    assert texts[0] == texts[1]
    assert "in pixels of the image" in texts[0] or "from 0 to 1000" in texts[0]


def test_without_tools_the_prompt_does_not_speak_of_crops():
    for frame in (Frame.SHOWN, Frame.RELATIVE_1000):
        assert "crop" in build_prompt(frame)[0]["content"]
        assert "crop" not in build_prompt(frame, tools=False)[0]["content"]


# --- fingerprints ------------------------------------------------------------------------------------


def test_a_fingerprint_tells_trainings_of_large_files_apart_and_ignores_what_is_no_model(tmp_path):
    def write(changed: float, **files: str) -> str:
        stored = np.zeros(12 << 20, np.uint8)  # three times what is read of it
        stored[len(stored) // 2 :: max(1, int(1 / changed)) if changed else len(stored)] += changed > 0
        (tmp_path / "model-1.safetensors").write_bytes(stored.tobytes())
        for name, text in files.items():
            (tmp_path / f"{name}.json").write_text(text)
        return weights.fingerprint(tmp_path)

    plain = write(0, config="{}")
    assert write(0, config="{}", metrics="new", manifest="new") == plain
    assert write(0.01) != plain  # a hundredth of the weights of the second half
    assert write(0) == plain
    assert write(0, config="{ }") != plain
    assert write(0, config="{}", tokenizer="other") != plain
