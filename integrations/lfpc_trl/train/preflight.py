"""Preflight checks with the real processor and rows: do pictures, prompts and budgets fit the model?

"Image features and image tokens do not match" can end a training run hours after its start or, inside TRL,
silently drop all pictures of a batch. So prompts are tokenised here as in TRL, with the shown picture and
with the largest crop that a rollout can request.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lfpc_rewards import Frame, convert_frame
from lfpc_rewards.parsing import is_image
from lfpc_trl.data.rows import Picture, Problem, Row, in_one_line
from lfpc_trl.errors import UserError, one_line
from lfpc_trl.locus.task import CuePrompt
from lfpc_trl.pictures.crops import MAX_CROP_ASPECT, BoxError
from lfpc_trl.pictures.originals import load_original
from lfpc_trl.pictures.sizes import Size, shown_size, tokens_of
from lfpc_trl.rollouts.crop_tool import TOOL_NAME, CropSettings, environment_for
from lfpc_trl.rollouts.prompts import Message, build_prompt, question_text

SAMPLE = 64
"""Rows whose pictures are decoded before training. Our choice: takes seconds, finds systematic mistakes."""


@dataclass(frozen=True)
class PreflightReport:
    """What `preflight` found.

    Attributes:
        rows: number of rows.
        decoded: number of rows whose picture and largest crop, or whose cue, went through the processor.
        longest_prompt: tokens of the longest prompt, pictures included.
        longest_row: the row with the longest prompt.
        rollout_tokens: tokens of the shortest rollout with one full-size crop and an answer; with cues, of
            an answer alone.
        problems: by row or setting; training would fail or use the wrong inputs.
        warnings: in the same form; training would still run.
    """

    rows: int
    decoded: int
    longest_prompt: int
    longest_row: str
    rollout_tokens: int
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)

    def check(self) -> None:
        """Raise the first problem.

        Raises:
            UserError: the first problem, and how many more there are.
        """
        if self.problems:
            raise UserError(in_one_line(self.problems))


def preflight(
    processor: Any,
    rows: Sequence[Row],
    crops: CropSettings,
    *,
    trajectory_tokens: int | None = None,
    context: int | None = None,
    cues: CuePrompt | None = None,
    sample: int | None = SAMPLE,
    progress: Callable[[int], object] | None = None,
) -> PreflightReport:
    """Check on the real rows that pictures, prompts and budgets fit the model.

    All rows are checked for sizes, prompt length and spelled-out special tokens. A sample, which always
    includes the row with the longest prompt, is also tokenised as TRL does it, with the real picture and
    then with its largest crop: image tokens must equal image features, and the processor must not resize
    the pictures.

    Args:
        processor: from `processors.load_processor`.
        rows: at least one.
        crops: how crops are cut.
        trajectory_tokens: limit on a whole rollout, crops included (TRL's `max_completion_length`).
        context: tokens that the model, or the engine that generates, can read at once.
        cues: how cues are shown, if the rows are cues of LOCUS; there is no crop tool then.
        sample: number of rows whose pictures are decoded, evenly spread; None for all.
        progress: called with the number of rows decoded since the last call.

    Raises:
        ValueError: no rows.
    """
    if not rows:
        raise ValueError("rows must hold at least one row, got none")
    problems = _setting_problems(processor, crops)
    if problems:  # all counts would be wrong with these settings
        return PreflightReport(len(rows), 0, 0, "", 0, problems)
    fitting = []
    for row in rows:
        problem = _row_problem(processor, row)
        if problem is None:
            fitting.append(row)
        else:
            problems.append(problem)
    if not fitting:
        return PreflightReport(len(rows), 0, 0, "", 0, problems)
    lengths = _own_lengths(processor, fitting, cues)
    counts = [len(row.pictures) for row in fitting]
    chosen = _sampled(lengths, counts, sample)
    constants = dict.fromkeys(counts, 0)  # prompt tokens shared by all rows with that many pictures
    for index in chosen:
        prompt, problem = _decode(processor, fitting[index], crops, cues)
        if problem is not None:
            problems.append(problem)
        else:
            constants[counts[index]] = max(constants[counts[index]], prompt - lengths[index])
        if progress is not None:
            progress(1)
    prompts = [constants[count] + length for count, length in zip(counts, lengths, strict=True)]
    overhead = _rollout_overhead(processor, cues)
    largest = [0 if cues is not None else _largest_crop(row, crops) for row in fitting]
    rollouts = [overhead + tokens for tokens in largest]
    subject, turns = "an answer needs", "an answer"
    if cues is None:
        subject = f"one crop of {max(largest)} visual tokens and an answer need"
        turns = "one crop and an answer"
    if trajectory_tokens is not None and max(rollouts) > trajectory_tokens:
        rule = f"{subject} {max(rollouts)} tokens, got {trajectory_tokens}"
        problems.insert(0, Problem("trajectory_tokens", rule))
    for row, prompt, rollout in zip(fitting, prompts, rollouts, strict=True):
        if context is not None and prompt + rollout > context:
            rule = f"its prompt ({prompt} tokens), {turns} ({rollout}) must fit the context"
            problems.append(Problem(row.name, f"{rule}, got {context}"))
    warnings = []
    left = math.inf if context is None else context - max(prompts)
    if not problems and (trajectory_tokens or 0) > left:
        rule = f"rollouts of the longest prompt end after {left} tokens, where the context ends"
        warnings.append(Problem("trajectory_tokens", f"{rule}, got {trajectory_tokens}"))
    longest = int(np.argmax(prompts))
    return PreflightReport(
        len(rows), len(chosen), prompts[longest], fitting[longest].name, max(rollouts), problems, warnings
    )


def _sampled(lengths: Sequence[int], counts: Sequence[int], sample: int | None) -> list[int]:
    """Indices of the rows to decode: evenly spread, plus the longest for each number of pictures."""
    number = len(lengths) if sample is None else min(sample, len(lengths))
    spread = np.linspace(0, len(lengths) - 1, number).astype(int).tolist()
    longest = [int(np.argmax(np.where(np.equal(counts, count), lengths, -1))) for count in set(counts)]
    return sorted({*longest, *spread})


# --- without decoding -------------------------------------------------------------------------------


def _setting_problems(processor: Any, crops: CropSettings) -> list[Problem]:
    from lfpc_trl.models import processors

    family, side, limit = processor.family, processors.factor(processor), processors.token_limit(processor)
    rules = [
        (
            family.frame is not None and crops.frame is not family.frame,
            Problem("frame", f"{family.name} counts in {family.frame}, got {Frame(crops.frame).value}"),
        ),
        (
            crops.factor != side,
            Problem("factor", f"a visual token of this model is {side} pixels wide, got {crops.factor}"),
        ),
        (
            not 1 <= crops.crop_tokens <= limit,
            Problem("crop_tokens", f"must be from 1 to {limit} (this processor), got {crops.crop_tokens}"),
        ),
    ]
    return [problem for is_broken, problem in rules if is_broken]


def _row_problem(processor: Any, row: Row) -> Problem | None:
    from lfpc_trl.models import processors

    side, limit = processors.factor(processor), processors.token_limit(processor)
    if row.shown_sizes is None:
        rule = "no shown_size; choose it with 'lfpc select-resolution' or with --shown-tokens"
        return Problem(row.name, rule)
    for size in row.shown_sizes:
        if any(length % side for length in size):
            rule = f"shown_size must be multiples of {side} (this model), got {list(size)}"
            return Problem(row.name, rule)
        tokens = tokens_of(size, side)
        if tokens > limit:
            rule = f"shown_size must have at most {limit} visual tokens, got {tokens} ({list(size)})"
            return Problem(row.name, rule)
    text = question_text(row)
    spelled = [token for token in processor.special_tokens if token in text]
    if spelled:
        return Problem(row.name, f"question and choices must not spell {spelled[0]!r}")
    return None


def _own_lengths(processor: Any, rows: Sequence[Row], cues: CuePrompt | None) -> list[int]:
    """Prompt tokens that differ between rows: pictures, and the question or cue."""
    from lfpc_trl.models import processors

    if cues is not None:
        return [sum(tokens_of(size, cues.factor) for size in cues.sizes(row)) for row in rows]
    texts = [question_text(row) for row in rows]
    ids = processor.tokenizer(texts, add_special_tokens=False)["input_ids"]
    side = processors.factor(processor)
    return [
        len(each) + sum(tokens_of(size, side) for size in row.shown_sizes or ())
        for each, row in zip(ids, rows, strict=True)
    ]


def _largest_crop(row: Row, crops: CropSettings) -> int:
    """Visual tokens of the largest possible crop: a whole picture, or the limit on crops."""
    whole = (native_size(picture.size, crops.factor) for picture in row.pictures)
    return min(crops.crop_tokens, max(tokens_of(size, crops.factor) for size in whole))


def native_size(size: Size, factor: int) -> Size:
    """A picture's own size rounded to whole visual tokens, without a limit.

    Args:
        size: (width, height) in pixels.
        factor: pixels per token side.
    """
    return shown_size(size, 10**9, factor=factor)


def _rollout_overhead(processor: Any, cues: CuePrompt | None) -> int:
    """Tokens of the shortest rollout with one crop and an answer, without the crop's visual tokens."""
    from trl.data_utils import prepare_multimodal_messages

    box = [0, 0, 1, 1]
    turns = [*crop_turns(box, [{"type": "image"}]), answer_turn("A")]
    if cues is not None:
        turns = [answer_turn(str(box))]
    user, *turns = prepare_multimodal_messages([{"role": "user", "content": "?"}, *turns])
    before = processor.apply_chat_template([user], tokenize=False, add_generation_prompt=True)
    rendered = processor.apply_chat_template([user, *turns], tokenize=False)
    ids = processor.tokenizer(rendered[len(before) :], add_special_tokens=False)["input_ids"]
    return len(ids) - (cues is None)  # the placeholder of the crop


def crop_turns(box: Sequence[float], reply: Any, image: int | None = None) -> list[Message]:
    """A turn that only calls the tool, followed by the tool's message.

    Args:
        box: the requested box, in the model's frame.
        reply: content of the tool's message.
        image: the number of the picture; None if the row has one picture.
    """
    arguments: dict[str, Any] = {"bbox_2d": list(box)} | ({} if image is None else {"image": image})
    call = {"name": TOOL_NAME, "arguments": arguments}
    turn = {
        "role": "assistant",
        "content": "<think></think>",
        "tool_calls": [{"type": "function", "function": call}],
    }
    return [turn, {"role": "tool", "name": TOOL_NAME, "content": reply}]


def answer_turn(answer: str) -> Message:
    """A turn that gives an answer and does nothing else."""
    return {"role": "assistant", "content": f"<think></think><answer>{answer}</answer>"}


# --- with a picture ----------------------------------------------------------------------------------


def _decode(
    processor: Any, row: Row, crops: CropSettings, cues: CuePrompt | None
) -> tuple[int, Problem | None]:
    """Tokenise a row's prompt as TRL does; return its length and a problem, if any."""
    problem = unreadable(row)
    if problem is not None:
        return 0, problem
    if cues is not None:
        return _tokenise(processor, cues(row), cues.sizes(row), None, row)
    environment = environment_for(row, crops)
    prompt = build_prompt(crops.frame, environment.reset(row=row), pictures=len(row.pictures))
    number, largest = max(
        enumerate(row.pictures, start=1), key=lambda numbered: numbered[1].size[0] * numbered[1].size[1]
    )
    box, which = whole_picture(largest, crops.frame), image_argument(row, number)
    try:
        rollout = [*prompt, *crop_turns(box, environment.image_zoom_in_tool(box, **which), **which)]
    except BoxError as error:
        return 0, Problem(row.name, f"no crop of its picture is possible: {error}")
    length = 0
    for messages in (rollout, prompt):
        sizes = [block["image"].size for message in messages for block in _pictures(message)]
        length, problem = _tokenise(processor, messages, sizes, [environment.image_zoom_in_tool], row)
        if problem is not None:
            break
    return length, problem


def unreadable(row: Row) -> Problem | None:
    """The problem of a row whose picture cannot be decoded, although its header was readable."""
    for picture in row.pictures:
        try:
            load_original(picture.image)
        except Exception as error:  # Pillow's decoders raise various errors on damaged files
            rule = f"image must be readable, got {str(picture.image)!r} ({one_line(error)})"
            return Problem(row.name, rule)
    return None


def _tokenise(
    processor: Any, messages: list[Message], sizes: Sequence[Size], tools: Any, row: Row
) -> tuple[int, Problem | None]:
    """Like `GRPOTrainer._tokenize_prompts`: the same messages, tool description and template."""
    from trl.data_utils import prepare_multimodal_messages

    try:
        tokenised = processor.apply_chat_template(
            conversation=[prepare_multimodal_messages(messages)],
            tools=tools,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
        )
    except ValueError as error:  # transformers also compares the number of pictures and placeholders
        rule = f"template and processor must take its pictures, got: {one_line(error)}"
        return 0, Problem(row.name, rule)
    ids, grids = tokenised["input_ids"][0], tokenised["image_grid_thw"].tolist()
    patch, merged = processor.image_processor.patch_size, processor.image_processor.merge_size**2
    expected = [[1, height // patch, width // patch] for width, height in sizes]
    features = sum(int(np.prod(grid)) for grid in grids) // merged
    tokens = list(ids).count(processor.image_token_id)
    if grids != expected:
        rule = f"the processor must leave pictures of {list(map(list, sizes))} pixels as they are"
        return len(ids), Problem(row.name, f"{rule}, got patches {grids}")
    if tokens != features:
        rule = f"{features} image features need as many image tokens, got {tokens}"
        return len(ids), Problem(row.name, rule)
    return len(ids), None


def _pictures(message: Message) -> list[Any]:
    content = message["content"]
    return [block for block in content if is_image(block)] if isinstance(content, list) else []


def image_argument(row: Row, number: int) -> dict[str, Any]:
    """The tool's `image` argument, if the row has several pictures."""
    return {"image": number} if len(row.pictures) > 1 else {}


def whole_picture(picture: Picture, frame: Frame) -> list[float]:
    """The box of a whole picture, in whole numbers of `frame`; a long strip is cut to `MAX_CROP_ASPECT`."""
    size = picture.size
    longest = MAX_CROP_ASPECT * min(size)
    box = [0.0, 0.0, min(size[0], longest), min(size[1], longest)]
    moved = convert_frame(
        box, Frame.ORIGINAL, frame, original_size=size, shown_size=picture.shown_size or size
    )
    return [float(np.floor(value)) for value in moved]
