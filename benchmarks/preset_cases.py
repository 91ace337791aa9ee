"""The rows of the table on presets: each against the plain loop of its original."""

import json
import random

import numpy as np
import preset_loops

from lfpc_rewards import locus_reward, presets
from lfpc_rewards.presets._final_answer import REMOVED, REPLACED
from lfpc_rewards.presets.systems.chain_of_focus import INSTRUCTION

COUNT = 4096
GOAL, GOAL_OF_SECONDS = 0.9, 20


def says(reply):
    """A judge that costs nothing."""
    return lambda *columns: [reply] * len(columns[0])


def row(what, ours, theirs, tolerance=1e-9, goal=GOAL):
    np.testing.assert_allclose(ours(), theirs(), atol=tolerance)
    return f"`{what}`, {COUNT:,} completions", "the original's loop, restated", goal, ours, theirs


def deepeyes():
    texts, answers = preset_loops.responses(COUNT)
    return row(
        "deepeyes",
        lambda: presets.deepeyes(texts, answers, judge=says("1")).total,
        lambda: preset_loops.deepeyes_loop(texts, answers, "1"),
    )


def deepeyes_reasoning():
    texts, answers = preset_loops.responses(COUNT)
    return row(
        "deepeyes_reasoning",
        lambda: presets.deepeyes_reasoning(texts, answers, judge=says("TRUE")).total,
        lambda: preset_loops.reasoning_loop(texts, answers, "TRUE"),
    )


def verl_deepeyes():
    texts, answers = preset_loops.responses(COUNT)
    return row(
        "verl_deepeyes",
        lambda: presets.verl_deepeyes(texts, answers, judge=says("CORRECT")).total,
        lambda: preset_loops.verl_loop(texts, answers, "CORRECT"),
    )


def mini_o3():
    turns = preset_loops.turns(COUNT)
    answers = ["A"] * COUNT
    weights = {"format_weight": 0.5, "tool_penalty": 0.1}
    return row(
        "mini_o3",
        lambda: presets.mini_o3(turns, answers, judge=says("Score: 1"), **weights).total,
        lambda: preset_loops.mini_o3_loop(turns, answers, "Score: 1"),
    )


def vlm_r1():
    texts, golds = preset_loops.referring(COUNT)
    solutions = [f"<answer> {json.dumps(gold)} </answer>" for gold in golds]
    size, shown = (1000, 800), (1008, 812)
    return row(
        "vlm_r1",
        lambda: presets.vlm_r1(texts, golds, image_sizes=size, shown_sizes=shown).total,
        lambda: preset_loops.vlm_r1_loop(texts, solutions, size, shown),
    )


