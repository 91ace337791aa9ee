"""Pictures by reference: what travels is the recipe, what is seen is the same pixels."""

import copy
import dataclasses
import io
import multiprocessing
import pickle
import socket
import threading

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from lfpc_rewards import Frame
from lfpc_trl.data.rows import read_rows
from lfpc_trl.models.processors import load_processor
from lfpc_trl.pictures import lazy, originals
from lfpc_trl.pictures.crops import cut
from lfpc_trl.pictures.lazy import LazyImage, Noise, Part
from lfpc_trl.pictures.originals import load_original, load_shown
from lfpc_trl.rollouts.crop_tool import CropEnvironment, CropSettings
from lfpc_trl.rollouts.prompts import build_prompt
from tests.pictures import gathering
from tests.tiny import make_picture, make_rows

SETTINGS = CropSettings(frame=Frame.SHOWN, factor=28, crop_tokens=256)


@pytest.fixture
def path(tmp_path):
    return make_picture(tmp_path / "a.png")


def shown(path, size=(112, 84)):
    return LazyImage(Part(str(path), path.stat().st_size, size))


def crop(path, box=(20, 30, 132, 114)):
    return LazyImage(Part(str(path), path.stat().st_size, (box[2] - box[0], box[3] - box[1]), box))


def noise():
    return LazyImage(Noise((0, 1), (56, 28)))


KINDS = [shown, crop, lambda _: noise()]
each_kind = pytest.mark.parametrize("make", KINDS, ids=["shown", "crop", "noise"])


# --- the pixels --------------------------------------------------------------------------------------


def test_the_pixels_are_those_of_the_shown_picture_and_of_the_cut(path):
    np.testing.assert_array_equal(shown(path), load_shown(path, (112, 84)))
    by_hand = cut(load_original(path), (20, 30, 132, 114), factor=28, max_tokens=256)
    np.testing.assert_array_equal(crop(path), by_hand)


def test_noise_depends_on_its_seed_alone():
    np.testing.assert_array_equal(noise(), noise())
    assert (np.asarray(noise()) != np.asarray(LazyImage(Noise((0, 2), (56, 28))))).any()


@each_kind
def test_what_the_libraries_do_with_a_picture_works(make, path):
    lazy = make(path)
    plain = Image.fromarray(np.asarray(make(path)))
    assert isinstance(lazy, Image.Image)
    assert (lazy.size, lazy.mode, lazy.width, lazy.getbands()) == (
        plain.size,
        "RGB",
        plain.width,
        ("R", "G", "B"),
    )
    assert dict(lazy.getexif()) == {}
    for work in (
        lambda image: image.convert("RGB"),
        lambda image: image.convert("L"),
        lambda image: image.copy(),
        lambda image: image.resize((30, 20)),
        lambda image: image.crop((1, 2, 20, 20)),
        lambda image: image.reduce(2),
        lambda image: Image.open(encoded(image)),
    ):
        made = work(make(path))
        assert not isinstance(made, LazyImage)
        np.testing.assert_array_equal(made, work(plain))


