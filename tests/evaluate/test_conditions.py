"""What a model is shown in place of its crops, down to the pixels."""

import dataclasses
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lfpc_trl.evaluate import summary
from lfpc_trl.evaluate.conditions import CONDITIONS, choose
from lfpc_trl.evaluate.questions import Question
from lfpc_trl.evaluate.work import EvaluationWork, Task
from lfpc_trl.jobs.workers import Failure
from lfpc_trl.models.engines import TransformersEngine
from lfpc_trl.pictures import originals
from lfpc_trl.pictures.originals import PictureCache, load_original
from lfpc_trl.pictures.placement import place_without_overlap
from lfpc_trl.rollouts.crop_tool import NO_PICTURE, CropEnvironment
from lfpc_trl.rollouts.generate import RolloutSettings, generate_rollouts
from lfpc_trl.rollouts.transcript import score_transcripts
from tests.evaluate.conftest import SHOWN, SIGN
from tests.evaluate.scripted import ScriptedModel, answer, call
from tests.evaluate.scripted_eval import ASKED_AT, script

ASKED = tuple(2 * side for side in ASKED_AT)  # pixels of the original, which is shown at half its size


def test_every_condition_has_its_place_in_the_tables():
    assert sorted(summary.CONDITIONS) == sorted(CONDITIONS)


def do(model, processor, rows, settings, conditions=CONDITIONS, **options):
    """What comes out of the work: (row id, condition, sample) to rollout, and the failures."""
    work = EvaluationWork(TransformersEngine(model, processor), settings, RolloutSettings(**options))
    items = defaultdict(list)
    for row in rows:
        items[str(row.image)].append(Task("b", Question(row, row.id), conditions, needs_overview=True))
    found = list(work((key, tuple(item)) for key, item in items.items()))
    failures = [each for each in found if isinstance(each, Failure)]
    done = [each for each in found if not isinstance(each, Failure)]
    return {(each.task.question.row.id, each.condition): each for each in done}, failures


@pytest.fixture(scope="module")
def found(processor, rows, settings):
    return do(ScriptedModel(processor, script), processor, rows, settings)[0]


def crops(rollout):
    """The pictures that came back, as pixels."""
    return [
        np.asarray(block["image"])
        for message in rollout.messages
        if isinstance(message["content"], list)
        for block in message["content"]
    ]


def test_every_row_has_a_rollout_under_every_condition(found, rows):
    assert set(found) == {(row.id, condition) for row in rows for condition in CONDITIONS}


def test_predicted_is_shown_what_it_asked_for(found, rows):
    [crop] = crops(found["row1", "predicted"].rollout)
    whole = load_original(rows[1].image).crop(ASKED)
    assert crop.shape == (28, 56, 3)
    np.testing.assert_array_equal(crop, np.asarray(whole.resize((56, 28), Image.Resampling.BICUBIC)))
    assert len(crops(found["row2", "predicted"].rollout)) == 2


def test_target_is_shown_the_outermost_box_at_its_own_resolution(found, rows):
    left, top, right, bottom = SIGN
    [crop] = crops(found["row1", "target"].rollout)
    np.testing.assert_array_equal(crop, np.asarray(load_original(rows[1].image))[top:bottom, left:right])


def test_noise_and_elsewhere_have_the_size_of_the_crop(found):
    for condition in ("noise", "elsewhere"):
        for row in ("row1", "row2", "row4"):
            sizes = [crop.shape for crop in crops(found[row, condition].rollout)]
            assert sizes == [crop.shape for crop in crops(found[row, "predicted"].rollout)]
    assert crops(found["row1", "noise"].rollout)[0].std() > 60
    assert (crops(found["row1", "noise"].rollout)[0] != crops(found["row4", "noise"].rollout)[0]).any()


def test_elsewhere_holds_nothing_of_the_sign_unless_everything_was_asked_for(found):
    first, second = crops(found["row2", "elsewhere"].rollout)
    assert (first == 128).all()
    assert (second != 128).any()  # the whole picture has no other place
    assert (crops(found["row2", "predicted"].rollout)[0] != 128).any()


@pytest.mark.parametrize("seed", range(8))
def test_elsewhere_keeps_off_targets_that_were_not_asked_for(rows, settings, seed):
    far = np.array([[10.0, 10, 20, 20], [0, 0, 150, 168]])  # most of the picture
    row = dataclasses.replace(rows[0], regions=(far,))
    environment = CropEnvironment(dataclasses.replace(settings, crop_source="elsewhere", seed=seed))
    environment.reset(row=row)
    [block] = environment.image_zoom_in_tool([90, 10, 110, 30])
    box = block["image"].recipe.box
    assert box[0] >= 150
    assert (box[2] - box[0], box[3] - box[1]) == (40, 40)
    assert shared(box, (180, 20, 220, 60)) == 0


