"""LOCUS: cues from boxes, what the model is shown, the reward in the training, probes."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image
from trl.data_utils import prepare_multimodal_messages

from lfpc_rewards import Frame
from lfpc_trl import cli
from lfpc_trl.data.rows import read_rows
from lfpc_trl.errors import DataError, UserError
from lfpc_trl.locus.attention import attention_in_box, model_attention_in_box, token_cover
from lfpc_trl.locus.cues import SCALE, Source, boxes_of_coco, build_cues, check_cue, cue_box
from lfpc_trl.locus.evaluation import context_suppression, locate_cues, suppress_context
from lfpc_trl.locus.task import CueFormat, CuePrompt, CueReward
from lfpc_trl.models.processors import factor, load_processor
from lfpc_trl.models.weights import load_model
from lfpc_trl.pictures.originals import load_original
from lfpc_trl.rollouts.crop_tool import CropSettings
from lfpc_trl.train.check_data import check_data
from lfpc_trl.train.preflight import preflight
from lfpc_trl.train.recipe import load_recipe
from tests import tiny

SIZE = (1000, 800)


def sources(tmp_path, tiny_boxes=14, small_boxes=6, thin=0, large=0):
    image = tiny.make_picture(tmp_path / "a.png", SIZE)

    def make(width, height, count):
        return [
            Source(image, SIZE, (7.5 * i, 5.0 * i, 7.5 * i + width, 5.0 * i + height)) for i in range(count)
        ]

    # Shares of the picture: 0.5 %, 2.5 %, too thin, 12.5 %.
    return (
        make(80, 50, tiny_boxes) + make(200, 100, small_boxes) + make(400, 15, thin) + make(400, 250, large)
    )


# --- cues --------------------------------------------------------------------------------------------


def test_cues_are_seventy_to_thirty_and_every_box_is_accounted_for(tmp_path):
    cues = build_cues(sources(tmp_path, 20, 6, thin=2, large=3))
    assert cues.counts == {
        "boxes": 31, "too thin": 2, "too large": 3, "tiny boxes": 20, "small boxes": 6, "tiny cues": 14,
        "small cues": 6,
    }  # fmt: skip
    assert cues.note == ""
    assert len(cues.rows) == 20


def test_cues_hold_the_whole_padded_box(tmp_path):
    given = sources(tmp_path)
    for row in build_cues(given).rows:
        check_cue(row)
        x0, y0, x1, y1 = cue_box(row)
        inside = [s for s in given if s.box[0] >= x0 and s.box[1] >= y0 and s.box[2] <= x1 and s.box[3] <= y1]
        assert inside
        if row.extras[SCALE] == 1.0:  # small: neither padded nor scaled
            assert any(x1 - x0 <= s.box[2] - s.box[0] + 2 for s in inside)
        else:
            assert 0.8 <= row.extras[SCALE] <= 2.0
            assert any(x1 - x0 <= 1.2 * (s.box[2] - s.box[0]) + 2 for s in inside)
    assert sum(row.extras[SCALE] != 1.0 for row in build_cues(given).rows) == 14


def test_a_padded_cue_stays_in_the_picture(tmp_path):
    image = tiny.make_picture(tmp_path / "a.png", SIZE)
    corner = [Source(image, SIZE, (920, 750, 1000, 800))] * 7 + [Source(image, SIZE, (0, 0, 200, 100))] * 3
    for row in build_cues(corner).rows:
        x0, y0, x1, y1 = cue_box(row)
        assert 0 <= x0 < x1 <= 1000
        assert 0 <= y0 < y1 <= 800


def test_same_seed_same_cues(tmp_path):
    def made(seed):
        return [(cue_box(row), row.extras[SCALE]) for row in build_cues(sources(tmp_path), seed=seed).rows]

    assert made(1) == made(1) != made(2)


def test_too_few_of_a_kind_is_told(tmp_path):
    cues = build_cues(sources(tmp_path, 7, 50), count=100)
    assert cues.note == "100 cues were requested, 10 were made: too few tiny boxes for the mixture"
    assert (cues.counts["tiny cues"], cues.counts["small cues"]) == (7, 3)
    assert "too few small boxes" in build_cues(sources(tmp_path, 50, 3), count=100).note
    with pytest.raises(DataError, match=r"needs a tiny box and a small one .* got 0 and 6"):
        build_cues(sources(tmp_path, 0, 6))


def test_the_command_makes_rows_of_coco_and_tells_the_counts(tmp_path, capsys):
    tiny.make_picture(tmp_path / "pictures" / "a.png", SIZE)
    boxes = [[5 * i, 5 * i, 80, 50] for i in range(7)] + [[5 * i, 9, 200, 100] for i in range(3)]
    annotations = [{"image_id": 3, "bbox": box} for box in boxes] + [
        {"image_id": 3, "bbox": [0, 0, 80, 50], "iscrowd": 1}
    ]
    data = tmp_path / "coco.json"
    data.write_text(json.dumps({"images": [{"id": 3, "file_name": "a.png"}], "annotations": annotations}))
    out = tmp_path / "cues.jsonl"
    arguments = ["--data", str(data), "--images", str(tmp_path / "pictures"), "--output", str(out)]
    assert cli.main(["locus-data", *arguments]) == 0
    assert "tiny cues: 7" in capsys.readouterr().out
    rows = read_rows(out, require_targets=True)
    assert len(rows) == 10
    for row in rows:
        check_cue(row)
    assert cli.main(["locus-data", *arguments]) == 2
    assert "already exists" in capsys.readouterr().err


def test_a_file_that_is_no_coco_file_is_refused(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('{"images": []}')
    with pytest.raises(DataError, match=r"not a COCO annotation file \(KeyError: 'annotations'\)"):
        list(boxes_of_coco(path, tmp_path))


DEEP = "[" * 800 + "]" * 800
"""Python's reader takes it; whatever walks through it later may run out of stack."""