def pixel_reasoner_shaping():
    dice = random.Random(0)
    accuracy = [float(dice.random() < 0.5) for _ in range(COUNT)]
    calls = [dice.choice([0, 0, 0, 0, 1, 2]) for _ in range(COUNT)]
    videos = [dice.random() < 0.2 for _ in range(COUNT)]
    groups = [place // 8 for place in range(COUNT)]
    columns = [np.array(column) for column in (accuracy, calls, videos)]
    return row(
        "pixel_reasoner_shaping",
        lambda: presets.pixel_reasoner_shaping(*columns[:2], groups=groups, videos=columns[2]).total,
        lambda: preset_loops.curiosity_loop(accuracy, calls, videos, 8),
    )


def ms_swift_deepeyes():
    texts, answers = preset_loops.responses(COUNT)
    user = {"role": "user", "content": "<image>Which?"}
    messages = [[user] * (1 + place % 2) for place in range(COUNT)]
    return row(
        "ms_swift_deepeyes",
        lambda: presets.ms_swift_deepeyes(texts, answers, messages=messages, judge=says("1")).total,
        lambda: preset_loops.swift_deepeyes_loop(texts, answers, messages, "1"),
    )


def deepeyes_math():
    texts, answers = preset_loops.responses(COUNT)
    texts = [text.replace("<answer>", "\\boxed{").replace("</answer>", "}") for text in texts]
    return row(
        "deepeyes_math",
        lambda: presets.deepeyes_math(texts, answers, math=preset_loops.PlainMath).total,
        lambda: preset_loops.boxed_loop(texts, answers),
    )


def mini_o3_choice():
    turns = preset_loops.turns(COUNT)
    answers = ["A"] * COUNT
    weights = {"format_weight": 0.5, "tool_penalty": 0.1}
    return row(
        "mini_o3_choice",
        lambda: presets.mini_o3_choice(turns, answers, **weights).total,
        lambda: preset_loops.choice_loop(turns, answers),
    )


def deepeyes_v2():
    texts, answers = preset_loops.responses(COUNT)
    return row(
        "deepeyes_v2",
        lambda: presets.deepeyes_v2(texts, answers, judge=says("\\boxed{Yes}")).total,
        lambda: preset_loops.v2_loop(texts, answers, "\\boxed{Yes}"),
    )


def with_instruction(text):
    """The response, with the sentence that ends every observation of Chain-of-Focus."""
    return text.replace("</tool_response>", f"{INSTRUCTION}</tool_response>")


def chain_of_focus():
    texts, answers = preset_loops.responses(COUNT)
    texts = list(map(with_instruction, texts))
    return row(
        "chain_of_focus",
        lambda: presets.chain_of_focus(texts, answers, judge=says("1")).total,
        lambda: preset_loops.focus_loop(texts, answers, INSTRUCTION, "1"),
    )


def visionthink():
    turns = [
        [text.replace("grounding>", "tool_call>") for text in each] for each in preset_loops.turns(COUNT)
    ]
    answers = ["A"] * COUNT
    return row(
        "visionthink",
        lambda: presets.visionthink(turns, answers, judge=says("Score: 1")).total,
        lambda: preset_loops.visionthink_loop(turns, answers, "Score: 1"),
    )


def zwz():
    texts, answers = preset_loops.responses(COUNT)
    questions = ["Which?\nA one\nB two\nC three\nD four"] * COUNT
    judges = {"judge": says("\\boxed{No}"), "grader": preset_loops.PlainMath}
    rules = REPLACED, REMOVED
    return row(
        "zwz",
        lambda: presets.zwz(texts, answers, questions=questions, **judges).total,
        lambda: preset_loops.zwz_loop(texts, answers, questions, "\\boxed{No}", rules),
    )


def visionthink_shaping():
    dice = random.Random(0)
    formats = [dice.choice([0.0, 0.5]) for _ in range(COUNT)]
    totals = [layout + dice.choice([0.0, 0.9, 0.9, 0.9, 1.0]) for layout in formats]
    groups = [place // 16 for place in range(COUNT)]
    return row(
        "visionthink_shaping",
        lambda: presets.visionthink_shaping(totals, formats, groups=groups),
        lambda: preset_loops.soft_penalty_loop(totals, formats, 16),
    )


def thyme():
    texts, answers = preset_loops.responses(COUNT)
    right, consistent = '{"Correctness": 0}', '{"Consistency": 1}'
    judges = {"judge": says(right), "consistency_judge": says(consistent)}
    return row(
        "thyme",
        lambda: presets.thyme(texts, answers, math=preset_loops.PlainMath, **judges).total,
        lambda: preset_loops.thyme_loop(texts, answers, right, consistent),
    )


def easyr1_r1v():
    texts, answers = preset_loops.responses(COUNT)
    return row(
        "easyr1_r1v",
        lambda: presets.easyr1_r1v(texts, answers, grader=preset_loops.PlainMath).total,
        lambda: preset_loops.r1v_loop(texts, answers),
    )


def formats():
    texts, _ = preset_loops.responses(COUNT)
    yield "ms_swift_format", presets.ms_swift_format, preset_loops.thought_answer_loop, texts
    yield "vlm_r1_format", presets.vlm_r1_format, preset_loops.thought_answer_loop, texts
    yield "trl_think_format", presets.trl_think_format, preset_loops.think_format_loop, texts


def format_case(name, ours, theirs, texts):
    def case():
        return row(name, lambda: ours(texts), lambda: theirs(texts))

    case.__name__ = name
    return case


def trl_repetition():
    tokens = preset_loops.tokens(COUNT)
    return row(
        "trl_repetition",
        lambda: presets.trl_repetition(tokens),
        lambda: preset_loops.token_repetition_loop(tokens, 3),
    )


def ms_swift_repetition():
    texts, _ = preset_loops.responses(COUNT)
    return row(
        "ms_swift_repetition",
        lambda: presets.ms_swift_repetition(texts),
        lambda: preset_loops.word_repetition_loop(texts, 3),
    )


def trl_overlong():
    lengths = np.random.default_rng(0).integers(0, 200, COUNT)
    listed = lengths.tolist()
    return row(
        "trl_overlong",
        lambda: presets.trl_overlong(lengths, longest=100, buffer=20),
        lambda: preset_loops.overlong_loop(listed, 100, 20),
    )


class NoMath:
    """Mathematics that costs nothing and finds nothing equal."""

    parse = staticmethod(lambda _: [])
    verify = staticmethod(lambda *_: False)


def visual_rft():
    texts, golds = preset_loops.detections(COUNT)
    lists = [str([{"Position": box, "Confidence": 1} for box in gold]) for gold in golds]
    solutions = [f"<answer>{text}</answer>" for text in lists]
    return row(
        "visual_rft",
        lambda: presets.visual_rft(texts, golds, math=NoMath).total,
        lambda: preset_loops.visual_rft_loop(texts, solutions, NoMath),
    )


def vision_r1():
    texts, golds = preset_loops.labelled(COUNT)
    solutions = list(map(json.dumps, golds))
    return row(
        "vision_r1",
        lambda: presets.vision_r1(texts, golds, image_sizes=(9, 9), shown_sizes=(9, 9), step=0).total,
        lambda: preset_loops.vision_r1_loop(texts, solutions, 0),
        tolerance=1e-5,
        goal=GOAL_OF_SECONDS,
    )


def seg_zero():
    texts, golds = preset_loops.segments(COUNT)
    return row(
        "seg_zero",
        lambda: presets.seg_zero(texts, golds).total,
        lambda: preset_loops.seg_zero_loop(texts, golds),
    )


def vision_reasoner():
    texts, golds = preset_loops.objects(COUNT)
    solutions = list(map(json.dumps, golds))
    return row(
        "vision_reasoner",
        lambda: presets.vision_reasoner(texts, golds).total,
        lambda: preset_loops.vision_reasoner_loop(texts, solutions),
    )


def perception_r1():
    texts, golds = preset_loops.named_boxes(COUNT)
    solutions = list(map(str, golds))
    return row(
        "perception_r1",
        lambda: presets.perception_r1(texts, golds).total,
        lambda: preset_loops.perception_r1_loop(texts, solutions),
    )


def treevgr():
    texts, golds = preset_loops.traced(COUNT)
    return row(
        "treevgr",
        lambda: presets.treevgr(texts, golds),
        lambda: preset_loops.treevgr_loop(texts, golds),
    )


def se_gui():
    texts, _, _, golds = preset_loops.clicks(COUNT)
    size = (1000, 800)
    return row(
        "se_gui",
        lambda: presets.se_gui(texts, golds, image_sizes=size).total,
        lambda: preset_loops.se_gui_loop(texts, golds, size),
    )


def ui_r1():
    _, texts, _, golds = preset_loops.clicks(COUNT)
    answers = [f"<answer>[{{'action': 'click' ,'coordinate': {box} }}]</answer>" for box in golds]
    return row(
        "ui_r1",
        lambda: presets.ui_r1(texts, answers, scales=(1.0, 1.01)).total,
        lambda: preset_loops.ui_r1_loop(texts, answers, (1.0, 1.01)),
    )


def gui_r1():
    _, _, texts, golds = preset_loops.clicks(COUNT)
    answers = [{"action": "click", "gt_bbox": box, "input_text": ""} for box in golds]
    solutions = list(map(json.dumps, answers))
    return row(
        "gui_r1",
        lambda: presets.gui_r1(texts, answers).total,
        lambda: preset_loops.gui_r1_loop(texts, solutions),
    )


def locus():
    texts, golds = preset_loops.referring(COUNT)
    return row(
        "locus_reward",
        lambda: locus_reward(texts, golds),
        lambda: preset_loops.locus_loop(texts, golds),
    )


def ergo():
    turns, answers = preset_loops.zooms(COUNT)
    questions, images = ["Which?"] * COUNT, list(range(COUNT))
    size, shown, second_model = (4000, 3000), (1148, 868), says("B")
    sizes = {"image_sizes": size, "shown_sizes": shown}
    columns = {"questions": questions, "images": images}
    return row(
        "ergo",
        lambda: presets.ergo(turns, answers, **columns, **sizes, reward_model=second_model).total,
        lambda: preset_loops.ergo_loop(turns, answers, questions, images, size, shown, second_model),
    )


def boxed_responses():
    """The responses with the answer in a box in place of the tag."""
    texts, answers = preset_loops.responses(COUNT)
    return [text.replace("<answer>", "\\boxed{").replace("</answer>", "}") for text in texts], answers


def deepeyes_v2_math():
    texts, answers = preset_loops.responses(COUNT)
    rules = REPLACED, REMOVED
    return row(
        "deepeyes_v2_math",
        lambda: presets.deepeyes_v2_math(texts, answers, judge=says("TRUE")).total,
        lambda: preset_loops.v2_math_loop(texts, answers, "TRUE", rules),
    )


def deepeyes_v2_search():
    texts, answers = preset_loops.responses(COUNT)
    return row(
        "deepeyes_v2_search",
        lambda: presets.deepeyes_v2_search(texts, answers, judge=says("\\boxed{Yes}")).total,
        lambda: preset_loops.v2_search_loop(texts, answers, "\\boxed{Yes}"),
    )


def chain_of_focus_math():
    texts, answers = preset_loops.responses(COUNT)
    library = preset_loops.PlainMath
    return row(
        "chain_of_focus_math",
        lambda: presets.chain_of_focus_math(texts, answers, math=library, judge=says("FALSE")).total,
        lambda: preset_loops.focus_math_loop(texts, answers, "FALSE"),
    )


def mini_o3_format():
    turns = preset_loops.turns(COUNT)
    return row(
        "mini_o3_format",
        lambda: np.stack(presets.mini_o3_format(turns)),
        lambda: list(zip(*map(preset_loops.turns_format, turns), strict=True)),
    )


def easyr1_math():
    texts, answers = boxed_responses()
    return row(
        "easyr1_math",
        lambda: presets.easyr1_math(texts, answers, grader=preset_loops.PlainMath).total,
        lambda: preset_loops.easyr1_math_loop(texts, answers),
    )


def easyr1_dapo():
    texts, answers = preset_loops.responses(COUNT)
    texts = [text.replace("<answer>", "\nAnswer: ").replace("</answer>", "") for text in texts]
    lengths = tokens_of(COUNT)
    options = {"longest": 100, "overlong_buffer": 20}
    rules = REPLACED, REMOVED
    return row(
        "easyr1_dapo",
        lambda: presets.easyr1_dapo(texts, answers, lengths=lengths, **options).total,
        lambda: preset_loops.dapo_loop(texts, answers, lengths, 100, 20, rules),
    )


def tokens_of(count):
    """How many tokens each response has."""
    return np.random.default_rng(0).integers(0, 200, count).tolist()


def scores_of(count):
    return np.random.default_rng(1).integers(0, 2, count).astype(float).tolist()


def ms_swift_cosine():
    scores, lengths = scores_of(COUNT), tokens_of(COUNT)
    return row(
        "ms_swift_cosine",
        lambda: presets.ms_swift_cosine(scores, lengths, longest=100),
        lambda: preset_loops.swift_cosine_loop(scores, lengths, 100),
    )


def ms_swift_overlong():
    lengths = tokens_of(COUNT)
    return row(
        "ms_swift_overlong",
        lambda: presets.ms_swift_overlong(lengths, longest=100, buffer=20),
        lambda: preset_loops.swift_overlong_loop(lengths, 100, 20),
    )


def trl_cosine():
    scores, lengths = scores_of(COUNT), tokens_of(COUNT)
    return row(
        "trl_cosine",
        lambda: presets.trl_cosine(scores, lengths, longest=100),
        lambda: preset_loops.trl_cosine_loop(scores, lengths, 100),
    )


def trl_accuracy():
    texts, answers = boxed_responses()
    return row(
        "trl_accuracy",
        lambda: presets.trl_accuracy(texts, answers, math=preset_loops.PlainLatex),
        lambda: preset_loops.trl_accuracy_loop(texts, answers),
    )


def trl_reasoning_accuracy():
    texts, answers = boxed_responses()
    return row(
        "trl_reasoning_accuracy",
        lambda: presets.trl_reasoning_accuracy(texts, answers, math=preset_loops.PlainLatex),
        lambda: preset_loops.trl_reasoning_loop(texts, answers),
    )


def visual_rft_lisa():
    texts, solutions = preset_loops.corners(COUNT)
    return row(
        "visual_rft_lisa",
        lambda: presets.visual_rft_lisa(texts, solutions, math=NoMath).total,
        lambda: preset_loops.lisa_loop(texts, solutions, NoMath),
    )


def perception_r1_think_format():
    texts, _ = preset_loops.responses(COUNT)
    texts = [text.replace("\n", "") for text in texts]
    return row(
        "perception_r1_think_format",
        lambda: presets.perception_r1_think_format(texts),
        lambda: preset_loops.line_format_loop(texts),
    )


def pixel_reasoner_accuracy():
    texts, answers = boxed_responses()
    golds = [f"\\boxed{{{answer}}}" for answer in answers]
    return row(
        "pixel_reasoner_accuracy",
        lambda: presets.pixel_reasoner_accuracy(texts, golds, math=preset_loops.PlainMath),
        lambda: preset_loops.rule_loop(texts, golds),
    )


def pixel_reasoner():
    texts, answers = boxed_responses()
    golds = [f"\\boxed{{{answer}}}" for answer in answers]
    groups = [place // 8 for place in range(COUNT)]
    return row(
        "pixel_reasoner",
        lambda: presets.pixel_reasoner(texts, golds, groups=groups, math=preset_loops.PlainMath).total,
        lambda: preset_loops.pixel_reasoner_loop(texts, golds, 8),
    )


def vlm_accuracies():
    texts, answers = preset_loops.responses(COUNT)
    words, sentences = preset_loops.sentences(COUNT)
    listed, lists = preset_loops.labelled_answers(COUNT)
    tagged = [f"<answer> {answer} </answer>" for answer in answers]
    yield "default", preset_loops.any_score, words, sentences
    yield "mcq", preset_loops.option_score, texts, tagged
    yield "yes_no", preset_loops.yes_no_score, words, sentences
    yield "all_match", preset_loops.all_match_score, texts, tagged
    yield "detection", preset_loops.detection_score, listed, lists


def accuracy_case(method, score, texts, solutions):
    def case():
        options = {"method": method, "math": preset_loops.PlainMath}
        return row(
            f"vlm_r1_accuracy`, `{method}",
            lambda: presets.vlm_r1_accuracy(texts, solutions, **options),
            lambda: preset_loops.vlm_accuracy_loop(texts, solutions, score),
        )

    case.__name__ = f"vlm_r1_accuracy_{method}"
    return case


def vlm_r1_repetition():
    listed, spoken = preset_loops.labelled_answers(COUNT)[0], preset_loops.responses(COUNT)[0]
    texts = listed[::2] + spoken[::2]
    return row(
        "vlm_r1_repetition",
        lambda: presets.vlm_r1_repetition(texts),
        lambda: preset_loops.object_repetition_loop(texts),
    )


CASES = [
    deepeyes,
    deepeyes_reasoning,
    deepeyes_math,
    verl_deepeyes,
    ms_swift_deepeyes,
    deepeyes_v2,
    deepeyes_v2_math,
    deepeyes_v2_search,
    chain_of_focus,
    chain_of_focus_math,
    mini_o3,
    mini_o3_choice,
    mini_o3_format,
    visionthink,
    zwz,
    visionthink_shaping,
    thyme,
    easyr1_r1v,
    easyr1_math,
    easyr1_dapo,
    vlm_r1,
    *(accuracy_case(*each) for each in vlm_accuracies()),
    vlm_r1_repetition,
    *(format_case(*each) for each in formats()),
    trl_accuracy,
    trl_reasoning_accuracy,
    trl_repetition,
    ms_swift_repetition,
    trl_cosine,
    ms_swift_cosine,
    trl_overlong,
    ms_swift_overlong,
    pixel_reasoner,
    pixel_reasoner_accuracy,
    pixel_reasoner_shaping,
    visual_rft,
    visual_rft_lisa,
    vision_r1,
    seg_zero,
    vision_reasoner,
    perception_r1,
    perception_r1_think_format,
    treevgr,
    se_gui,
    ui_r1,
    gui_r1,
    locus,
    ergo,
]
"""The rows of the table on presets."""
