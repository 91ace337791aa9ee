"""Rewards in other frameworks: by their recorded calling conventions, and by the packages where installed."""

import math
import pickle

import numpy as np
import pytest

from lfpc_rewards import grounding_reward, lfpc_reward, locus_reward, presets
from lfpc_rewards.adapters import CropsOf, TrlReward, VerlBatchScore, VerlScore, swift_orm
from lfpc_rewards.adapters.binding import Binding

SAID = [
    "<think>by the door</think><answer>[10, 10, 30, 20]</answer>",
    "[10, 10, 30, 20]",
    "<think>x</think><answer>[0, 0, 5, 5]</answer>",
]
BOXES = [[10, 10, 30, 30], [10, 10, 30, 20], [0, 0, 5, 5]]
LOCUS = {"columns": {"targets": "box"}, "options": {"return_parts": True}}
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
    """verl 0.9.1, `NaiveRewardManager` of workers.reward_manager and of experimental.reward_loop."""
    return compute_score(
        data_source="mine", solution_str=text, ground_truth=ground_truth, extra_info=extra_info
    )


def call_as_verl_batch(compute_score, texts, ground_truths, extra_infos):
    """verl 0.9.1, `BatchRewardManager.verify`: the sources and the extras are arrays of objects."""
    return compute_score(
        data_sources=np.array(["mine"] * len(texts), object),
        solution_strs=texts,
        ground_truths=ground_truths,
        extra_infos=np.array(extra_infos, object),
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
    reward = TrlReward(locus_reward, **LOCUS)
    assert reward.__name__ == "locus_reward"
    assert call_as_trl(reward, as_messages(SAID), metrics, box=BOXES) == pytest.approx(TOTALS)
    assert [value for name, value in metrics if name == "locus_reward/iou"] == IOUS
    assert {name for name, _ in metrics} == {"locus_reward/iou", "locus_reward/format"}


def test_trl_gets_none_where_the_reward_does_not_apply_and_no_metric_of_nan():
    metrics = []
    reward = TrlReward(locus_reward, **LOCUS, term="iou", name="cue")
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
            TrlReward(locus_reward, **LOCUS),
            TrlReward(locus_reward, **LOCUS, term="iou", name="cue"),
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
    assert trainer.reward_func_names == ["locus_reward", "cue"]
    assert scores[:, 0].tolist() == pytest.approx([*TOTALS, 0.1])
    assert scores[:, 1].tolist() == pytest.approx([*IOUS, math.nan], nan_ok=True)


# --- verl --------------------------------------------------------------------------------------------

VERL = {"columns": {"targets": "ground_truth"}, "options": {"return_parts": True}}


def test_verl_gets_a_dictionary_of_numbers():
    score = call_as_verl(VerlScore(locus_reward, **VERL), SAID[0], BOXES[0], {"num_turns": None})
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


def test_verl_in_a_batch_is_verl_one_by_one():
    rows = list(zip(SAID, BOXES, [{"a": 1}, {}, {"num_turns": 2}], strict=True))
    batch = call_as_verl_batch(VerlBatchScore(locus_reward, **VERL), *zip(*rows, strict=True))
    assert batch == [call_as_verl(VerlScore(locus_reward, **VERL), *row) for row in rows]


def test_verl_has_no_score_for_not_applicable():
    options = VERL | {"term": "iou"}
    with pytest.raises(ValueError, match="rollout 1 or its judge failed"):
        call_as_verl_batch(VerlBatchScore(locus_reward, **options), SAID[:2], [BOXES[0], None], [None, None])
    batch = VerlBatchScore(locus_reward, **options, not_applicable=-1.0)
    scores = call_as_verl_batch(batch, SAID[:2], [BOXES[0], None], [None, None])
    assert [score["score"] for score in scores] == [0.5, -1.0]


def test_verl_one_by_one_refuses_what_compares_a_group():
    with pytest.raises(TypeError, match="use VerlBatchScore"):
        VerlScore(presets.pixel_reasoner, columns={"answers": "ground_truth"})


def verl_batch(texts, ground_truths):
    torch = pytest.importorskip("torch")
    protocol = pytest.importorskip("verl.protocol")
    from tests import tiny

    words = tiny.tokenizer()
    ids = [words(text)["input_ids"] for text in texts]
    longest = max(map(len, ids))
    responses = torch.tensor([each + [words.pad_token_id] * (longest - len(each)) for each in ids])
    prompts = torch.tensor([words("?")["input_ids"]] * len(texts))
    attention = torch.cat([torch.ones_like(prompts), (responses != words.pad_token_id).long()], 1)
    data = protocol.DataProto.from_dict(
        tensors={"prompts": prompts, "responses": responses, "attention_mask": attention},
        non_tensors={
            "data_source": np.array(["mine"] * len(texts), object),
            "reward_model": np.array([{"ground_truth": each} for each in ground_truths], object),
            "extra_info": np.array([{} for _ in texts], object),
        },
    )
    return words, data


@pytest.mark.parametrize(("manager", "adapter"), [("naive", VerlScore), ("batch", VerlBatchScore)])
def test_verl_itself_takes_the_reward(manager, adapter):
    words, data = verl_batch(SAID, BOXES)
    managers = pytest.importorskip("verl.workers.reward_manager")
    compute_score = adapter(locus_reward, **VERL)
    scored = managers.get_reward_manager_cls(manager)(words, 0, compute_score)(data, return_dict=True)
    assert scored["reward_tensor"].sum(1).tolist() == pytest.approx(TOTALS)
    assert scored["reward_extra_info"]["iou"] == pytest.approx(IOUS)


def test_verl_itself_loads_the_reward_from_a_file(tmp_path):
    reward = pytest.importorskip("verl.trainer.ppo.reward")
    omegaconf = pytest.importorskip("omegaconf")
    path = tmp_path / "rewards.py"
    path.write_text(
        "from lfpc_rewards import locus_reward\nfrom lfpc_rewards.adapters import VerlScore\n"
        "compute_score = VerlScore(locus_reward, columns={'targets': 'ground_truth'})\n"
    )
    config = {"reward": {"custom_reward_function": {"path": str(path), "name": "compute_score"}}}
    compute_score = reward.get_custom_reward_fn(omegaconf.OmegaConf.create(config))
    assert call_as_verl(compute_score, SAID[0], BOXES[0], {}) == pytest.approx(0.55)


# --- ms-swift ----------------------------------------------------------------------------------------


def test_swift_gets_a_class_that_scores():
    orm = swift_orm(RecordedOrm, "Locus", locus_reward, **LOCUS)
    assert issubclass(orm, RecordedOrm)
    assert orm.__name__ == "Locus"
    assert call_as_swift(orm, SAID, box=BOXES) == pytest.approx(TOTALS)
    orm = swift_orm(RecordedOrm, "Cue", locus_reward, **LOCUS, term="iou")
    assert call_as_swift(orm, SAID, box=[None, *BOXES[1:]]) == [None, 0.0, 1.0]


def test_swift_itself_takes_the_reward():
    torch = pytest.importorskip("torch")
    swift = pytest.importorskip("swift.rewards")
    algorithm = pytest.importorskip("swift.rl_core.grpo_algorithm")
    data = pytest.importorskip("swift.rl_core.data")
    swift.orms["locus"] = swift_orm(swift.ORM, "Locus", locus_reward, **LOCUS, term="iou")
    samples = [
        data.GRPOSample(messages=[{"role": "user", "content": "?"}, *said], extra={"box": box})
        for said, box in zip(as_messages([*SAID, SAID[0]]), [*BOXES, None], strict=True)
    ]
    rewards = [swift.orms["locus"](args=None)]
    scores = algorithm.compute_rewards_per_func(samples, rewards, None, torch.device("cpu"))
    assert scores[:, 0].tolist() == pytest.approx([*IOUS, math.nan], nan_ok=True)


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


BAD = [
    ({"columns": {"gold": "x"}}, "locus_reward has no argument 'gold'; it has completions, targets"),
    ({"options": {"gold": 1}}, "locus_reward has no argument 'gold'"),
    ({"columns": {"targets": "x"}, "options": {"targets": 1}}, "bound twice: targets"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_what_cannot_be_bound_is_said_at_once(arguments, message):
    with pytest.raises(TypeError, match=message):
        TrlReward(locus_reward, **arguments)


def test_a_missing_column_and_a_missing_part_are_named():
    with pytest.raises(KeyError, match="no column 'targets' for the argument 'targets'; there are prompts"):
        call_as_trl(TrlReward(locus_reward), as_messages(SAID), [])
    with pytest.raises(TypeError, match="no part 'accuracy'; it has iou, format, total"):
        call_as_trl(TrlReward(locus_reward, **LOCUS, term="accuracy"), as_messages(SAID), [], box=BOXES)


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