@pytest.mark.parametrize(
    "member",
    [
        f'"images": [{{"id": 1, "file_name": {DEEP}}}], "annotations": [{{"image_id": 1, "bbox": []}}]',
        f'"images": [{{"id": 1, "file_name": "a.png"}}], "annotations": [{{"image_id": 1, "bbox": {DEEP}}}]',
        f'"images": [], "annotations": [{{"image_id": 1, "x": {DEEP}}}]',
        '"images": ' + "[" * 200_000,
    ],
    ids=["a name", "a box", "a column", "without end"],
)
def test_a_deep_coco_file_is_one_line(tmp_path, member):
    path = tmp_path / "x.json"
    path.write_text("{" + member + "}")
    with pytest.raises(
        DataError, match=r"not a COCO annotation file \(ValueError: nested more than 64 deep\)"
    ):
        list(boxes_of_coco(path, tmp_path))


RED, BLUE = (100, 600, 150, 650), (400, 100, 520, 220)
"""Squares on the upright picture of 600 x 800 pixels."""


def turned_photo(folder, orientation, *, boxes, said):
    """A picture as a phone stores it, and a COCO file of its two squares.

    Args:
        folder: where they go.
        orientation: of EXIF.
        boxes: "stored" or "upright": the pixels that the boxes count on.
        said: the same of the size in the file; None leaves it out.
    """
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    upright = Image.new("RGB", (600, 800), (90, 100, 110))
    upright.paste((255, 0, 0), RED)
    upright.paste((0, 0, 255), BLUE)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = upright if orientation == 1 else upright.transpose(Image.Transpose(undo[orientation]))
    stored.save(folder / "phone.png", exif=exif)
    shown = np.asarray(stored if boxes == "stored" else upright).astype(int)
    annotations = []
    for category, channel in ((1, 0), (2, 2)):
        y, x = np.nonzero(shown[..., channel] == 255)
        box = [int(x.min()), int(y.min()), int(np.ptp(x)) + 1, int(np.ptp(y)) + 1]
        annotations += [{"image_id": 1, "category_id": category, "bbox": box}] * 7
    width, height = (stored if said == "stored" else upright).size
    size = {} if said is None else {"width": width, "height": height}
    images = [{"id": 1, "file_name": "phone.png"} | size]
    path = folder / "coco.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    return path