def encoded(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file


@each_kind
def test_the_processor_makes_the_same_tokens_of_it(make, path, model_dir):
    image_processor = load_processor(model_dir).image_processor
    plain = Image.fromarray(np.asarray(make(path)))
    first, second = (image_processor(images=[image]) for image in (make(path), plain))
    assert (first["image_grid_thw"] == second["image_grid_thw"]).all()
    assert torch.equal(first["pixel_values"], second["pixel_values"])


@each_kind
@pytest.mark.parametrize(
    "change",
    [
        lambda image: image.putpixel((0, 0), 0),
        lambda image: image.paste(0, (0, 0, 5, 5)),
        lambda image: image.thumbnail((8, 8)),
        lambda image: ImageDraw.Draw(image),
    ],
    ids=["putpixel", "paste", "thumbnail", "draw"],
)
def test_nobody_writes_into_a_shared_picture(make, path, change):
    image = make(path)
    before = np.array(image)
    with pytest.raises(TypeError, match=r"modify a copy\(\)"):
        change(image)
    np.testing.assert_array_equal(image, before)
    change(image.copy())


# --- copies and pickles ------------------------------------------------------------------------------


@each_kind
def test_a_copy_is_the_picture_itself(make, path):
    image = make(path)
    messages = [{"role": "user", "content": [{"type": "image", "image": image}]}]
    assert copy.deepcopy(messages)[0]["content"][0]["image"] is image
    assert copy.copy(image) is image


@each_kind
def test_a_pickle_is_the_recipe_and_comes_back_as_the_same_pixels(make, path):
    image = make(path)
    data = pickle.dumps(image.start())
    assert len(data) < 200 + len(str(path))
    np.testing.assert_array_equal(pickle.loads(data), image)


def test_unpickling_reads_no_file(path, monkeypatch):
    data = pickle.dumps([shown(path), crop(path)])
    monkeypatch.setattr(originals, "_decode", lambda _: pytest.fail("decoded"))
    assert [image.size for image in pickle.loads(data)] == [(112, 84), (112, 84)]


def batch(rows, *, rollouts=64):
    """Prompts and completions as TRL gathers them: one crop each."""
    prompts, completions = [], []
    for index in range(rollouts):
        environment = CropEnvironment(SETTINGS)
        prompts.append(build_prompt(Frame.SHOWN, environment.reset(row=rows[index // 16])))
        call = environment.image_zoom_in_tool([index % 16, 4, 100, 80])
        completions.append(
            [
                {"role": "assistant", "content": "<think>near</think>"},
                {"role": "tool", "content": call},
                {"role": "assistant", "content": "<think>so</think><answer>A</answer>"},
            ]
        )
    return prompts, completions


def plain(messages):
    """With ordinary pictures, as without this module."""
    return [
        message
        | {
            "content": [
                block | {"image": block["image"].copy()} if block["type"] == "image" else block
                for block in message["content"]
            ]
        }
        if isinstance(message["content"], list)
        else message
        for message in messages
    ]


def test_a_gathered_batch_holds_bytes_not_pictures(tmp_path):
    rows = read_rows(make_rows(tmp_path, 4))
    by_reference = sum(len(pickle.dumps(part)) for part in batch(rows))
    by_value = sum(len(pickle.dumps([plain(messages) for messages in part])) for part in batch(rows))
    text = sum(
        len(pickle.dumps([[{**message, "content": ""} for message in messages] for messages in part]))
        for part in batch(rows)
    )
    assert by_value > 64 * 3 * (112 * 84 + 112 * 84)
    assert by_reference - text < 128 * 400  # 128 pictures, with the texts beside them


@pytest.mark.slow
def test_two_processes_gather_the_same_pixels(path):
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        context.Process(target=gathering.gather, args=(rank, path, port, results)) for rank in range(2)
    ]
    for process in processes:
        process.start()
    seen = [results.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    expected = [*gathering.pictures(path, 0), *gathering.pictures(path, 1)]
    assert seen[0] == seen[1] == [("LazyImage", image.tobytes()) for image in expected]


# --- files that change, jobs in threads --------------------------------------------------------------


@pytest.mark.parametrize("announced", [False, True])
def test_another_file_in_its_place_is_noticed(path, announced):
    image = shown(path)
    before = path.stat().st_size
    make_picture(path, (300, 200), seed=1)
    if announced:
        image.start()
    for _ in range(2):
        with pytest.raises(OSError, match=f"a.png: changed during the run from {before} to "):
            image.load()


def test_a_crop_of_a_vanished_file_is_our_error_not_the_models(path, row):
    environment = CropEnvironment(SETTINGS)
    environment.reset(row=row)[0]["image"].load()
    row.image.unlink()
    [block] = environment.image_zoom_in_tool([10, 10, 60, 60])  # TRL would show the model what is raised here
    with pytest.raises(FileNotFoundError, match=r"0\.png"):
        block["image"].convert("RGB")


def test_jobs_about_one_file_wait_for_each_other_and_not_for_other_files(monkeypatch):
    monkeypatch.setattr(lazy, "_cores", lambda: 2)
    workers, gate, started = lazy._Workers(), threading.Event(), []

    def job(name, *, wait):
        def work():
            started.append(name)
            if wait:
                assert gate.wait(10)
            return name

        return work

    slow = workers.submit("a", job("a1", wait=True))
    after = workers.submit("a", job("a2", wait=False))
    other = workers.submit("b", job("b1", wait=False))
    assert other.result(10) == "b1"  # although two jobs about "a" came first and there are two threads
    assert not after.done()
    gate.set()
    assert (slow.result(10), after.result(10)) == ("a1", "a2")
    assert sorted(started) == ["a1", "a2", "b1"]
    again = workers.submit("a", job("a3", wait=False))
    assert again.result(10) == "a3"


def test_a_failed_job_does_not_stop_the_next():
    workers = lazy._Workers()
    failed, fine = workers.submit("a", lambda: 1 / 0), workers.submit("a", lambda: "fine")
    with pytest.raises(ZeroDivisionError):
        failed.result(10)
    assert fine.result(10) == "fine"


def test_a_round_of_crops_decodes_each_original_once(tmp_path, monkeypatch):
    rows = read_rows(make_rows(tmp_path, 3))
    decoded, decode = [], originals._decode
    monkeypatch.setattr(originals, "_decode", lambda path: decoded.append(path) or decode(path))
    monkeypatch.setattr(originals, "_PICTURES", originals.PictureCache())
    prompts, completions = batch(rows, rollouts=48)
    for messages in [*prompts, *completions]:
        plain(messages)
    assert sorted(decoded) == sorted(row.image for row in rows)


def test_threads_change_no_pixel(tmp_path):
    rows = read_rows(make_rows(tmp_path, 2))
    row = dataclasses.replace(rows[0], shown_size=(112, 84))

    def crops():
        environment = CropEnvironment(dataclasses.replace(SETTINGS, max_crops=99))
        environment.reset(row=row)
        blocks = [environment.image_zoom_in_tool([left, 4, left + 40, 80])[0] for left in range(60)]
        return [block["image"].tobytes() for block in blocks]

    assert crops() == crops()
    assert len(set(crops())) > 50
