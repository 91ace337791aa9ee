"""Rewards in other frameworks: by their recorded calling conventions. With the real ones: tests/peers."""

import asyncio
import inspect
import math
import pickle
import re

import pytest

from lfpc_rewards import (
    accuracy_reward,
    grounding_reward,
    lfpc_reward,
    locus_parts,
    locus_reward,
    presets,
    tool_bonus,
)
from lfpc_rewards.adapters import CropsOf, TrlReward, VerlScore, swift_orm, verl_group_score
from lfpc_rewards.adapters.binding import PER_ROLLOUT, Binding

SAID = [
    "<think>by the door</think><answer>[10, 10, 30, 20]</answer>",
    "[10, 10, 30, 20]",
    "<think>x</think><answer>[0, 0, 5, 5]</answer>",
]
BOXES = [[10, 10, 30, 30], [10, 10, 30, 20], [0, 0, 5, 5]]
LOCUS = {"columns": {"targets": "box"}}
TOTALS, IOUS = [0.55, 0.0, 1.0], [0.5, 0.0, 1.0]
CALL = {"function": {"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [40, 40, 60, 60]}}}
LOOKED = [
    {"role": "assistant", "content": "<think>near</think>", "tool_calls": [CALL]},
    {"role": "tool", "content": [{"type": "image"}]},
    {"role": "assistant", "content": "<think>so</think><answer>B</answer>"},
]
SIGN = [[80, 40, 120, 60]]


def as_messages(texts):
    return [[{"role": "assistant", "content": text}] for text in texts]


# --- recorded calling conventions --------------------------------------------------------------------


def call_as_trl(reward, completions, metrics, **columns):
    """TRL 1.16, `GRPOTrainer._calculate_rewards`."""
    return reward(
        prompts=[[{"role": "user", "content": "?"}]] * len(completions),
        completions=completions,
        completion_ids=[[1, 2]] * len(completions),
        trainer_state=object(),
        log_extra=print,
        log_metric=lambda name, value: metrics.append((name, value)),
        **columns,
    )


def call_as_verl(compute_score, text, ground_truth, extra_info):
    """verl 0.9.1, the managers of `verl.experimental.reward_loop`."""
    return compute_score(
        data_source="mine", solution_str=text, ground_truth=ground_truth, extra_info=extra_info
    )


class RecordedOrm:
    """ms-swift 4.6.0, `swift.rewards.ORM`."""

    def __init__(self, args=None):
        self.args = args

    def __call__(self, **kwargs):
        raise NotImplementedError


def call_as_swift(orm, texts, **columns):
    """ms-swift 4.6.0, `compute_rewards_per_func`: made with args, called with the texts in first place."""
    columns |= {"messages": [[]] * len(texts), "prompt_id": ["p"] * len(texts)}
    return orm(args=None)(texts, trainer_state=None, **columns)


# --- TRL ---------------------------------------------------------------------------------------------


def test_trl_gets_the_totals_and_the_parts_as_metrics():
    metrics = []
    reward = TrlReward(locus_parts, **LOCUS)
    assert reward.__name__ == "locus_parts"
    assert call_as_trl(reward, as_messages(SAID), metrics, box=BOXES) == pytest.approx(TOTALS)
    assert [value for name, value in metrics if name == "locus_parts/iou"] == IOUS
    assert {name for name, _ in metrics} == {"locus_parts/iou", "locus_parts/format"}


def test_trl_gets_none_where_the_reward_does_not_apply_and_no_metric_of_nan():
    metrics = []
    reward = TrlReward(locus_parts, **LOCUS, term="iou", name="cue")
    assert call_as_trl(reward, as_messages(SAID), metrics, box=[None, *BOXES[1:]]) == [None, 0.0, 1.0]
    assert not any(math.isnan(value) for _, value in metrics)
    assert reward.__name__ == "cue"


def test_a_trl_reward_pickles():
    copy = pickle.loads(pickle.dumps(TrlReward(lfpc_reward, name="mine", columns={"answers": "solution"})))
    assert copy.__name__ == "mine"
    assert call_as_trl(copy, [LOOKED], [], solution=["B"]) == pytest.approx([2.0])


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_trl_itself_takes_the_reward(tmp_path):
    trl = pytest.importorskip("trl")
    from datasets import Dataset
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from tests import tiny

    words = tiny.tokenizer()
    words.chat_template = tiny.COMPACT
    config = Qwen2Config(
        vocab_size=len(words), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, bos_token_id=None, eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )  # fmt: skip
    trainer = trl.GRPOTrainer(
        model=Qwen2ForCausalLM(config),
        reward_funcs=[
            TrlReward(locus_parts, **LOCUS),
            TrlReward(locus_parts, **LOCUS, term="iou", name="cue"),
        ],
        args=trl.GRPOConfig(
            output_dir=str(tmp_path), per_device_train_batch_size=4, num_generations=4, use_cpu=True,
            bf16=False, report_to="none", **tiny.NO_CHECKPOINTING,
        ),
        train_dataset=Dataset.from_dict({"prompt": ["?"], "box": [BOXES[0]]}),
        processing_class=words,
    )  # fmt: skip
    boxes = [*BOXES, None]
    inputs = [{"prompt": "?", "box": box} for box in boxes]
    scores = trainer._calculate_rewards(inputs, ["?"] * 4, as_messages([*SAID, SAID[0]]), [[1]] * 4)
    assert trainer.reward_func_names == ["locus_parts", "cue"]
    assert scores[:, 0].tolist() == pytest.approx([*TOTALS, 0.1])
    assert scores[:, 1].tolist() == pytest.approx([*IOUS, math.nan], nan_ok=True)


# --- verl --------------------------------------------------------------------------------------------

VERL = {"columns": {"targets": "ground_truth"}}


def test_verl_gets_a_dictionary_of_numbers():
    score = call_as_verl(VerlScore(locus_parts, **VERL), SAID[0], BOXES[0], {"num_turns": None})
    assert score == pytest.approx({"score": 0.55, "iou": 0.5, "format": 1.0, "total": 0.55})
    assert {type(value) for value in score.values()} == {float}


def test_verl_gets_a_number_of_a_reward_without_parts():
    score = call_as_verl(VerlScore(lfpc_reward, columns={"answers": "ground_truth"}), "B", "B", {})
    assert type(score) is float
    assert score == pytest.approx(-0.2)


def test_verl_reads_other_columns_from_extra_info():
    compute_score = VerlScore(
        locus_reward,
        columns={"targets": "ground_truth", "image_sizes": "size"},
        options={"frame": "relative"},
    )
    said = "<think>x</think><answer>[0.1, 0.1, 0.3, 0.3]</answer>"
    assert call_as_verl(compute_score, said, BOXES[0], {"size": (100, 100)}) == pytest.approx(1.0)
    with pytest.raises(KeyError, match="no column 'size' for the argument 'image_sizes'"):
        call_as_verl(compute_score, said, BOXES[0], {})


def test_verl_has_no_score_for_not_applicable():
    options = VERL | {"term": "iou"}
    with pytest.raises(ValueError, match="rollout 0 or its judge failed"):
        call_as_verl(VerlScore(locus_parts, **options), SAID[0], None, None)
    compute_score = VerlScore(locus_parts, **options, not_applicable=-1.0)
    assert call_as_verl(compute_score, SAID[0], None, None)["score"] == -1.0
    assert call_as_verl(compute_score, SAID[0], BOXES[0], None)["score"] == 0.5


GROUPED = {"columns": {"answers": "ground_truth", "groups": "index"}, "options": {"mode": "strict"}}
RIGHT, WRONG = "<think>so</think><answer>B</answer>", "<think>so</think><answer>A</answer>"


def test_verl_one_by_one_refuses_what_compares_a_group():
    with pytest.raises(TypeError, match="use verl_group_score"):
        VerlScore(presets.pixel_reasoner, columns={"answers": "ground_truth"})
    one = VerlScore(presets.mini_o3, columns={"answers": "ground_truth"}, options={"mode": "strict"})
    with pytest.raises(TypeError, match="use verl_group_score"):
        call_as_verl(one, RIGHT, "B", {"groups": 3})


def at_once(compute_score, *rollouts):
    """The scores of rollouts that come at the same time: (text, gold, extra_info) each."""

    async def gathered():
        calls = [call_as_verl(compute_score, *each) for each in rollouts]
        return await asyncio.gather(*calls, return_exceptions=True)

    return asyncio.run(gathered())


def test_verl_scores_a_group_when_it_is_complete():
    compute_score = verl_group_score(presets.pixel_reasoner, size=3, **GROUPED)
    texts = [RIGHT, WRONG, RIGHT, WRONG, WRONG, RIGHT]
    groups = [1, 2, 1, 1, 2, 2]
    scored = at_once(
        compute_score, *((text, "B", {"index": g}) for text, g in zip(texts, groups, strict=True))
    )
    by_hand = presets.pixel_reasoner(texts, ["B"] * 6, groups=groups, mode="strict").total
    assert [each["score"] for each in scored] == by_hand.tolist()


def test_verl_scores_the_same_prompt_again_in_the_next_step():
    compute_score = verl_group_score(presets.pixel_reasoner, size={"train": 2, "test": 1}, **GROUPED)
    train, test = {"index": 1, "split": "train"}, {"index": 1, "split": "test"}
    for _ in range(2):
        scored = at_once(compute_score, (RIGHT, "B", train), (RIGHT, "B", test), (WRONG, "B", train))
        assert [each["score"] for each in scored] == [1.0, 1.0, 0.0]


def test_an_incomplete_group_of_verl_is_an_error_and_leaves_nothing_behind():
    compute_score = verl_group_score(presets.pixel_reasoner, size=3, patience=0.05, **GROUPED)
    errors = at_once(compute_score, *[(RIGHT, "B", {"index": 7})] * 2)
    assert {type(error) for error in errors} == {TimeoutError}
    assert str(errors[0]).startswith(
        "only 2 of the 3 rollouts of group 7 came within 0.05 s; all must come to one"
    )
    scored = at_once(compute_score, *[(RIGHT, "B", {"index": 7})] * 3)
    assert [each["score"] for each in scored] == [1.0, 1.0, 1.0]


def test_an_error_of_the_reward_reaches_every_rollout_of_its_group():
    compute_score = verl_group_score(presets.pixel_reasoner, size=2, columns=GROUPED["columns"])
    errors = at_once(compute_score, *[(RIGHT, "B", {"index": 7})] * 2)
    assert [str(error) for error in errors] == [str(errors[0])] * 2
    assert "math must be given" in str(errors[0])


def test_a_group_of_verl_needs_its_columns_and_a_size():
    compute_score = verl_group_score(presets.pixel_reasoner, size={"train": 1}, **GROUPED)
    errors = at_once(compute_score, (RIGHT, "B", {"index": 1}), (RIGHT, "B", {"split": "train"}))
    assert [str(error) for error in errors] == [
        "\"extra_info has no 'split'; it has index\"",
        "\"extra_info has no 'index'; it has split\"",
    ]
    with pytest.raises(TypeError, match="groups is bound to no column"):
        verl_group_score(locus_parts, size=2, **VERL)
    with pytest.raises(ValueError, match="size must be at least 1, got 0"):
        verl_group_score(presets.pixel_reasoner, size=0, **GROUPED)


# --- ms-swift ----------------------------------------------------------------------------------------


def test_swift_gets_a_class_that_scores():
    orm = swift_orm(RecordedOrm, "Locus", locus_parts, **LOCUS)
    assert issubclass(orm, RecordedOrm)
    assert orm.__name__ == "Locus"
    assert call_as_swift(orm, SAID, box=BOXES) == pytest.approx(TOTALS)
    orm = swift_orm(RecordedOrm, "Cue", locus_parts, **LOCUS, term="iou")
    assert call_as_swift(orm, SAID, box=[None, *BOXES[1:]]) == [None, 0.0, 1.0]


# --- what is bound -----------------------------------------------------------------------------------


def test_crops_come_from_the_calls_in_the_frame_of_the_model():
    sizes = {"image_sizes": [(200, 100)], "shown_sizes": [(100, 100)]}
    reward = TrlReward(grounding_reward, crops=CropsOf("shown"))
    assert call_as_trl(reward, [LOOKED], [], targets=[SIGN], **sizes) == [1.0]
    assert call_as_trl(reward, [LOOKED[:1]], [], targets=[SIGN], **sizes) == [0.0]
    asked = TrlReward(grounding_reward, crops=CropsOf("shown", requested=True))
    assert call_as_trl(asked, [LOOKED[:1]], [], targets=[SIGN], **sizes) == [1.0]


def test_a_call_without_a_box_is_a_bad_crop():
    call = {"function": {"name": "image_zoom_in_tool", "arguments": {"bbox_2d": "here"}}}
    said = [LOOKED[0] | {"tool_calls": [call]}, *LOOKED[1:]]
    reward = TrlReward(grounding_reward, crops=CropsOf("relative_1000"))
    assert call_as_trl(reward, [said], [], targets=[SIGN], image_sizes=[(200, 100)]) == [0.0]


def test_lfpc_with_crops_is_the_core_called_by_hand():
    columns = {"answers": "solution", "targets": "boxes"}
    reward = TrlReward(lfpc_reward, columns=columns, crops=CropsOf("shown"))
    given = {"solution": ["B"], "boxes": [SIGN], "image_sizes": [(200, 100)], "shown_sizes": [(100, 100)]}
    by_hand = lfpc_reward([LOOKED], ["B"], crops=[SIGN], targets=[SIGN], image_sizes=[(200, 100)])
    assert call_as_trl(reward, [LOOKED], [], **given) == by_hand.tolist() == pytest.approx([3.0])


CHOICES = [["red", "blue"], ["blue", "red"]]


@pytest.mark.parametrize("framework", ["trl", "verl", "swift"])
def test_a_column_that_is_named_like_an_optional_argument_is_bound(framework):
    """Without its choices, "blue" is no option."""
    texts, options = ["<think>so</think><answer>blue</answer>"] * 2, {"columns": {"answers": "ground_truth"}}
    if framework == "trl":
        reward = TrlReward(accuracy_reward, **options)
        scores = call_as_trl(reward, as_messages(texts), [], ground_truth=["B", "B"], choices=CHOICES)
    elif framework == "swift":
        reward = swift_orm(RecordedOrm, "Accuracy", accuracy_reward, **options)
        scores = call_as_swift(reward, texts, ground_truth=["B", "B"], choices=CHOICES)
    else:
        compute_score = VerlScore(accuracy_reward, **options)
        rows = zip(texts, CHOICES, strict=True)
        scores = [call_as_verl(compute_score, text, "B", {"choices": choices}) for text, choices in rows]
    assert scores == [1.0, 0.0]


def test_targets_and_sizes_are_bound_unless_an_option_says_otherwise():
    given = {"answers": ["B"], "targets": [SIGN], "image_sizes": [(200, 100)]}
    crops = CropsOf("relative_1000")
    boxed = [{"role": "assistant", "content": LOOKED[0]["content"], "tool_calls": [
        {"function": {"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [400, 400, 600, 600]}}}
    ]}, *LOOKED[1:]]  # fmt: skip
    assert call_as_trl(TrlReward(lfpc_reward, crops=crops), [boxed], [], **given) == pytest.approx([3.0])
    without = TrlReward(lfpc_reward, crops=crops, options={"targets": None})
    assert call_as_trl(without, [boxed], [], **given) == pytest.approx([2.0])


def test_what_holds_one_entry_per_rollout_is_what_the_docstrings_say():
    rewards = [getattr(presets, name) for name in REWARDS]
    found = set()
    for reward in (*rewards, accuracy_reward, grounding_reward, lfpc_reward, locus_parts, tool_bonus):
        for name, parameter in inspect.signature(reward).parameters.items():
            described = re.search(
                rf"^        {name}: (.*?)(?=^        \w+: |\n\n)", reward.__doc__, re.MULTILINE | re.DOTALL
            )
            optional = parameter.default is not parameter.empty
            per_rollout = described and re.match(
                r"\(B,|Sizes of|As `?image_sizes|\(2,\) or \(B", described[1]
            )
            found |= {name} if optional and per_rollout else set()
    assert found <= PER_ROLLOUT
    assert PER_ROLLOUT - found <= {"crops", "image_sizes", "shown_sizes", "questions"}


BAD = [
    ({"columns": {"gold": "x"}}, "locus_parts has no argument 'gold'; it has completions, targets"),
    ({"options": {"gold": 1}}, "locus_parts has no argument 'gold'"),
    ({"columns": {"targets": "x"}, "options": {"targets": 1}}, "bound twice: targets"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_what_cannot_be_bound_is_said_at_once(arguments, message):
    with pytest.raises(TypeError, match=message):
        TrlReward(locus_parts, **arguments)


def test_a_missing_column_and_a_missing_part_are_named():
    with pytest.raises(KeyError, match="no column 'targets' for the argument 'targets'; there are prompts"):
        call_as_trl(TrlReward(locus_parts), as_messages(SAID), [])
    with pytest.raises(TypeError, match="no part 'accuracy'; it has iou, format, total"):
        call_as_trl(TrlReward(locus_parts, **LOCUS, term="accuracy"), as_messages(SAID), [], box=BOXES)


REWARDS = [name for system in presets.SYSTEMS for name in system.rewards]


@pytest.mark.parametrize("name", REWARDS)
def test_every_preset_can_be_bound(name):
    """What has no default is a column; none of them is something that no data set holds."""
    columns = set(Binding(getattr(presets, name)).arguments().values())
    assert columns <= {
        *("completions", "completion_ids", "texts", "answers", "groups", "image_sizes", "shown_sizes"),
        *("scales", "math", "accuracy", "calls", "lengths", "longest", "overlong_buffer", "buffer"),
        *("totals", "formats", "questions", "images"),
    }


SAME = [
    ("vlm_r1", {"image_sizes": [(100, 100)] * 3, "shown_sizes": [(100, 100)] * 3}, BOXES),
    ("perception_r1", {}, BOXES),
    ("mini_o3_choice", {}, ["A", "B", "C"]),
]


@pytest.mark.parametrize(("name", "columns", "answers"), SAME, ids=[case[0] for case in SAME])
def test_a_preset_scores_as_when_it_is_called_by_hand(name, columns, answers):
    preset = getattr(presets, name)
    by_hand = preset(SAID, answers, **columns).total
    reward = TrlReward(preset, columns={"answers": "solution"})
    scores = call_as_trl(reward, SAID, [], solution=answers, **columns)
    expected = [None if math.isnan(score) else score for score in by_hand.tolist()]
    assert scores == expected
    assert call_as_swift(
        swift_orm(RecordedOrm, "X", preset, columns={"answers": "s"}), SAID, s=answers, **columns
    ) == (expected)


@pytest.mark.parametrize("framework", ["trl", "verl", "swift"])
def test_the_second_model_of_ergo_is_an_option_and_sees_the_columns(framework):
    said = "<think>there</think><zoom>[10, 10, 50, 40]</zoom><think>so</think><answer>B</answer>"
    seen = []

    def reader(images, boxes, questions):
        seen.append((images, boxes, questions))
        return ["B"] * len(boxes)

    data = {"images": ["a.jpg"], "image_sizes": [(400, 300)], "shown_sizes": [(200, 150)], "question": ["?"]}
    binding = {"columns": {"answers": "gold", "questions": "question"}, "options": {"reward_model": reader}}
    if framework == "trl":
        scores = call_as_trl(TrlReward(presets.ergo, **binding), as_messages([said]), [], gold=["B"], **data)
    elif framework == "swift":
        scores = call_as_swift(
            swift_orm(RecordedOrm, "Ergo", presets.ergo, **binding), [said], gold=["B"], **data
        )
    else:
        binding["columns"]["answers"] = "ground_truth"
        extra = {name: column[0] for name, column in data.items()}
        scores = [call_as_verl(VerlScore(presets.ergo, **binding), said, "B", extra)["score"]]
    assert scores == [3.5]
    assert seen == [(["a.jpg"], [(20, 20, 100, 80)], ["?"])]