def test_no_picture_accepts_the_call_in_words(found, rows, settings):
    done = found["row2", "no_picture"]
    replies = [message for message in done.rollout.messages if message["role"] == "tool"]
    assert [reply["content"] for reply in replies] == [NO_PICTURE] * 2
    [score] = score_transcripts([done.rollout.messages], [rows[2]], settings)
    assert (score.crops, score.failed_calls, score.turns) == ((), 0, 3)
    assert np.isnan([score.iou, score.overlap, score.bbox_ratio, score.crop_tokens]).all()
    refused = found["row3", "no_picture"]
    [score] = score_transcripts([refused.rollout.messages], [rows[3]], settings)
    assert score.failures == ("form",)


def test_a_tool_that_is_called_like_the_words_is_still_refused(processor, rows, settings):
    """A model cannot make a failed call look like the accepted one."""
    model = ScriptedModel(
        processor,
        lambda prompt: answer("x") if "not found" in prompt.text else call([1, 1, 50, 50], NO_PICTURE),
    )
    done, _ = do(model, processor, rows[:1], settings, ("predicted",))
    [score] = score_transcripts([done["row0", "predicted"].rollout.messages], rows[:1], settings)
    assert score.failures == ("other",)


def test_no_tool_has_one_turn_and_no_word_of_the_tool(processor, rows, settings):
    texts = []

    def listen(prompt):
        texts.append(prompt.text)
        return call(ASKED_AT)

    done, _ = do(ScriptedModel(processor, listen), processor, rows[:1], settings, ("no_tool",))
    assert len(done["row0", "no_tool"].rollout.messages) == len(texts) == 1
    assert "image_zoom_in_tool" not in texts[0]


def test_all_but_no_tool_begin_with_the_same_turn_which_is_generated_once(processor, rows, settings):
    model = ScriptedModel(processor, script)
    found, _ = do(model, processor, rows, settings)
    for row in rows:
        first = found[row.id, "predicted"].rollout.first_turn
        for condition in CONDITIONS[1:-1]:
            assert found[row.id, condition].rollout.first_turn == first
    later = sum(
        message["role"] == "assistant"
        for done in found.values()
        if done.condition != "no_tool"
        for message in done.rollout.messages[1:]
    )
    assert sum(model.batches) == 2 * len(rows) + later


def test_conditions_share_batches(processor, rows, settings):
    model = ScriptedModel(processor, script)
    do(model, processor, rows, settings, batch_size=8)
    assert max(model.batches) == 8
    assert len(model.batches) <= sum(model.batches) / 8 + 4


def test_without_room_for_two_every_rollout_stands_alone(processor, rows, settings):
    model = ScriptedModel(processor, script)
    alone, _ = do(model, processor, rows, settings, batch_tokens=1)
    assert set(model.batches) == {1}
    together, _ = do(ScriptedModel(processor, script), processor, rows, settings)
    assert {key: text_of(done.rollout) for key, done in alone.items()} == {
        key: text_of(done.rollout) for key, done in together.items()
    }


def text_of(rollout):
    return [
        (message["role"], message["content"], message.get("tool_calls"))
        for message in rollout.messages
        if isinstance(message["content"], str)
    ]


def test_the_rollouts_are_those_of_the_conditions_one_by_one(processor, rows, settings):
    """Against `generate_rollouts` for each condition on its own."""
    found, _ = do(ScriptedModel(processor, script), processor, rows, settings)
    engine = TransformersEngine(ScriptedModel(processor, script), processor)
    first = generate_rollouts(engine, rows, crop_settings=settings)
    for condition in CONDITIONS:
        source = "predicted" if condition == "no_tool" else condition
        plain = generate_rollouts(
            engine,
            rows,
            crop_settings=dataclasses.replace(settings, crop_source=source),
            tools=condition != "no_tool",
            first_turns=None if condition == "no_tool" else [each.first_turn for each in first],
        )
        for row, rollout in zip(rows, plain, strict=True):
            ours = found[row.id, condition].rollout
            assert text_of(ours) == text_of(rollout)
            for mine, theirs in zip(crops(ours), crops(rollout), strict=True):
                np.testing.assert_array_equal(mine, theirs)