TURNED = [(each, "stored", said) for each in range(1, 9) for said in ("stored", None)]
# The size tells of upright boxes only where the picture lies on its side.
TURNED += [(each, "upright", "upright") for each in (1, 5, 6, 7, 8)]


@pytest.mark.parametrize(("orientation", "boxes", "said"), TURNED)
def test_cues_of_a_turned_picture_show_what_was_annotated(tmp_path, orientation, boxes, said):
    path = turned_photo(tmp_path, orientation, boxes=boxes, said=said)
    found = list(boxes_of_coco(path, tmp_path))
    assert {source.box for source in found} == {RED, BLUE}
    rows = build_cues(found).rows
    assert len(rows) == 10
    for row in rows:
        x0, y0, x1, y1 = cue_box(row)
        part = np.asarray(load_original(row.image))[y0:y1, x0:x1].reshape(-1, 3)
        squares = [(part == colour).all(1).mean() for colour in ((255, 0, 0), (0, 0, 255))]
        assert max(squares) > 0.6, (row.regions, squares)
        assert min(x1 - x0, y1 - y0) >= 50


def test_boxes_of_a_resized_copy_are_left_out(tmp_path):
    path = turned_photo(tmp_path, 6, boxes="stored", said="stored")
    data = json.loads(path.read_text())
    data["images"][0] |= {"width": 400, "height": 300}
    path.write_text(json.dumps(data))
    with pytest.raises(
        DataError, match=r"coco.json annotation 1: boxes must be for this picture of \[600, 800\]"
    ):
        list(boxes_of_coco(path, tmp_path))


