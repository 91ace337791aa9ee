"""The inputs of the benchmarks: made up, seeded, and as unkind as real rollouts are."""

import json
import random

import numpy as np

WIDTH, HEIGHT = 1920, 1080
LETTERS = "ABCD"
OPTIONS = [
    ["red", "blue", "green", "black"],
    ["one", "two", "three", "four"],
    ["left", "right", "above", "below"],
]
WORDS = [
    "the",
    "sign",
    "is",
    "small",
    "so",
    "look",
    "closer",
    "at",
    "its",
    "left",
    "edge",
    "where",
    "words",
    "stand",
]
HAN = "图片里的牌子很小所以需要放大左边的区域再看一次上面写着两个字然后回答问题"


def boxes(count, dtype=np.float64, seed=0):
    """(count, 4) boxes inside the image."""
    random_numbers = np.random.default_rng(seed)
    corners = random_numbers.uniform(0, (WIDTH - 400, HEIGHT - 400), (count, 2))
    return np.hstack([corners, corners + random_numbers.uniform(5, 400, (count, 2))]).astype(dtype)


MASK_WIDTH, MASK_HEIGHT = 640, 480


def blobs(count, dense, seed=0):
    """Masks as COCO's polygons of 24 corners: large ones around the middle, of which any two overlap, or (not
    `dense`) small ones anywhere, of which one pair in a hundred does."""
    random_numbers = np.random.default_rng(seed)
    size = (MASK_WIDTH, MASK_HEIGHT)
    centres = random_numbers.uniform(0, size, (count, 2))
    if dense:
        centres = np.array(size) / 2 + random_numbers.normal(0, 20, (count, 2))
    angles = np.sort(random_numbers.uniform(0, 2 * np.pi, (count, 24)))
    radii = (130 if dense else 16) * random_numbers.uniform(0.6, 1.3, (count, 24))
    corners = centres[:, None] + radii[..., None] * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    return [[each] for each in np.clip(corners, 0, size).reshape(count, -1).tolist()]


def _box(dice):
    x, y = dice.uniform(0, WIDTH - 400), dice.uniform(0, HEIGHT - 400)
    return [round(x, 1), round(y, 1), round(x + dice.uniform(5, 400), 1), round(y + dice.uniform(5, 400), 1)]


def grounding(rollouts, seed=0):
    """(crops, nested targets): 0 to 5 crops and 1 to 5 nested boxes per rollout, as lists of floats."""
    dice = random.Random(seed)
    crops, targets = [], []
    for _ in range(rollouts):
        region = [_box(dice)]
        for _ in range(dice.randint(0, 4)):
            x0, y0, x1, y1 = region[-1]
            grown = [
                x0 - dice.random() * 40,
                y0 - dice.random() * 40,
                x1 + dice.random() * 40,
                y1 + dice.random() * 40,
            ]
            region.append(
                [max(grown[0], 0.0), max(grown[1], 0.0), min(grown[2], WIDTH), min(grown[3], HEIGHT)]
            )
        targets.append(region)
        near = [[number + dice.uniform(-9, 9) for number in region[0]] for _ in range(dice.randint(0, 5))]
        crops.append([box if dice.random() < 0.7 else _box(dice) for box in near])
    return crops, targets


def images_of(crops, seed=0):
    """(crop images, target images): 2 or 3 images per rollout; most crops are of the target's."""
    dice = random.Random(seed)
    seen, wanted = [], []
    for row in crops:
        count = dice.randint(2, 3)
        image = dice.randint(1, count)
        wanted.append([image])
        seen.append([image if dice.random() < 0.7 else dice.randint(1, count) for _ in row])
    return seen, wanted


def _request(dice):
    """The text of a tool call; one in twenty-five is broken or odd."""
    box = [round(number) for number in _box(dice)] if dice.random() < 0.7 else _box(dice)
    call = {"name": "image_zoom_in_tool", "arguments": {"bbox_2d": box, "label": "the sign"}}
    text = json.dumps(call)
    odd = dice.random()
    if odd < 0.02:
        return text[:-1]
    return text.replace("sign", "s\\u0069gn") if odd < 0.04 else text


def completions(count, script, seed=0):
    """(texts, answers, choices): single turns of 1 to 2 KB that think, then call tools or answer or both."""
    dice = random.Random(seed)
    texts, answers, choices = [], [], []
    for _ in range(count):
        size = dice.randint(900, 1700)
        if script == "ascii":
            thought = " ".join(dice.choices(WORDS, k=size // 5))
        else:
            thought = "".join(dice.choices(HAN, k=size // 3))
        thought += dice.choice(["", "", " where a < b", " as <b> and </b> say"])
        options = dice.choice(OPTIONS)
        right = dice.randrange(4)
        said = right if dice.random() < 0.6 else dice.randrange(4)
        answer = dice.choice([LETTERS[said], f"({LETTERS[said]})", f"{LETTERS[said]}.", options[said]])
        calls = "".join(
            f"\n<tool_call>\n{_request(dice)}\n</tool_call>" for _ in range(dice.choice([0, 0, 1, 1, 2, 3]))
        )
        reply = f"\n<answer>{answer}</answer>" if not calls or dice.random() < 0.2 else ""
        opening = "<think>" if dice.random() < 0.95 else ""
        texts.append(f"{opening}{thought}</think>{calls}{reply}")
        answers.append(LETTERS[right])
        choices.append(options)
    return texts, answers, choices


def rollouts(count, seed=0):
    """The same questions as lists of messages: one turn with a call, a crop, one turn with the answer."""
    dice = random.Random(seed)
    _, answers, choices = completions(count, "ascii", seed)
    chats = []
    for right in answers:
        thought = " ".join(dice.choices(WORDS, k=100))
        said = right if dice.random() < 0.6 else dice.choice(LETTERS)
        chats.append(
            [
                {
                    "role": "assistant",
                    "content": f"<think>{thought}</think><tool_call>{_request(dice)}</tool_call>",
                },
                {"role": "tool", "content": [{"type": "image"}]},
                {"role": "assistant", "content": f"<think>{thought}</think><answer>{said}</answer>"},
            ]
        )
    return chats, answers, choices
