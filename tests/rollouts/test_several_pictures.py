"""Questions about several pictures: what the model is told, what the tool cuts, what it earns."""

import dataclasses
import json
import pickle

import pytest
from transformers.utils import get_json_schema

from lfpc_rewards import Frame
from lfpc_trl.data.rows import read_rows
from lfpc_trl.pictures.crops import BOX_ERRORS, IMAGE_ERROR, BoxError
from lfpc_trl.pictures.lazy import Noise, Part
from lfpc_trl.rollouts.crop_tool import (
    CropEnvironment,
    CropSettings,
    environment_factories,
    environment_for,
    environment_name,
)
from lfpc_trl.rollouts.prompts import build_prompt, prompt_digest, system_text
from lfpc_trl.rollouts.rewards import METRICS, SEVERAL_METRICS, ToolBonus
from lfpc_trl.rollouts.transcript import score_transcripts
from lfpc_trl.runs.trajectories import Round, TrajectoryLog, read_trajectories, schema
from tests import tiny

SETTINGS = CropSettings(frame=Frame.ORIGINAL, factor=28)
RIGHT = {"role": "assistant", "content": "<think>so</think><answer>A</answer>"}


@pytest.fixture
def row(tmp_path):
    return read_rows(tiny.make_several(tmp_path, 1))[0]


@pytest.fixture
def one(tmp_path):
    return read_rows(tiny.make_rows(tmp_path / "one", 1))[0]


def recipe_of(row, settings=SETTINGS, **arguments):
    environment = environment_for(row, settings)
    environment.reset(row=row)
    [block] = environment.image_zoom_in_tool(**arguments)
    return block["image"].recipe


def test_pictures_have_their_names_before_them(row, one):
    blocks = environment_for(row, SETTINGS).reset(row=row)
    told = ["image" if block["type"] == "image" else block["text"] for block in blocks]
    names = [part for number in (1, 2, 3) for part in (f"Image {number}: ", "image", "\n")]
    assert told == [*names, "What is on the sign?"]
    sizes = [block["image"].size for block in blocks if block["type"] == "image"]
    assert sizes == [(112, 84), (56, 56), (84, 112)]
    assert [block["type"] for block in CropEnvironment(SETTINGS).reset(row=one)] == ["image", "text"]


def test_the_system_message_speaks_of_several_only_where_there_are(row):
    for frame in (Frame.SHOWN, Frame.RELATIVE_1000):
        several = build_prompt(frame, pictures=3)[0]["content"]
        assert several == build_prompt(frame, pictures=2)[0]["content"] != system_text(frame)
        assert "images" in several
        assert build_prompt(frame, pictures=1) == build_prompt(frame)
    assert "images" in system_text(Frame.SHOWN, tools=False, pictures=2)


def test_the_tool_says_how_many_pictures_there_are_and_that_of_one_is_as_it_was(row, one):
    several = get_json_schema(environment_for(row, SETTINGS).image_zoom_in_tool)["function"]
    assert "one of the 3 original images" in several["description"]
    image = several["parameters"]["properties"]["image"]
    assert image == {"type": "integer", "description": "The number of the image, from 1 to 3."}
    assert several["parameters"]["required"] == ["bbox_2d"]
    single = get_json_schema(environment_for(one, SETTINGS).image_zoom_in_tool)["function"]
    assert list(single["parameters"]["properties"]) == ["bbox_2d", "label"]
    assert type(environment_for(one, SETTINGS)) is CropEnvironment


def test_the_tool_cuts_the_picture_that_is_named_and_the_first_without_a_name(row):
    box = [10, 20, 60, 80]
    for number, arguments in ((1, {}), (1, {"image": 1}), (2, {"image": 2}), (3, {"image": 3})):
        recipe = recipe_of(row, bbox_2d=box, **arguments)
        assert (recipe.path, recipe.box) == (str(row.pictures[number - 1].image), tuple(box))


def test_a_box_counts_in_the_frame_of_its_own_picture(row):
    shown = dataclasses.replace(SETTINGS, frame=Frame.SHOWN)
    # Picture 2 is 112 x 112 and shown at 56 x 56, picture 3 is 196 x 252 and shown at 84 x 112.
    assert recipe_of(row, shown, bbox_2d=[7, 7, 28, 28], image=2).box == (14, 14, 56, 56)
    assert recipe_of(row, shown, bbox_2d=[42, 56, 84, 112], image=3).box == (98, 126, 196, 252)
    with pytest.raises(BoxError, match="outside"):
        recipe_of(row, SETTINGS, bbox_2d=[150, 10, 200, 60], image=2)


@pytest.mark.parametrize("number", [0, 4, -1, 1.0, "2", None, True, [2], 10**30])
def test_a_picture_that_does_not_exist_is_a_sentence_for_the_model(row, number):
    with pytest.raises(BoxError) as caught:
        recipe_of(row, bbox_2d=[10, 20, 60, 80], image=number)
    assert str(caught.value) == IMAGE_ERROR["image"]
    assert not set(IMAGE_ERROR) & set(BOX_ERRORS)


def test_other_answers_to_a_call_stay_on_the_picture_that_was_asked_for(row):
    def under(source, **arguments):
        settings = dataclasses.replace(SETTINGS, crop_source=source)
        return recipe_of(row, settings, bbox_2d=[10, 20, 60, 80], **arguments)

    names = [str(picture.image) for picture in row.pictures]
    assert under("target", image=3)[::3] == (names[2], (90, 140, 180, 220))
    assert under("target", image=1)[::3] == (names[0], (40, 40, 80, 70))
    # There is none on the second: the first of the row.
    assert under("target", image=2)[::3] == (names[2], (90, 140, 180, 220))
    noise = under("noise", image=2)
    assert isinstance(noise, Noise)
    assert noise.size == under("predicted", image=2).size
    for number in (1, 2, 3):
        part = under("elsewhere", image=number)
        assert isinstance(part, Part)
        assert part.path == names[number - 1]
        left, top, right, bottom = part.box
        assert (right - left, bottom - top) == (50, 60)
        width, height = row.pictures[number - 1].size
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height