UNUSABLE = {  # annotation: what is said of it
    "outside": (
        {"bbox": [990, 100, 80, 50]},
        "bbox must lie inside the picture (a.png, 1000 x 800 pixels), got",
    ),
    "far outside": ({"bbox": [5000, 5000, 80, 50]}, "bbox must lie inside the picture"),
    "three numbers": ({"bbox": [1, 2, 3]}, "an annotation must have a bbox of four numbers"),
    "no box": ({"bbox": None}, "an annotation must have a bbox of four numbers"),
    "texts": ({"bbox": ["1", "2", "30", "40"]}, "an annotation must have a bbox of four numbers"),
    "not a number": ({"bbox": [float("nan"), 2, 30, 40]}, "bbox must be [x, y, width, height], finite"),
    "inverted": ({"bbox": [500, 400, -80, -50]}, "bbox must be [x, y, width, height], finite"),
    "no picture of that id": ({"image_id": 9}, "and the image_id of a picture"),
    "a missing picture": ({"image_id": 4}, "image must be readable, got"),
    "a picture that is a strip": ({"image_id": 5}, "image must be less than 200 times as long as wide"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_an_annotation_that_cannot_be_used_is_named_and_the_rest_goes_on(tmp_path, capsys, name):
    change, reason = UNUSABLE[name]
    tiny.make_picture(tmp_path / "a.png", SIZE)
    tiny.make_picture(tmp_path / "strip.png", (2000, 10))
    boxes = [[5 * i, 5 * i, 80, 50] for i in range(7)] + [[5 * i, 9, 200, 100] for i in range(3)]
    annotations = [{"image_id": 3, "bbox": box} for box in boxes]
    annotations.insert(4, {"image_id": 3, "bbox": [1, 2, 30, 40]} | change)
    images = [
        {"id": 3, "file_name": "a.png"},
        {"id": 4, "file_name": "b.png"},
        {"id": 5, "file_name": "strip.png"},
    ]
    data = tmp_path / "coco.json"
    data.write_text(json.dumps({"images": images, "annotations": annotations}))
    out = tmp_path / "cues.jsonl"
    assert cli.main(["locus-data", "--data", str(data), "--images", str(tmp_path), "--output", str(out)]) == 0
    said = capsys.readouterr()
    assert f"left out: {data} annotation 5: " in said.err
    assert reason in said.err
    assert "left out: 1" in said.out
    assert len(read_rows(out)) == 10
    with pytest.raises(DataError, match="annotation 5: "):
        list(boxes_of_coco(data, tmp_path))


def test_a_box_that_sticks_out_by_a_rounding_is_clipped(tmp_path):
    tiny.make_picture(tmp_path / "a.png", SIZE)
    data = tmp_path / "coco.json"
    annotation = {"image_id": 3, "bbox": [-0.6, 750.2, 80, 50.7]}
    data.write_text(json.dumps({"images": [{"id": 3, "file_name": "a.png"}], "annotations": [annotation]}))
    [source] = boxes_of_coco(data, tmp_path)
    assert source.box == pytest.approx((0, 750.2, 79.4, 800))


@pytest.mark.parametrize(
    "box",
    [
        (995, 100, 1095, 200),  # 5 pixels are left in the picture
        (100, -90, 200, 10),
        (1100, 100, 1200, 200),  # none
        (1100, 900, 1200, 1000),
    ],
)
def test_only_the_part_inside_the_picture_counts_as_a_side(tmp_path, box):
    image = tiny.make_picture(tmp_path / "a.png", SIZE)
    given = [Source(image, SIZE, box)] * 20
    cues = build_cues(sources(tmp_path) + given)
    assert cues.counts["too thin"] == 20
    for row in cues.rows:
        x0, y0, x1, y1 = cue_box(row)
        assert min(x1 - x0, y1 - y0) >= 16


def test_a_strip_that_no_row_may_hold_is_too_thin(tmp_path):
    wide = (4000, 1000)
    image = tiny.make_picture(tmp_path / "wide.png", wide)
    strips = [Source(image, wide, (10, 10, 10 + 16 * 99, 26)) for _ in range(20)]
    others = [Source(image, wide, (10, 10, 110, 110)), Source(image, wide, (10, 10, 400, 310))] * 7
    cues = build_cues([*strips, *others])
    assert cues.counts["too thin"] == 20
    assert cues.counts["tiny cues"] == 7


# --- what is shown and scored ------------------------------------------------------------------------


def cue_rows(folder, count=4):
    return read_rows(tiny.make_rows(folder, count, targets=[[40, 42, 80, 84]], **{SCALE: 1.5}))


def test_the_model_is_shown_the_scene_and_the_scaled_cue(tmp_path):
    [message] = CuePrompt(Frame.SHOWN, 28, 256)(cue_rows(tmp_path)[0])
    scene, cue, text = message["content"]
    assert scene["image"].size == (112, 84)
    assert cue["image"].size == (56, 56)  # 60 x 63 in tokens of 28 pixels
    original = Image.open(tmp_path / "images" / "0.png").convert("RGB")
    expected = original.crop((40, 42, 80, 84)).resize((56, 56), Image.Resampling.BICUBIC)
    assert np.array_equal(np.asarray(cue["image"].copy()), np.asarray(expected))
    assert "in pixels of image 1" in text["text"]
    [message] = CuePrompt(Frame.RELATIVE_1000, 32, 256)(cue_rows(tmp_path)[0])
    assert "from 0 to 1000" in message["content"][2]["text"]


@pytest.mark.parametrize(
    ("frame", "box"),
    [(Frame.SHOWN, "[20, 21, 40, 42]"), (Frame.RELATIVE_1000, "[178.5714, 250, 357.1429, 500]")],
)
def test_the_box_is_read_in_the_frame_of_the_model(tmp_path, frame, box):
    row, logged = cue_rows(tmp_path, 1), []
    said = [[{"role": "assistant", "content": f"<think>x</think><answer>{box}</answer>"}]]
    reward = CueReward(frame)
    assert reward(said, row, log_metric=lambda *pair: logged.append(pair)) == pytest.approx([1.0], abs=1e-6)
    assert logged == [("iou", pytest.approx(1.0, abs=1e-6))]
    assert CueFormat(frame)(said, row) == [1.0]
    assert CueFormat(frame)([[{"role": "assistant", "content": box}]], row) == [0.0]


NO_CUES = [
    ({"targets": None, SCALE: 1.0}, "one target box"),
    ({"targets": [[40, 40, 80, 70], [30, 30, 100, 90]], SCALE: 1.0}, "one target box"),
    ({"targets": [[40, 40, 80, 70]]}, "x_cue_scale must be a positive number, got None"),
    ({"targets": [[40, 40, 80, 70]], SCALE: True}, "x_cue_scale must be a positive number, got True"),
]


@pytest.mark.parametrize(("columns", "message"), NO_CUES)
def test_a_row_that_is_no_cue_is_refused(tmp_path, columns, message):
    with pytest.raises(DataError, match=message):
        check_cue(read_rows(tiny.make_rows(tmp_path, 1, **columns))[0])


# --- the training ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["max_turns", "max_crops", "accuracy_weight", "tool_weight", "stage"])
def test_settings_that_locus_would_ignore_are_refused(name):
    with pytest.raises(UserError, match=f"{name} must be . with method locus, got 2"):
        load_recipe("locus-cpu", **{name: 2})


def test_the_weights_are_those_of_the_paper():
    for name in ("locus-cpu", "locus-8x80gb"):
        recipe = load_recipe(name)
        assert recipe.weights() == [0.9, 0.1]
        assert recipe.option("beta") == 0.01


@pytest.mark.filterwarnings("default::ResourceWarning")
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("kind", ["qwen2_5_vl", "qwen3_vl"])
def test_lfpc_train_trains_locus_without_a_tool(tmp_path, kind):
    from lfpc_trl.train.dry_run import describe
    from lfpc_trl.train.run import train

    model_dir = tiny.make_model(tmp_path / "model", kind, chat_template=tiny.COMPACT)
    side = 28 if kind == "qwen2_5_vl" else 32
    path = tiny.make_rows(
        tmp_path / "rows", targets=[[40, 42, 80, 84]], shown_size=[4 * side, 3 * side], **{SCALE: 1.5}
    )
    recipe = load_recipe("locus-cpu", steps=1, response_tokens=64, trajectory_tokens=64)
    rows = read_rows(path)
    told = describe(recipe, model_dir, rows, 1)["first prompt"]
    assert f"({4 * side} x {3 * side} pixels" in told
    assert told.count("<|image_pad|> x") == 2
    assert "image_zoom_in_tool" not in told
    result = train(recipe, model_dir, rows, tmp_path / "run")
    [line] = result.metrics
    assert line["grounding"] == line["iou"] == 0.0  # random weights name no box
    assert line["format"] == 0.0
    assert line["accuracy"] is None
    before, after = load_model(model_dir), load_model(tmp_path / "run")
    assert before.config.model_type == after.config.model_type


@pytest.mark.parametrize("kind", ["qwen2_5_vl", "qwen3_vl"])
def test_preflight_counts_the_prompt_of_a_cue_and_asks_for_no_crop(tmp_path, kind):
    processor = load_processor(tiny.make_model(tmp_path / "model", kind, chat_template=tiny.COMPACT))
    side = factor(processor)
    size = [4 * side, 3 * side]
    [row] = read_rows(
        tiny.make_rows(tmp_path / "rows", 1, targets=[[40, 42, 80, 84]], shown_size=size, **{SCALE: 1.5})
    )
    larger = dataclasses.replace(row, id="larger", extras={SCALE: 3.0})
    crops = CropSettings(processor.family.frame, side, crop_tokens=64, max_crops=0)
    cues = CuePrompt(crops.frame, side, 64)
    report = preflight(processor, [row, larger], crops, cues=cues, sample=1)
    report.check()
    assert report.longest_row == larger.name

    def tokens(messages, **options):
        text = processor.apply_chat_template(prepare_multimodal_messages(messages), tokenize=False, **options)
        images = [block["image"] for block in messages[0]["content"] if block["type"] == "image"]
        return processor(text=[text], images=images, return_tensors="pt")["input_ids"].shape[1]

    prompt = cues(larger)
    answer = {"role": "assistant", "content": "<think></think><answer>[0, 0, 1, 1]</answer>"}
    opened = tokens(prompt, add_generation_prompt=True)
    assert report.longest_prompt == opened
    assert report.rollout_tokens == tokens([*prompt, answer]) - opened
    needed = report.rollout_tokens
    short = {"trajectory_tokens": needed - 1, "context": opened + needed - 1}
    assert [str(p.rule) for p in preflight(processor, [larger], crops, cues=cues, **short).problems] == [
        f"an answer needs {needed} tokens, got {needed - 1}",
        f"its prompt ({opened} tokens), an answer ({needed}) must fit the context, got {opened + needed - 1}",
    ]
    fits = {"trajectory_tokens": needed, "context": opened + needed}
    assert preflight(processor, [larger], crops, cues=cues, **fits).problems == []


def test_preflight_finds_a_cue_that_the_processor_would_resize(tmp_path, compact):
    processor = load_processor(compact)
    rows = cue_rows(tmp_path, 1)
    crops = CropSettings(Frame.SHOWN, 28, crop_tokens=16)
    processor.image_processor.size = {
        "shortest_edge": 5 * 28 * 28,
        "longest_edge": 10**9,
    }  # the cue has 4 tokens
    [problem] = preflight(processor, rows, crops, cues=CuePrompt(Frame.SHOWN, 28, 16)).problems
    assert "must leave pictures of [[112, 84], [56, 56]] pixels as they are" in problem.rule


# --- evaluation and probes ---------------------------------------------------------------------------


def test_check_data_answers_every_cue_with_its_own_box(tmp_path):
    tiny.make_picture(tmp_path / "a.png", SIZE)
    boxes = [[100, 100, 180, 150], [300, 300, 380, 350], [100, 100, 180, 150], [5, 5, 25, 25]]
    rows = [
        {"question": "?", "answer": "x", "image": "a.png", "targets": [box], "id": name, SCALE: 1.0}
        for name, box in zip("abcd", boxes, strict=True)
    ]
    path = tmp_path / "cues.jsonl"
    broken = [
        rows[0] | {"id": "e", SCALE: 0},
        rows[0] | {"id": "f", "targets": [[0, 0, 9, 9], [0, 0, 99, 99]]},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, *broken]))
    report = check_data(path, method="locus", crops=CropSettings(Frame.SHOWN, 28), shown_tokens=20)
    assert [(problem.place, problem.rule) for problem in report.problems] == [
        (f"{path} row 5", f"{SCALE} must be a positive number, got 0"),
        (f"{path} row 6", "a cue must have one target box; make cues with lfpc locus-data"),
    ]
    # Shown at 140 x 112 pixels: the last cue has sides of 2.8 pixels.
    [little] = report.warnings["perfect crops that earn little"]
    assert little.place == f"{path} row 4"
    assert "cue of 20 x 20 pixels, boxes in whole numbers of shown" in little.rule
    assert [each.place for each in report.warnings["asked twice"]] == [f"{path} row 3"]
    assert report.statistics["perfect_crop_earns"]["max"] > 0.9