def test_every_original_is_decoded_once_whatever_the_cache_can_hold(processor, rows, settings, monkeypatch):
    cache = PictureCache(max_bytes=1)
    monkeypatch.setattr(originals, "_PICTURES", cache)
    same = [dataclasses.replace(row, id=f"{row.id}b", image=rows[0].image) for row in rows[:3]]
    do(ScriptedModel(processor, script), processor, [*rows, *same], settings, batch_size=2)
    assert cache.decodes == len(rows)


def test_a_picture_that_is_gone_costs_what_is_asked_about_it_alone(processor, rows, settings, tmp_path):
    gone = tmp_path / "gone.png"
    broken = tmp_path / "broken.png"
    broken.write_bytes(rows[0].image.read_bytes()[:-60])
    odd = [
        dataclasses.replace(row, id=f"row{number}", image=path)
        for number, (row, path) in enumerate(zip(rows, [gone, broken], strict=False))
    ]
    fine = [dataclasses.replace(row, id=f"row{number}", image=row.image) for number, row in enumerate(rows)]
    found, failures = do(ScriptedModel(processor, script), processor, [*odd, *fine[2:]], settings)
    assert [failure.keys for failure in failures] == [(str(gone),), (str(broken),)]
    assert "No such file" in failures[0].reason
    assert {row for row, _ in found} == {row.id for row in fine[2:]}


def test_the_overview_comes_with_the_first_rollout_of_an_asking(found, rows):
    for row in rows:
        overviews = [found[row.id, condition].overviews for condition in CONDITIONS]
        assert [[each.size for each in shown] for shown in overviews if shown is not None] == [[SHOWN]]


# --- which conditions there are ------------------------------------------------------------------------

CHOICES = [  # names, with targets, what is chosen
    (None, True, CONDITIONS),
    (None, False, ("predicted", "noise", "elsewhere", "no_picture", "no_tool")),
    (["noise"], True, ("predicted", "noise")),
    (["no_tool"], True, ("no_tool",)),
    (["no_tool", "target", "predicted"], True, ("predicted", "target", "no_tool")),
]


@pytest.mark.parametrize(("names", "targets", "chosen"), CHOICES)
def test_conditions_are_chosen(rows, names, targets, chosen):
    some = rows if targets else [dataclasses.replace(row, regions=None) for row in rows]
    assert choose(names, some) == chosen


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["nose"], "conditions must be some of predicted, target, .*, got 'nose', did you mean noise"),
        ([], "got none"),
        (["target"], "the condition target needs rows with targets, and no row has any"),
    ],
)
def test_conditions_that_cannot_be_made_are_refused(rows, names, message):
    with pytest.raises(ValueError, match=message):
        choose(names, [dataclasses.replace(row, regions=None) for row in rows])


# --- places ------------------------------------------------------------------------------------------


def shared(one, other):
    wide = min(one[2], other[2]) - max(one[0], other[0])
    tall = min(one[3], other[3]) - max(one[1], other[1])
    return max(0, wide) * max(0, tall)


@st.composite
def boxes(draw, width, height):
    left, top = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    return left, top, draw(st.integers(left + 1, width)), draw(st.integers(top + 1, height))


@given(data=st.data(), width=st.integers(1, 12), height=st.integers(1, 12), seed=st.integers(0, 99))
def test_a_place_is_as_clear_as_the_clearest_of_all(data, width, height, seed):
    """Against every place there is."""
    avoid = data.draw(st.lists(boxes(width, height), max_size=3))
    then = data.draw(st.lists(boxes(width, height), max_size=2))
    wide, tall = data.draw(st.integers(1, width)), data.draw(st.integers(1, height))

    def cost(box):
        return sum(shared(box, each) for each in avoid), sum(shared(box, each) for each in then)

    found = place_without_overlap((wide, tall), (width, height), avoid, then, seed=[seed])
    every = [(x, y, x + wide, y + tall) for x in range(width - wide + 1) for y in range(height - tall + 1)]
    assert found in every
    assert cost(found) == min(map(cost, every))


def test_places_are_drawn_from_all_clear_ones():
    free = [(x, y) for x in range(5) for y in range(4) if not (x in (1, 2) and y in (1, 2))]
    found = {place_without_overlap((1, 1), (5, 4), [(1, 1, 3, 3)], seed=[seed])[:2] for seed in range(400)}
    assert sorted(found) == free