def test_an_environment_is_for_one_number_of_pictures(row, one):
    with pytest.raises(ValueError, match="must have 1 pictures, got 3"):
        CropEnvironment(SETTINGS).reset(row=row)
    with pytest.raises(ValueError, match="must have 3 pictures, got 1"):
        environment_for(row, SETTINGS).reset(row=one)
    bare = row.shown_at([(112, 84), (56, 56), (84, 112)])
    with pytest.raises(ValueError, match="has no shown_size"):
        environment_for(row, SETTINGS).reset(
            row=dataclasses.replace(bare, others=(bare.others[0], bare.others[1]._replace(shown_size=None)))
        )


def test_factories_for_the_numbers_that_rows_have_can_be_pickled(row, one):
    factories = pickle.loads(pickle.dumps(environment_factories(SETTINGS, [one, row, row])))
    assert list(factories) == ["1", "3"]
    assert factories[environment_name(row)]().pictures == 3
    assert type(factories[environment_name(one)]()) is CropEnvironment


# --- scores ------------------------------------------------------------------------------------------


def looked(box, image=None, picture=True):
    arguments = {"bbox_2d": list(box)} | ({} if image is None else {"image": image})
    written = json.dumps({"name": "image_zoom_in_tool", "arguments": arguments})
    turn = {"role": "assistant", "content": f"<think>near</think><tool_call>{written}</tool_call>"}
    return [turn, {"role": "tool", "content": [{"type": "image"}] if picture else "no"}]


def test_a_crop_counts_on_its_own_picture(row):
    exact = [*looked([100, 150, 160, 200], 3), *looked([40, 40, 80, 70], 1), RIGHT]
    elsewhere = [*looked([40, 40, 80, 70], 2), RIGHT]  # the box of a target, of another picture
    good, bad, gone = score_transcripts(
        [exact, elsewhere, [*looked([1, 1, 50, 50], 4), RIGHT]], [row] * 3, SETTINGS
    )
    assert (good.grounding, good.overlap, good.crop_images) == (1.0, 1.0, (3, 1))
    assert (bad.grounding, bad.overlap, bad.iou, bad.crop_images) == (0.0, 0.0, 0.0, (2,))
    assert (gone.crops, gone.tool_bonus) == ((), 1.0)  # a picture came, but not from our tool
    whole = score_transcripts([[*looked([0, 0, 112, 112], 2), RIGHT]], [row], SETTINGS)[0]
    assert whole.bbox_ratio == 1.0


def test_a_refused_picture_has_a_metric_of_its_own_where_there_are_several(row, one):
    refused = [
        looked([1, 1, 50, 50], 4)[0],
        {"role": "tool", "content": str({"error": IMAGE_ERROR["image"]})},
    ]
    several = score_transcripts([[*refused, RIGHT]], [row], SETTINGS)
    assert several[0].failures == ("image",)
    logged = {}
    ToolBonus()(several, log_metric=lambda name, value: logged.setdefault(name, value))
    assert logged[SEVERAL_METRICS[0]] == 1.0
    logged.clear()
    alone = score_transcripts([[RIGHT]], [one], SETTINGS)
    ToolBonus()(alone, log_metric=lambda name, value: logged.setdefault(name, value))
    assert set(logged) <= set(METRICS)


def test_what_was_asked_depends_on_every_picture(row):
    others = (row.others[1], row.others[0])
    assert prompt_digest(row) != prompt_digest(dataclasses.replace(row, others=others))
    moved = dataclasses.replace(row, target_images=(1, 3))
    assert prompt_digest(row) == prompt_digest(moved)
    assert prompt_digest(row, targets=True) != prompt_digest(moved, targets=True)


# --- trajectories ------------------------------------------------------------------------------------


def trajectories_of(rows, completions):
    scored = score_transcripts(completions, rows, SETTINGS)
    prompts = [
        build_prompt(Frame.SHOWN, environment_for(row, SETTINGS).reset(row=row), pictures=len(row.pictures))
        for row in rows
    ]
    bare = [[each for each in messages if each["role"] != "tool"] for messages in completions]
    return Round(rows, prompts, bare, scored, ["finished"] * len(rows), [[1.0]] * len(rows)).trajectories(
        1, group_size=1, weights={"accuracy": 1.0}, advantages=[0.0] * len(rows), masked=frozenset()
    )


def test_trajectories_keep_the_pictures_and_come_back(row, one, tmp_path):
    made = trajectories_of([row, one], [[*looked([40, 40, 80, 70], 3), RIGHT], [RIGHT]])
    TrajectoryLog(tmp_path / "log").write(1, made)
    several, single = read_trajectories(tmp_path / "log")
    assert (several, single) == tuple(made)
    assert [name.rpartition("-")[2] for name in several.images] == ["1.png", "2.png", "3.png"]
    assert (several.box_images, several.target_images) == ((3,), (3, 1))
    assert several.image_sizes == ((224, 168), (112, 112), (196, 252))
    assert len(several.thumbnails) == 3
    assert (single.images, single.box_images) == ((), ())


def test_a_file_about_single_pictures_has_no_other_columns_than_before(one, tmp_path):
    from pyarrow import parquet

    TrajectoryLog(tmp_path).write(1, trajectories_of([one], [[RIGHT]]))
    [file] = tmp_path.glob("*.parquet")
    assert parquet.read_schema(file).names == schema().names
    assert "images" not in schema().names