def test_check_data_holds_cues_against_a_model(tmp_path, capsys):
    path, model_dir = tiny.make_rows(tmp_path, 2, targets=[[40, 42, 80, 84]], **{SCALE: 1.5}), tmp_path / "m"
    tiny.make_model(model_dir, "qwen2_5_vl")
    options = ["--data", str(path), "--model", str(model_dir), "--crop-tokens", "16"]
    assert cli.main(["check-data", "--method", "locus", *options]) == 0
    told = capsys.readouterr().out
    assert "longest prompt" in told
    assert "shortest answer: " in told
    assert "rollout with" not in told


@pytest.fixture(scope="module")
def compact(tmp_path_factory):
    return tiny.make_model(tmp_path_factory.mktemp("model"), "qwen2_5_vl", chat_template=tiny.COMPACT)


def test_cues_are_looked_for_by_a_model(tmp_path, compact):
    crops = CropSettings(frame=Frame.SHOWN, factor=28, crop_tokens=16)
    found = locate_cues(
        load_model(compact),
        load_processor(compact),
        cue_rows(tmp_path),
        crop_settings=crops,
        max_new_tokens=4,
    )
    assert (found.mean_iou, found.acc_at_half, found.format) == (0.0, 0.0, 0.0)
    assert len(found.answers) == 4


def test_everything_but_the_targets_is_black(tmp_path):
    rows = read_rows(tiny.make_rows(tmp_path, 1, targets=[[40, 40, 80, 70], [30.5, 30, 100, 90.2]]))
    [row] = suppress_context(rows, tmp_path / "black")
    before = np.asarray(Image.open(rows[0].image).convert("RGB"))
    after = np.asarray(Image.open(row.image))
    kept = np.zeros(before.shape[:2], bool)
    kept[30:91, 30:100] = True
    assert (after[kept] == before[kept]).all()
    assert (after[~kept] == 0).all()
    assert (row.question, row.size, row.id) == (rows[0].question, rows[0].size, rows[0].id)


def test_context_suppression_compares_the_same_rows(tmp_path, compact):
    rows = read_rows(tiny.make_rows(tmp_path, 2))
    crops = CropSettings(frame=Frame.SHOWN, factor=28)
    result = context_suppression(
        load_model(compact),
        load_processor(compact),
        rows,
        tmp_path / "b",
        crop_settings=crops,
        max_new_tokens=4,
    )
    assert result.accuracy.tolist() == result.suppressed.tolist() == [0.0, 0.0]
    assert result.change == 0.0


def test_tokens_are_covered_as_far_as_they_lie_in_the_box():
    assert token_cover([28, 0, 56, 28], (84, 56), (3, 2)).tolist() == [0, 1, 0, 0, 0, 0]
    assert token_cover([14, 0, 42, 56], (84, 56), (3, 2)).tolist() == [0.5, 0.5, 0, 0.5, 0.5, 0]


def test_attention_in_box_of_a_map_made_by_hand():
    layers = np.zeros((3, 2, 6, 6))
    layers[0, 0, 5] = [0.4, 0.1, 0.2, 0.3, 0, 0]  # visual: positions 1, 2, 3
    layers[0, 1, 5] = [0.0, 0.3, 0.0, 0.1, 0.6, 0]
    layers[1, :, 5, 2] = 1.0
    layers[:, :, 4, 1] = 9.0  # not asked
    layers[2, :, 5, 0] = 1.0
    share = attention_in_box(layers, [1, 2, 3], [0.5, 1.0, 0.0], [5])
    assert share == pytest.approx([(0.4 * 0.5 + 0.2) / 1.0, 1.0, np.nan], nan_ok=True)


@pytest.mark.parametrize("kind", ["qwen2_5_vl", "qwen3_vl"])
def test_attention_in_box_of_a_model(tmp_path, kind):
    model_dir = tiny.make_model(tmp_path, kind, chat_template=tiny.COMPACT)
    side = 28 if kind == "qwen2_5_vl" else 32
    processor, model = load_processor(model_dir), load_model(model_dir, attention="eager")
    pictures = [Image.new("RGB", (4 * side, 2 * side), "red"), Image.new("RGB", (side, side), "blue")]
    text = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}, {"type": "image"}]}], tokenize=False
    )
    inputs = processor(text=[text], images=pictures, return_tensors="pt")
    whole = model_attention_in_box(model, inputs, [0, 0, 4 * side, 2 * side])
    other = model_attention_in_box(model, inputs, [0, 0, side, side], picture=1)
    left = model_attention_in_box(model, inputs, [0, 0, 2 * side, 2 * side])
    right = model_attention_in_box(model, inputs, [2 * side, 0, 4 * side, 2 * side])
    assert len(whole) == 2
    assert whole + other == pytest.approx([1.0, 1.0])
    assert left + right == pytest.approx(whole)
    assert (left > 0).all()
    with pytest.raises(ValueError, match="eager"):
        model_attention_in_box(load_model(model_dir, attention="sdpa"), inputs, [0, 0, side, side])
    with pytest.raises(ValueError, match="one sequence, got 2"):
        model_attention_in_box(model, {"input_ids": torch.zeros(2, 3)}, [0, 0, side, side])
