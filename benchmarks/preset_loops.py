"""Plain re-statements of the originals' loops over samples: the peers of the presets.

Each is what the original does for one sample: every pattern as often as it is searched for, every text
as often as it is parsed. The judge's reply or the mathematics is replaced by a constant; the prompt for the
judge, log files and prints are left out. So the loops are somewhat faster than the originals. Gold answers
are handed over in the form that the original's data set has, which is text for most.
"""

import json
import math
import random
import re

import data
import numpy as np

IMAGE = "<|vision_start|>" + "<|image_pad|>" * 16 + "<|vision_end|>"


def responses(count, seed=0):
    """(decoded responses, gold answers): the texts of `data.completions`, every third after a zoom."""
    texts, answers, _ = data.completions(count, "ascii", seed)
    dice = random.Random(seed)
    zoomed = []
    for text in texts:
        if dice.random() < 0.33:
            box = '{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [1, 2, 90, 80]}}'
            call = f"<tool_call>{box}</tool_call>"
            seen = f"<|im_end|>\n<|im_start|>user\n<tool_response>{IMAGE}</tool_response><|im_end|>\n"
            text = f"<think>closer</think>{call}{seen}<|im_start|>assistant\n{text}"
        zoomed.append(text)
    return zoomed, [answer if isinstance(answer, str) else "A" for answer in answers]


def turns(count, seed=0):
    """Lists of assistant turns: one to three, all but the last with a call."""
    dice = random.Random(seed)
    call = '<grounding>{"bbox_2d": [0.1, 0.2, 0.3, 0.4], "source": "original_image"}</grounding>'

    def words():
        return " ".join(dice.choices(data.WORDS, k=dice.randint(20, 120)))

    return [
        [
            *(f"<think>{words()}</think>{call}" for _ in range(dice.randint(0, 2))),
            f"<think>{words()}</think><answer>{dice.choice(data.LETTERS)}</answer>",
        ]
        for _ in range(count)
    ]


def referring(count, seed=0):
    """(texts with one box, gold boxes)."""
    dice = random.Random(seed)
    texts, golds = [], []
    for _ in range(count):
        x, y = dice.randrange(800), dice.randrange(600)
        thought = " ".join(dice.choices(data.WORDS, k=dice.randint(40, 200)))
        box = [x, y, x + dice.randrange(20, 200), y + 90]
        found = json.dumps([{"bbox_2d": box, "label": "sign"}])
        texts.append(f"<think>{thought}</think>\n<answer>```json\n{found}\n```</answer>")
        golds.append([x + 5, y - 5, x + 100, y + 80])
    return texts, golds


def deepeyes_loop(texts, answers, reply):
    out = []
    for text, _ in zip(texts, answers, strict=True):
        wrong = text.count("<think>") != text.count("</think>")
        images = text.count("<|vision_start|><|image_pad|>")
        wrong |= images != text.count("<|image_pad|><|vision_end|>")
        tail = text.split("</think>")[-1].strip()
        wrong |= tail.count("<answer>") != tail.count("</answer>")
        answer = text.split("<answer>")[-1].split("</answer>")[0].strip()
        said = reply.strip()
        verdict = said.split("Judgement:")[-1].strip()
        right = "1" in verdict if "Judgement:" in said else said == "1"
        if len(answer) >= 1000:
            right, wrong = False, True
        out.append(0.8 * right - 0.2 * wrong + 1.2 * (images > 0 and right))
    return out


def reasoning_loop(texts, answers, reply):
    out = []
    for text, _ in zip(texts, answers, strict=True):
        wrong = text.count("<think>") != text.count("</think>")
        images = text.count("<|vision_start|><|image_pad|>")
        wrong |= images != text.count("<|image_pad|><|vision_end|>")
        tail = text.split("</think>")[-1].strip()
        wrong |= tail.count("<answer>") != tail.count("</answer>")
        found = re.search(r"<answer>(.*?)</answer>", tail, re.DOTALL)
        answer = found.group(1).strip() if found else None
        right = False
        if not answer or len(answer) >= 1000:
            wrong = True
        else:
            verdict = reply.split("## Equivalence Judgement")[-1].lower()
            right = "true" in verdict and "false" not in verdict
        out.append(0.8 * right - 0.2 * wrong + 1.2 * (images > 0 and right))
    return out


def verl_loop(texts, answers, reply):
    out = []
    for text, _ in zip(texts, answers, strict=True):
        wrong = text.count("<think>") != text.count("</think>")
        tail = text.split("</think>")[-1].strip() if "</think>" in text else text.strip()
        wrong |= tail.count("<answer>") != tail.count("</answer>")
        found = re.search(r"<answer>(.*?)</answer>", tail, re.DOTALL)
        if found:
            answer = found.group(1).strip()
        else:
            wrong = True
            after = re.search(r"</tool_response>\s*assistant\s*\n(.*?)$", tail, re.DOTALL | re.MULTILINE)
            if after:
                answer = after.group(1).strip()
            else:
                answer = re.sub(r"<tool_call>.*?</tool_call>", "", tail, flags=re.DOTALL)
                answer = re.sub(r"<tool_response>.*?</tool_response>", "", answer, flags=re.DOTALL)
                answer = re.sub(r"\b(user|assistant)\b", "", answer).strip()
        if not answer:
            wrong, answer = True, text.strip()
        right = re.search(r"\bCORRECT\b", reply, re.IGNORECASE) is not None
        if len(answer) >= 1000:
            right, wrong = False, True
        used = re.search(r"<tool_call>.*?</tool_call>", text, re.DOTALL) or re.search(
            r"<tool_response>.*?</tool_response>", text, re.DOTALL
        )
        out.append(0.8 * right - 0.2 * wrong + 1.2 * (used is not None and right))
    return out


def turns_format(turns_, call="grounding"):
    def is_answer(text):
        tags = ("<think>", "</think>", "<answer>", "</answer>")
        return bool(
            re.match(r"^<think>.*</think>.*<answer>.*</answer>$", text, re.DOTALL)
            and all(text.count(tag) == 1 for tag in tags)
            and f"<{call}>" not in text
            and f"</{call}>" not in text
        )

    def is_call(text):
        return bool(
            re.match(rf"^<think>.*</think>.*<{call}>.*</{call}>$", text, re.DOTALL)
            and text.count("<think>") == text.count("</think>") == 1
            and not (text.count(f"<{call}>") != 1 and text.count(f"</{call}>") != 1)
            and "<answer>" not in text
            and "</answer>" not in text
        )

    calls, all_calls = 0, True
    if len(turns_) == 1:
        text = turns_[0].strip()
        calls += len(re.findall(rf"<{call}>(.*?)</{call}>", text, re.DOTALL)) > 0
        return is_answer(text), calls
    for turn in turns_[:-1]:
        text = turn.strip()
        calls += len(re.findall(rf"<{call}>(.*?)</{call}>", text, re.DOTALL)) > 0
        if not is_call(text):
            all_calls = False
            break
    answered = is_answer(turns_[-1])  # also where the turns before it are malformed
    return all_calls and answered, calls


def mini_o3_loop(rows, answers, reply):
    out = []
    for turns_, _ in zip(rows, answers, strict=True):
        right = 0.0
        if re.search(r"<answer>(.*?)</answer>", " ".join(turns_), re.DOTALL):
            word = reply.lower().split("score:")[-1].strip().split("\n")[0].strip().split(" ")[0]
            right = float("1" in word)
        good, calls = turns_format(turns_)
        out.append((0.9 if calls else 1.0) * right + 0.5 * good)
    return out


def vlm_r1_loop(texts, solutions, size, shown):
    shape = r"<think>.*?</think>\s*<answer>.*?\{.*\[\d+,\s*\d+,\s*\d+,\s*\d+\].*\}.*?</answer>"
    out = []
    for text, solution in zip(texts, solutions, strict=True):
        gold = json.loads(re.findall(r"<answer>(.*?)</answer>", solution, re.DOTALL)[-1].strip())
        reward = 0.0
        found = re.search(r"<answer>(.*?)</answer>", text, re.DOTALL)
        box = found and re.search(r"\[(\d+),\s*(\d+),\s*(\d+),\s*(\d+)]", found.group(1).strip())
        if box:
            a = [int(box.group(k + 1)) / shown[k % 2] * size[k % 2] for k in range(4)]
            x0, y0 = max(a[0], gold[0]), max(a[1], gold[1])
            x1, y1 = min(a[2] - 1, gold[2] - 1), min(a[3] - 1, gold[3] - 1)
            shared = (x1 - x0 + 1) * (y1 - y0 + 1) if x0 < x1 and y0 < y1 else 0
            union = (a[2] - a[0]) * (a[3] - a[1]) + (gold[2] - gold[0]) * (gold[3] - gold[1]) - shared
            reward = shared / union if union else 0.0
        out.append(reward + (re.search(shape, text, re.DOTALL) is not None))
    return out


def curiosity_loop(accuracy, calls, videos, size):
    out = []
    for start in range(0, len(accuracy), size):
        counts = calls[start : start + size]
        share = np.mean([count > 0 for count in counts])  # as the original
        group = zip(accuracy[start : start + size], counts, videos[start : start + size], strict=True)
        for score, count, video in group:
            if count > 0:
                curiosity = max(0.3 - share, 0.0) / (1.5 if video else 2.0) / share * 0.25
                score += curiosity - 0.05 * (count - 1)
            out.append(score)
    return out


# --- the same text, other rules ------------------------------------------------------------------------


class PlainMath:
    """Stands for the libraries of mathematics, which cost the same on both sides."""

    parse = staticmethod(lambda text: [text])
    verify = staticmethod(lambda gold, answer: gold == answer)
    grade_answer = staticmethod(lambda answer, gold: answer == gold)


def swift_deepeyes_loop(texts, answers, messages, reply):
    out = []
    for text, _, conversation in zip(texts, answers, messages, strict=True):
        wrong = text.count("<think>") != text.count("</think>")
        wrong |= text.count("<tool_call>") != text.count("</tool_call>")
        tail = text.split("</think>")[-1].strip()
        wrong |= tail.count("<answer>") != tail.count("</answer>")
        answer = text.split("<answer>")[-1].split("</answer>")[0].strip()
        right = reply.strip() == "1"
        if len(answer) >= 1000:
            right, wrong = False, True
        images = [m for m in conversation if m["role"] == "user" and "<image>" in m["content"]]
        out.append(0.8 * right - 0.2 * wrong + 1.2 * (len(images) > 1 and right))
    return out


def boxed_loop(texts, answers):
    out = []
    for text, gold in zip(texts, answers, strict=True):
        wrong = text.count("<think>") != text.count("</think>")
        tail = text.split("</think>")[-1].strip()
        boxes = re.findall(r"\\boxed{([^}]+)}", tail, flags=re.DOTALL)
        wrong |= len(boxes) != 1
        right = bool(boxes) and PlainMath.verify(PlainMath.parse(gold), PlainMath.parse(boxes[-1]))
        out.append(1.2 * right - 0.4 * wrong)
    return out


def choice_loop(rows, answers):
    out = []
    for turns_, gold in zip(rows, answers, strict=True):
        found = re.findall(r"<answer>(.*?)</answer>", turns_[-1].strip(), re.DOTALL)
        said = found[-1] if found else None
        forms = [re.match(r"\(([A-Z])\)", said), re.match(r"([A-Z])\.", said)] if found else []
        right = said is not None and said.strip() == gold.strip()
        right = right or any(form and form.group(1) == gold for form in forms)
        good, calls = turns_format(turns_)
        out.append((0.9 if calls else 1.0) * right + 0.5 * good)
    return out


def v2_read(text):
    """(whether the response is ill formed, its answer), as all three rewards of DeepEyesV2 begin."""
    text = text if text.startswith("<think>") else "<think>" + text
    thoughts = text.count("<think>"), text.count("</think>")
    wrong = thoughts[0] != thoughts[1] or 0 in thoughts
    wrong |= text.count("<code>") != text.count("</code>")
    text.count("stderr:\n```\n\n```\n\n")  # which nothing uses
    tail = text.split("</think>")[-1].strip()
    tags = tail.count("<answer>"), tail.count("</answer>")
    wrong |= tags[0] != tags[1] or 0 in tags
    found = re.search(r"<answer>(.*?)</answer>", tail, re.DOTALL)
    answer = found.group(1).strip() if found else None
    return wrong or not answer, answer


def v2_judged(answer, reply):
    if answer and len(answer) >= 300:
        return False
    return "Yes" in reply.split("boxed{")[-1].strip().split("}")[0].strip()


def v2_loop(texts, answers, reply):
    out = []
    for text, _ in zip(texts, answers, strict=True):
        wrong, answer = v2_read(text)
        wrong |= len(answer or "") >= 300
        out.append(0.8 * v2_judged(answer, reply) + 0.2 * (not wrong))
    return out


def v2_search_loop(texts, answers, reply):
    out = []
    for text, _ in zip(texts, answers, strict=True):
        wrong, answer = v2_read(text)
        calls = text.count("<tool_call>")
        wrong |= calls != text.count("</tool_call>") or len(answer or "") >= 300
        out.append(0.8 * v2_judged(answer, reply) * (0.9 if calls else 1.0) + 0.2 * (not wrong))
    return out


def v2_math_loop(texts, answers, reply, rules):
    out = []
    for text, gold in zip(texts, answers, strict=True):
        wrong, answer = v2_read(text)
        right = bool(answer and tidied(answer, rules) and gold) and is_equivalent(reply)
        out.append(0.8 * right + 0.2 * (not wrong))
    return out


def is_equivalent(reply):
    verdict = reply.split("## Equivalence Judgement")[-1].lower()
    return "true" in verdict and "false" not in verdict


def last_answer(text):
    found = re.compile(r"<answer>\s*(.*?)\s*</answer>", re.DOTALL).findall(text)
    return found[-1].strip() if found else ""


def focus_format(text):
    thoughts = text.count("<think>"), text.count("</think>")
    wrong = thoughts[0] != thoughts[1] or 0 in thoughts
    tags = text.count("<answer>"), text.count("</answer>")
    wrong |= tags[0] != tags[1] or 0 in tags
    return not wrong and len(last_answer(text).split()) <= 1000


def focus_loop(texts, answers, instruction, reply):
    out = []
    for text, _ in zip(texts, answers, strict=True):
        bare = text.replace(instruction, "")
        last_answer(bare)  # for the judge, and once more for the format
        said = reply.strip()
        right = "1" in said.split("Judgement:")[-1] if "Judgement:" in said else said == "1"
        out.append(0.9 * right + 0.1 * focus_format(bare))
    return out


def focus_math_loop(texts, answers, reply):
    out = []
    for text, gold in zip(texts, answers, strict=True):
        said = last_answer(text)
        right = bool(said) and (
            PlainMath.verify(PlainMath.parse(gold), PlainMath.parse(said)) or is_equivalent(reply)
        )
        out.append(0.9 * right + 0.1 * focus_format(text))
    return out


TIDIED = [
    (r"(.*?)(\$)(.*?)(\$)(.*)", "$\\3$"),
    *((rf"(\\{name}\{{)(.*?)(\}})", "\\2") for name in ("text", "textbf", "overline")),
    (r"(\\boxed\{)(.*)(\})", "\\2"),
    (r"(frac)([^{])(.)", "frac{\\2}{\\3}"),
    (r"(sqrt)([^{])", "sqrt{\\2}"),
]


def tidied(text, rules):
    """`rules`: what is replaced and what is removed, the tables that both sides take from Minerva."""
    replaced, removed = rules
    text = text.split("=")[-1]
    for before, after in replaced:
        text = text.replace(before, after)
    for word in removed:
        text = text.replace(word, "")
    for pattern, after in TIDIED:
        text = re.sub(pattern, after, text)
    text = text.replace("$", "")
    return (text.replace(",", "") if text.replace(",", "").isdigit() else text).strip()


def zwz_loop(texts, answers, questions, reply, rules):
    def is_right(said, gold, question):
        lines = re.findall(r"(?i)Answer\s*:\s*([^\n]+)", said)
        if tidied(lines[-1] if lines else "[INVALID]", rules) == tidied(gold, rules):
            return True
        if "A" in question and len(re.findall(r"\n", question)) >= 2:
            option = re.match(r"^[ (\[]*([A-F])(?:(?=$)|[\.\)\]]|(?:[\:\-]\s+))", gold.strip())
            forms = (r"\(([A-Z])\)", r"([A-Z])[\.\)\s]", r"([A-Z])")
            found = option and next((named for form in forms if (named := re.search(form, said))), None)
            if found and found.group(1) == option.group(1):
                return True
        if PlainMath.grade_answer(said, gold):
            return True
        box = re.search(r"boxed\{(.*?)\}", reply, re.DOTALL)
        return "Yes" in (box.group(1).strip() if box else reply)

    out = []
    for text, gold, question in zip(texts, answers, questions, strict=True):
        re.search(re.compile(r"<answer>.*?</answer>", re.DOTALL), text)  # the format, which weighs nothing
        found = re.search(r"<answer>(.*?)</answer>", text)
        said = found.group(1).strip() if found else text.strip()
        out.append(float(0 < len(said) < 300 and is_right(said, gold, question)))
    return out


def soft_penalty_loop(totals, formats, size):
    """The original's group rule, a group at a time."""
    out = []
    for start in range(0, len(totals), size):
        formats_ = np.array(formats[start : start + size], np.float32)
        paid = np.array(totals[start : start + size], np.float32) - formats_
        direct = paid == np.float32(1.0)
        share = np.float32(direct.sum()) / (np.float32((paid > 0).sum()) + np.float32(1e-4))
        if 0 < share < 0.2:
            paid[direct] = np.float32(0.9)
        out.extend((paid + formats_).tolist())
    return out


def thought_answer_loop(texts):
    pattern = r"^<think>.*?</think>\s*<answer>.*?</answer>(?![\s\S])"
    return [1.0 if re.match(pattern, text, re.DOTALL | re.MULTILINE) else 0.0 for text in texts]


def think_format_loop(texts):
    pattern = r"^<think>(?!.*<think>)(.*?)</think>.*$"
    return [1.0 if re.match(pattern, text, re.DOTALL | re.MULTILINE) else 0.0 for text in texts]


def r1v_loop(texts, answers):
    out = []
    for text, gold in zip(texts, answers, strict=True):
        pattern = re.compile(r"<think>.*?</think>\s*<answer>.*?</answer>", re.DOTALL)
        good = re.fullmatch(pattern, text) is not None
        found = re.search(r"<answer>(.*?)</answer>", text)
        answer = found.group(1).strip() if found else text.strip()
        out.append(0.5 * PlainMath.grade_answer(answer, gold.strip()) + 0.5 * good)
    return out


def easyr1_math_loop(texts, answers):
    def last_box(text):
        start = text.rfind(r"\boxed{")
        if start >= 0:
            inside, depth = text[start + len(r"\boxed{") :], 0
            for place, sign in enumerate(inside):
                depth += (sign == "{") - (sign == "}")
                if depth < 0:
                    return inside[:place].strip()
        return "None"

    out = []
    for text, gold in zip(texts, answers, strict=True):
        text = re.sub(r"\s*(<|>|/)\s*", r"\1", text)
        pattern = re.compile(r"<think>.*</think>.*\\boxed\{.*\}.*", re.DOTALL)
        good = re.fullmatch(pattern, text) is not None
        out.append(0.9 * PlainMath.grade_answer(last_box(text), gold) + 0.1 * good)
    return out


def dapo_loop(texts, answers, lengths, longest, buffer, rules):
    out = []
    for text, gold, length in zip(texts, answers, lengths, strict=True):
        lines = re.findall(r"(?i)Answer\s*:\s*([^\n]+)", text[-300:])
        right = tidied(lines[-1] if lines else "[INVALID]", rules) == tidied(gold, rules)
        out.append((1.0 if right else -1.0) + overlong_loop([length], longest, buffer)[0])
    return out


def visionthink_loop(rows, answers, reply):
    out = []
    for turns_, _ in zip(rows, answers, strict=True):
        found = re.search(r"<answer>(.*?)</answer>", " ".join(turns_), re.DOTALL)
        right = float(found is not None and "1" in reply)
        good, calls = turns_format(turns_, "tool_call")
        out.append((0.9 if calls else 1.0) * right + 0.5 * good)
    return out


def thyme_loop(texts, answers, reply, consistent):
    tags = ("<think>", "</think>", "<answer>", "</answer>")
    shape = r"^(?:(?!</think>).)*</think>\s<answer>(?:(?!</answer>).)*</answer>\Z"
    phrases = [
        *("The best answer is", "The correct answer is", "The answer is", "The answer: ", "Answer: "),
        *("The best option is", "The correct option is", "Best answer:", "Best option:"),
    ]

    def first_answer(text):
        found = re.search(r"<answer>(.*?)</answer>", text, re.DOTALL)
        return found.group(1).strip() if found else ""

    def thinking(text):
        found = re.search(r"<think>(.*?)</think>", text, re.DOTALL)
        inside = found.group(1) if found else ""
        if not inside:
            inside = text.split("</think>")[0].replace("<think>", "")
        for tag in ("<image>", "</sandbox_output>", "<sandbox_output>"):
            inside = inside.replace(tag, "")
        return inside[-500:]

    def said(reply, name):
        start = reply.find("{")
        return int(json.loads(reply[start : reply.find("}", start + 1) + 1].replace("\\", "\\\\"))[name])

    def accuracy(text, gold):
        bare = first_answer(text)
        if not bare:
            return 0.0
        for phrase in phrases:
            bare = bare.replace(phrase, "")
        right = PlainMath.verify(PlainMath.parse(bare), PlainMath.parse(gold))
        return 2.0 * (right or said(reply, "Correctness")) - 1.0

    def consistency(text):  # a reward of its own, which extracts again
        thinking(text)
        return said(consistent, "Consistency") if first_answer(text) else 0

    out = []
    for text, gold in zip(texts, answers, strict=True):
        good = re.fullmatch(shape, text, re.DOTALL) is not None
        counts = [text.count(tag) for tag in tags]
        layout = 0.5 * (good and counts == [1, 1, 1, 1])
        out.append(layout + accuracy(text, gold) + 0.5 * consistency(text))
    return out


def token_repetition_loop(rows, size):
    out = []
    for ids in rows:
        if len(ids) < size:
            out.append(0.0)
            continue
        ngrams = list(zip(*[ids[i:] for i in range(size)], strict=False))
        out.append((1 - len(set(ngrams)) / len(ngrams)) * -1.0)
    return out


def word_repetition_loop(texts, size):
    out = []
    for text in texts:
        if text == "" or len(text.split()) < size:
            out.append(0.0)
            continue
        words = text.lower().split()
        ngrams, total = set(), 0
        for ngram in zip(*[words[i:] for i in range(size)], strict=False):
            ngrams.add(ngram)
            total += 1
        out.append((1 - len(ngrams) / total) * -1.0 if total else 0.0)
    return out


def overlong_loop(lengths, longest, buffer):
    out = []
    for length in lengths:
        if length <= longest - buffer:
            out.append(0.0)
        elif length <= longest:
            out.append((longest - buffer - length) / buffer)
        else:
            out.append(-1.0)
    return out


def swift_overlong_loop(lengths, longest, buffer):
    out = []
    for length in lengths:
        free = longest - buffer
        out.append(min(-(length - free) / buffer, 0))
    return out


def swift_cosine_loop(accuracy, lengths, longest):
    out = []
    for score, length in zip(accuracy, lengths, strict=True):
        low, high = (0.5, 1.0) if score >= 1.0 else (0.0, -0.5)
        out.append(high - (high - low) * (1 - math.cos(length * math.pi / longest)) / 2)
    return out


def trl_cosine_loop(accuracy, lengths, longest):
    out = []
    for score, length in zip(accuracy, lengths, strict=True):
        wave = math.cos(min(length / longest, 1.0) * math.pi)
        low, high = (0.5, 1.0) if score else (-0.5, -1.0)
        out.append(float(low + 0.5 * (high - low) * (1.0 + wave)))
    return out


class PlainLatex:
    """Stands for the library as TRL calls it: with a configuration, which it makes anew for each sample."""

    class Normalization:
        def __init__(self, units=False):
            self.units = units

    class LatexExtractionConfig:
        def __init__(self, boxed_match_priority, try_extract_without_anchor, normalization_config=None):
            self.priority, self.without_anchor = boxed_match_priority, try_extract_without_anchor
            self.normalization_config = normalization_config or PlainLatex.Normalization()

    parse = staticmethod(lambda text, **_: [text])
    verify = staticmethod(lambda gold, answer, **_: gold == answer)


def trl_equal(text, gold, parsed):
    read = PlainLatex.parse(gold, parsing_timeout=10)
    if not read:
        return math.nan
    config = PlainLatex.LatexExtractionConfig(
        normalization_config=PlainLatex.Normalization(units=True),
        boxed_match_priority=0,
        try_extract_without_anchor=False,
    )
    said = PlainLatex.parse(
        text, extraction_config=[config], extraction_mode="first_match", parsing_timeout=10
    )
    parsed.append((str(read), str(said) if said else "[unparseable]"))
    return float(PlainLatex.verify(read, said, timeout_seconds=5))


def trl_accuracy_loop(texts, answers):
    parsed = []
    return [trl_equal(text, gold, parsed) for text, gold in zip(texts, answers, strict=True)]


def trl_reasoning_loop(texts, answers):
    parsed, out = [], []
    for text, gold in zip(texts, answers, strict=True):
        for mark in ["</think>"]:
            if mark in text:
                out.append(trl_equal(text.split(mark)[-1], gold, parsed))
                break
        else:
            out.append(0.0)
    return out


def tokens(count, seed=0):
    """Responses as tokens: 100 to 600 of them, of a thousand kinds."""
    dice = random.Random(seed)
    return [dice.choices(range(1000), k=dice.randint(100, 600)) for _ in range(count)]


def detections(count, seed=0):
    """(texts of Visual-RFT with one to four boxes, lists of gold boxes)."""
    dice = random.Random(seed)
    texts, golds = [], []
    for _ in range(count):
        boxes = [[x, y, x + 90, y + 80] for x, y in _corners(dice)]
        items = [f"{{'Position': {box}, 'Confidence': {dice.choice((0.5, 0.75, 0.9))}}}" for box in boxes]
        texts.append(f"<think>{_thought(dice)}</think>\n<answer>[{', '.join(items)}]</answer>")
        golds.append([[x + dice.randrange(30), y, x + 100, y + 80] for x, y, *_ in boxes])
    return texts, golds


def corners(count, seed=0):
    """(texts with one box for Visual-RFT's reasoning segmentation, gold texts)."""
    dice = random.Random(seed)
    texts, golds = [], []
    for x, y in _corners(dice, count):
        texts.append(f"<think>{_thought(dice)}</think>\n<answer>({x},{y}),({x + 90},{y + 80})</answer>")
        golds.append(f"<answer> ({x + dice.randrange(30)},{y}),({x + 100},{y + 80}) </answer>")
    return texts, golds


def sentences(count, seed=0):
    """(texts that answer in a short sentence, gold texts)."""
    dice = random.Random(seed)
    starts = ["Yes, ", "No, ", "", ""]

    def said():
        return dice.choice(starts) + " ".join(dice.choices(data.WORDS, k=dice.randint(2, 8))) + "."

    texts = [f"<think>{_thought(dice)}</think>\n<answer>{said()}</answer>" for _ in range(count)]
    return texts, [f"<answer> {said()} </answer>" for _ in range(count)]


def labelled_answers(count, seed=0):
    """(texts of VLM-R1 with one to four labelled boxes, gold texts)."""
    texts, golds = labelled(count, seed)
    dice = random.Random(seed)
    lists = [json.dumps([{"bbox_2d": box, "label": label} for label, box in gold]) for gold in golds]
    return (
        [f"<think>{_thought(dice)}</think>\n<answer>{text}</answer>" for text in texts],
        [f"<answer>```json\n{text}\n```</answer>" for text in lists],
    )


def labelled(count, seed=0):
    """(texts of Vision-R1, gold lists of label and box)."""
    dice = random.Random(seed)
    texts, golds = [], []
    for _ in range(count):
        boxes = [[x, y, x + 90, y + 80] for x, y in _corners(dice)]
        items = [{"bbox_2d": box, "label": dice.choice(("cat", "dog"))} for box in boxes]
        texts.append(f"```json\n{json.dumps(items)}\n```")
        golds.append([["dog", [x + dice.randrange(30), y, x + 100, y + 80]] for x, y, *_ in boxes])
    return texts, golds


def segments(count, seed=0):
    """(texts of Seg-Zero, gold texts)."""
    dice = random.Random(seed)
    texts, golds = [], []
    for x, y in _corners(dice, count):
        item = {"bbox": [x, y, x + 90, y + 80], "points_1": [x + 9, y + 9], "points_2": [x + 60, y + 60]}
        texts.append(f"<think>{_thought(dice)}</think>\n<answer>{json.dumps(item)}</answer>")
        golds.append(
            f"<box>({x},{y}),({x + 95},{y + 80})</box><points>({x},{y}),({x + 50},{y + 50})</points>"
        )
    return texts, golds


def objects(count, seed=0):
    """(texts of VisionReasoner, gold lists)."""
    dice = random.Random(seed)
    texts, golds = [], []
    for _ in range(count):
        items = [{"bbox_2d": [x, y, x + 90, y + 80], "point_2d": [x + 9, y + 9]} for x, y in _corners(dice)]
        texts.append(f"<think>{_thought(dice)}</think>\n<answer>{json.dumps(items)}</answer>")
        golds.append(items[: dice.randint(1, 4)])
    return texts, golds


def clicks(count, seed=0):
    """(texts of SE-GUI, texts of UI-R1, texts of GUI-R1, gold boxes)."""
    dice = random.Random(seed)
    calls, answers, actions, golds = [], [], [], []
    for x, y in _corners(dice, count):
        point = [x + dice.randrange(80), y + 9]
        call = {"name": "computer_use", "arguments": {"action": "left_click", "coordinate": point}}
        calls.append(f"<tool_call>\n{json.dumps(call)}\n</tool_call>")
        thought = f"<think>{_thought(dice)}</think>\n"
        answers.append(f"{thought}<answer>[{{'action': 'click', 'coordinate': {point}}}]</answer>")
        action = f"{{'action': 'click', 'point': {point}, 'input_text': 'no input text'}}"
        actions.append(f"{thought}<answer>[{action}]</answer>")
        golds.append([x, y, x + 60, y + 40])
    return calls, answers, actions, golds


def named_boxes(count, seed=0):
    """(texts of Perception-R1, gold boxes)."""
    dice = random.Random(seed)
    places = _corners(dice, count)
    name = "<|object_ref_start|>the sign<|object_ref_end|>"
    texts = [f"{name}<|box_start|>({x},{y}),({x + 90},{y + 80})<|box_end|><|im_end|>" for x, y in places]
    return texts, [[x + dice.randrange(30), y, x + 100, y + 80] for x, y in places]


def traced(count, seed=0):
    """(texts of TreeVGR with one to four boxes in the thinking, lists of gold boxes)."""
    dice = random.Random(seed)
    texts, golds = [], []
    for _ in range(count):
        boxes = [[x, y, x + 90, y + 80] for x, y in _corners(dice)]
        steps = [f"{_thought(dice, 30)} <box>[{','.join(map(str, box))}]</box>" for box in boxes]
        texts.append(f"<think>{' '.join(steps)}</think><answer>A</answer>")
        golds.append([[x + dice.randrange(30), y, x + 100, y + 80] for x, y, *_ in boxes])
    return texts, golds


def _corners(dice, count=None):
    count = dice.randint(1, 4) if count is None else count
    return [(dice.randrange(10, 800), dice.randrange(10, 600)) for _ in range(count)]


def _thought(dice, longest=200):
    return " ".join(dice.choices(data.WORDS, k=dice.randint(longest // 5, longest)))


THOUGHT_ANSWER = r"<think>.*?</think>\s*<answer>.*?</answer>"


def is_formatted(text):
    return float(re.fullmatch(THOUGHT_ANSWER, text, re.DOTALL) is not None)


def shared_share(a, b):
    x0, y0, x1, y1 = max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])
    if x1 <= x0 or y1 <= y0:
        return 0.0
    shared = (x1 - x0) * (y1 - y0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def visual_rft_loop(texts, solutions, math):
    def listed(text):
        start, stop = text.find("<answer>") + len("<answer>"), text.find("</answer>")
        inside = text[start:] if stop < 0 else text[start:stop]
        if not inside.endswith("]"):
            inside = inside.rsplit("},", 1)[0] + "}]"
        return json.loads(inside.replace("'", '"'))

    def matches(text, solution):
        found = re.search(r"<answer>(.*?)</answer>", text)
        answer = f"<answer>{(found.group(1) if found else text).strip()}</answer>"
        answer = answer.replace("[[", "[").replace("]]", "]").replace("\n", "")
        gold = listed(solution.strip())
        boxes, seen = [], set()
        for item in listed(answer):
            if tuple(item["Position"]) not in seen:
                seen.add(tuple(item["Position"]))
                boxes.append(item)
        taken, out = set(), []
        for item in sorted(boxes, key=lambda each: each["Confidence"], reverse=True):
            best, place = 0, -1
            for k, target in enumerate(gold):
                if k not in taken:
                    share = shared_share(target["Position"], item["Position"])
                    if share > best:
                        best, place = share, k
            if best > 0.5:
                taken.add(place)
            out.append((best if best > 0.5 else 0, item["Confidence"]))
        overlap = sum(share for share, _ in out) / max(len(gold), len(out))
        sure = sum(each if share else 1 - each for share, each in out) / len(out)
        return overlap, min(max(sure, 0), 1)

    def reward(text, solution, which):
        if math.verify(math.parse(text), math.parse(solution)):
            return 1.0
        return matches(text, solution)[which]

    return [  # the original does all of it for each of its two rewards
        reward(text, solution, 0) + reward(text, solution, 1) + is_formatted(text)
        for text, solution in zip(texts, solutions, strict=True)
    ]


def lisa_loop(texts, solutions, library):
    pattern = r"\(\s*(\d+)\s*,\s*(\d+)\s*\)\s*,\s*\(\s*(\d+)\s*,\s*(\d+)\s*\)"

    def corners(text):
        found = re.findall(pattern, text)
        firsts = [(int(x) / 1000, int(y) / 1000) for x, y, _, _ in found]
        return firsts + [(int(x) / 1000, int(y) / 1000) for _, _, x, y in found]

    def scaled_giou(gold, said):
        (x0, y0), (x1, y1) = gold[:2]
        (u0, v0), (u1, v1) = said[:2]
        shared = max(0, min(x1, u1) - max(x0, u0)) * max(0, min(y1, v1) - max(y0, v0))
        union = (x1 - x0) * (y1 - y0) + (u1 - u0) * (v1 - v0) - shared
        share = shared / union if union > 0 else 0
        hull = (max(x1, u1) - min(x0, u0)) * (max(y1, v1) - min(y0, v0))
        return 1 + (share - (hull - union) / hull if hull > 0 else share)

    out = []
    for text, solution in zip(texts, solutions, strict=True):
        if library.verify(library.parse(text), library.parse(solution)):
            out.append(1.0 + is_formatted(text))
            continue
        found = re.search(r"<answer>(.*?)</answer>", solution)
        gold = found.group(1).strip() if found else solution.strip()
        found = re.search(r"<answer>(.*?)</answer>", text, re.DOTALL)
        said = found.group(1).strip() if found else text.strip()
        given, right = corners(said), corners(gold)
        reward = scaled_giou(right, given) if given else 0.0
        out.append((2.0 if said == gold else reward) + is_formatted(text))
    return out


def vision_r1_loop(texts, golds, step):
    import torch
    from scipy.optimize import linear_sum_assignment

    def matched(text, gold):  # the original does this once for each of its two rewards
        items = json.loads("\n".join(text.splitlines()[1:]).split("```")[0])
        boxes = torch.cat([torch.tensor(each["bbox_2d"], dtype=torch.float32).view(-1, 4) for each in items])
        targets = torch.cat([torch.tensor(box, dtype=torch.float32).view(-1, 4) for _, box in gold])
        labels = torch.tensor([[float(each["label"] == label) for label, _ in gold] for each in items])
        areas = [(each[:, 2] - each[:, 0]) * (each[:, 3] - each[:, 1]) for each in (boxes, targets)]
        low, high = (
            torch.max(boxes[:, None, :2], targets[:, :2]),
            torch.min(boxes[:, None, 2:], targets[:, 2:]),
        )
        shared = (high - low).clamp(min=0).prod(2)
        union = areas[0][:, None] + areas[1] - shared
        low, high = (
            torch.min(boxes[:, None, :2], targets[:, :2]),
            torch.max(boxes[:, None, 2:], targets[:, 2:]),
        )
        hull = (high - low).clamp(min=0).prod(2)
        gious = shared / union - (hull - union) / hull
        costs = torch.cdist(boxes, targets, p=1) - labels - gious
        return gious[linear_sum_assignment(costs)]

    def cut(values, low, high):
        values = values.clone()
        values[values < low] = 0
        values[values > high] = 1
        return values

    low, high, hit = (0.5, 0.75, 0.5) if step < 1500 else (0.75, 0.9, 0.75)
    out = []
    for text, gold in zip(texts, map(json.loads, golds), strict=True):
        precision = torch.mean(cut(matched(text, gold), low, high)).item()
        recall = sum(cut(matched(text, gold), hit, hit)) / len(gold)
        recall = 0 if recall < 0.5 else 1 if recall > 0.75 else recall
        bare = json.loads(re.sub(r"```json\n|\n```", "", text).strip())
        out.append(precision + float(recall) + all(len(each["bbox_2d"]) == 4 for each in bare))
    return out


def seg_zero_loop(texts, golds):
    def item_of(text):
        return json.loads(re.search(r"{[^}]+}", text).group(0))

    def box_of(item):  # its name is searched for in each of the three terms
        name = next((name for name in item if "bbox" in name.lower()), None)
        return item[name] if name and len(item[name]) == 4 else None

    def numbers(pattern, gold):
        return [int(side) for side in re.search(pattern, gold).groups()]

    def gold_box(gold):
        return numbers(r"<box>\((\d+),(\d+)\),\((\d+),(\d+)\)</box>", gold.strip())

    def is_whole(text):
        item, box, points = item_of(text), None, []
        for name in item:
            if "bbox" in name.lower() and box is None:
                box = name
            elif "point" in name.lower():
                points.append(name)
        return len(points) > 1 and len(item[box]) == 4 and all(len(item[name]) == 2 for name in points[:2])

    def overlaps(text, gold):
        b, a = gold_box(gold), box_of(item_of(text))
        x0, y0, x1, y1 = max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])
        shared = (x1 - x0 + 1) * (y1 - y0 + 1) if x0 < x1 and y0 < y1 else 0
        areas = [(each[2] - each[0] + 1) * (each[3] - each[1] + 1) for each in (a, b)]
        return shared / (areas[0] + areas[1] - shared) > 0.5

    def is_near(text, gold):
        b, a = gold_box(gold), box_of(item_of(text))
        return (abs(a[0] - b[0]) + abs(a[1] - b[1]) + abs(a[2] - b[2]) + abs(a[3] - b[3])) / 4 < 10

    def has_points(text, gold):
        found = numbers(r"<points>\((\d+),(\d+)\),\((\d+),(\d+)\)</points>", gold)
        targets = [found[:2], found[2:]]
        item = item_of(text)
        box = box_of(item)
        names = [name for name in item if "points" in name.lower()][:2]
        points = [[int(item[name][0]), int(item[name][1])] for name in names]
        if not all(box[0] <= x <= box[2] and box[1] <= y <= box[3] for x, y in points):
            return False
        straight = math.dist(points[0], targets[0]) + math.dist(points[1], targets[1])
        crossed = math.dist(points[0], targets[1]) + math.dist(points[1], targets[0])
        return min(straight, crossed) / 2 < 100

    return [
        is_formatted(text)
        + is_whole(text)
        + overlaps(text, gold)
        + is_near(text, gold)
        + has_points(text, gold)
        for text, gold in zip(texts, golds, strict=True)
    ]


def vision_reasoner_loop(texts, golds):
    from scipy.optimize import linear_sum_assignment

    def items_of(text):
        return json.loads(re.search(r"<answer>\s*(.*?)\s*</answer>", text, re.DOTALL).group(1))

    def accuracy(text, solution):
        gold, items = json.loads(solution), items_of(text)
        boxes, targets = (np.array([each["bbox_2d"] for each in side]) for side in (items, gold))
        points, aims = (np.array([each["point_2d"] for each in side]) for side in (items, gold))
        low = np.maximum(boxes[:, None, :2], targets[:, :2])
        high = np.minimum(boxes[:, None, 2:], targets[:, 2:])
        shared = np.maximum(high - low + 1, 0).prod(2)
        areas = [(each[:, 2:] - each[:, :2] + 1).prod(1) for each in (boxes, targets)]
        share = shared / (areas[0][:, None] + areas[1] - shared)
        near = np.abs(boxes[:, None] - targets).mean(2)
        off = np.sqrt(((points[:, None] - aims) ** 2).sum(2))
        inside = (points >= boxes[:, :2]).all(1) & (points <= boxes[:, 2:]).all(1)
        costs = 3.0 - ((share > 0.5).astype(float) + (near < 10) + ((off < 30) & inside[:, None]))
        rows, columns = linear_sum_assignment(costs)
        return (3.0 * len(rows) - costs[rows, columns].sum()) / max(costs.shape)

    def is_fresh(text):
        seen, repeats = set(), 0
        for sentence in [part.strip() for part in text.split(".") if part.strip()]:
            repeats += sentence in seen
            seen.add(sentence)
        return float(repeats < 2)

    out = []
    for text, gold in zip(texts, golds, strict=True):
        items = items_of(text)
        whole = sum(len(each["bbox_2d"]) == 4 for each in items) + sum(
            len(each["point_2d"]) == 2 for each in items
        )
        out.append(is_formatted(text) + whole / len(items) + accuracy(text, gold) + is_fresh(text))
    return out


def perception_r1_loop(texts, solutions):
    number = r"(-?\d+(?:\.\d+)?)"
    patterns = [
        r"\[\s*" + r",\s*".join([number] * 4) + r"\s*\]",
        r"\(\s*" + r",\s*".join([number] * 4) + r"\s*\)",
        rf"\(\s*{number},\s*{number}\),\s*\(\s*{number},\s*{number}\)",
    ]
    shape = r"^<|object_ref_start|>.*?<|object_ref_end|><|box_start|>.*?<|box_end|><|im_end|>"
    out = []
    for text, solution in zip(texts, solutions, strict=True):
        bare, gold = text.replace("<|endoftext|>", ""), eval(solution)  # as the original; our own boxes
        factor = 1 if "<|box_start|>" in bare else 1000
        found = next(match for pattern in patterns if (match := re.search(pattern, bare)))
        box = [float(side) for side in found.groups()]
        share = shared_share(box if factor == 1 else [int(side * factor) for side in box], gold)
        bare = text.replace("<|endoftext|>", "")  # once more, for the format
        out.append(share**2 + (re.match(shape, bare) is not None))
    return out


def treevgr_loop(texts, golds):
    out = []
    for text, targets in zip(texts, golds, strict=True):
        boxes = []
        for inside in re.findall(r"<box>(.*?)</box>", text, re.DOTALL):
            found = re.match(r"\[(\d+),(\d+),(\d+),(\d+)\]", inside.strip())
            if found:
                boxes.append(list(map(int, found.groups())))
        out.append(sum(max(shared_share(box, target) for box in boxes) for target in targets) / len(targets))
    return out


def se_gui_loop(texts, golds, size):
    shape = r"<tool_call>.*?\{.*\[\d+,\s*\d+\].*\}.*?</tool_call>"
    out = []
    for text, box in zip(texts, golds, strict=True):
        found = re.search(r"<tool_call>(.*?)</tool_call>", text, re.DOTALL)
        x, y = json.loads(found.group(1).strip())["arguments"]["coordinate"]
        inside = box[0] <= x <= box[2] and box[1] <= y <= box[3]
        centre = (box[0] + box[2]) / 2 / size[0], (box[1] + box[3]) / 2 / size[1]
        most = max(math.dist(centre, corner) for corner in ((0, 0), (1, 0), (0, 1), (1, 1)))
        off = math.dist(centre, (x / size[0], y / size[1]))
        near = 1 - (off / most) ** 2 if off <= 1 else 0
        out.append(inside + near + (re.search(shape, text, re.DOTALL) is not None))
    return out


def ui_r1_loop(texts, solutions, scale):
    def find(pattern, text):
        found = re.search(r"<answer>(.*?)</answer>", text, re.DOTALL)
        return found and re.search(pattern, found.group(1).strip())

    def same_action(text, solution):
        pattern = r"'action':\s*'(\w+)'"
        return find(pattern, text).group(1) == find(pattern, solution).group(1)

    out = []
    for text, solution in zip(texts, solutions, strict=True):
        action, hit = same_action(text, solution), False
        if same_action(text, solution):  # once for each of its two rewards
            point = find(r"\[(\d+),\s*(\d+)]", text).groups()
            x, y = (int(int(side) * factor) for side, factor in zip(point, scale, strict=True))
            box = list(map(int, find(r"\[(\d+),\s*(\d+),\s*(\d+),\s*(\d+)]", solution).groups()))
            hit = box[0] <= x <= box[2] and box[1] <= y <= box[3]
        out.append(action + hit + is_formatted(text))
    return out


def gui_r1_loop(texts, solutions):
    def find(pattern, text):
        found = re.search(r"<answer>(.*?)</answer>", text, re.DOTALL)
        return found and re.search(pattern, found.group(1).strip())

    def is_whole(text):
        if not is_formatted(text):
            return False
        items = eval(re.search(r"<answer>(.*?)</answer>", text, re.DOTALL).group(1).strip())  # our own text
        return isinstance(items, list) and all(map(is_action, items))

    def is_action(item):
        if not isinstance(item, dict) or not all(name in item for name in ("action", "point", "input_text")):
            return False
        if not (isinstance(item["action"], str) and isinstance(item["input_text"], str)):
            return False
        if item["action"] in ("type", "select", "open_app") and item["input_text"] == "no input text":
            return False
        if item["action"] == "scroll" and item["input_text"] not in ("left", "right", "up", "down"):
            return False
        return isinstance(item["point"][0], int) and isinstance(item["point"][1], int)

    out = []
    for text, solution in zip(texts, solutions, strict=True):
        gold = json.loads(solution)
        box = gold["gt_bbox"]
        action = find(r"'action':\s*'(\w+)'", text).group(1).lower()
        find(r"'input_text':\s*'(.*?)'", text)
        x, y = map(int, find(r"\{.*\[(\d+),\s*(\d+)]\s*.*\}", text).groups())
        right = action == gold["action"] and box[0] < x < box[2] and box[1] < y < box[3]
        out.append(0.8 * right + 0.2 * is_whole(text))
    return out


def locus_loop(texts, golds):
    pattern = r"\[\s*" + r",\s*".join([r"(-?\d+(?:\.\d+)?)"] * 4) + r"\s*\]"
    out = []
    for text, gold in zip(texts, golds, strict=True):
        good = re.fullmatch(rf"\s*{THOUGHT_ANSWER}\s*", text, re.DOTALL) is not None
        found = re.search(r"<answer>(.*?)</answer>", text, re.DOTALL)
        box = found and re.search(pattern, found.group(1))
        share = shared_share([float(side) for side in box.groups()], gold) if box else 0.0
        out.append(0.9 * share + 0.1 * good)
    return out


def zooms(count, seed=0):
    """(pairs of turns, gold letters): one zoom each, one in twenty without a box."""
    dice = random.Random(seed)
    pairs = []
    for _ in range(count):
        x, y = dice.randrange(700), dice.randrange(500)
        box = [x, y, x + dice.randrange(60, 600), y + dice.randrange(60, 400)]
        asked = "everything" if dice.random() < 0.05 else box
        answer = f"<answer>{dice.choice(['{}', '({})', '{}.'])}</answer>".format(dice.choice(data.LETTERS))
        thoughts = [f"<think>{_thought(dice)}</think>" for _ in range(2)]
        pairs.append([f"{thoughts[0]}<zoom>{asked}</zoom>", f"{thoughts[1]}{answer}"])
    return pairs, [dice.choice(data.LETTERS) for _ in range(count)]


def ergo_loop(rows, golds, questions, images, size, shown, second_model):
    def resized(height, width, factor=28, least=4 * 28 * 28, most=1280 * 28 * 28):
        tall, wide = (max(factor, round(side / factor) * factor) for side in (height, width))
        if tall * wide > most:
            beta = math.sqrt(height * width / most)
            tall, wide = (round(side / beta / factor) * factor for side in (height, width))
        elif tall * wide < least:
            beta = math.sqrt(least / (height * width))
            tall, wide = (math.ceil(side * beta / factor) * factor for side in (height, width))
        return tall, wide

    def parse(text):
        found = re.search(r"<zoom>(.*?)</zoom>", text, re.DOTALL)
        if not found:
            return None
        inside = found.group(1)
        if re.match(r"^\s*\[\d+,\s*\d+,\s*\d+,\s*\d+\]\s*$", inside):
            return [int(side.strip()) for side in inside.strip().strip("[]").split(",")]
        boxes = re.findall(r"\[\d+,\s*\d+,\s*\d+,\s*\d+\]", inside)
        return [int(side.strip()) for side in boxes[0].strip("[]").split(",")] if len(boxes) == 1 else None

    def cut(text):
        box = parse(text)
        if box is None:
            return [0, 0, *size]
        scales = [side / seen for side, seen in zip(size, shown, strict=True)] * 2
        scaled = [side * scale for side, scale in zip(box, scales, strict=True)]
        x0, y0, x1, y1 = (
            int(max(0, min(side, most))) for side, most in zip(scaled, [*size] * 2, strict=True)
        )
        resized(x1 - x0, y1 - y0)
        return [x0, y0, x1, y1]

    def says(text, gold):
        try:
            answer = text.split("<answer>")[1].split("</answer>")[0].strip()
        except IndexError:
            answer = None
        letters = "".join(re.findall(r"[a-zA-Z]", answer or text))
        return float(gold.lower() == letters.lower())

    patterns = [rf"<{tag}>.*?</{tag}>" for tag in ("think", "zoom", "answer")]
    out = []
    for turns_, gold, question, image in zip(rows, golds, questions, images, strict=True):
        box = cut(turns_[0])
        [seen] = second_model([image], [tuple(box)], [question])
        region = says(seen, gold)
        small = (box[2] - box[0]) * (box[3] - box[1]) / (size[0] * size[1]) <= 0.6
        whole = "".join(turns_)
        layout = all(re.search(pattern, whole, re.DOTALL) for pattern in patterns)
        out.append(region + 0.5 * small + says(turns_[-1], gold) + layout)
    return out


def line_format_loop(texts):
    pattern = r"^<think>.*?</think><answer>.*?</answer>$"
    return [1.0 if re.match(pattern, text) else 0.0 for text in texts]


# --- Pixel-Reasoner ------------------------------------------------------------------------------------


def rule_loop(texts, golds):
    def normal(text):
        text = text.replace("dfrac", "frac") if "dfrac" in text else text
        text = text.replace("\\text", "") if "text" in text else text
        for before, after in (("\\varnothing", "\\emptyset"), ("minutes", ""), ("cm", "")):
            text = text.replace(before, after) if before in text else text
        return text

    def verified(text, truth):
        said = PlainMath.parse(text)
        if len(truth) > 1 and truth[1] in "ABCDEFGHIJK":
            return float(text[len("\\boxed{") :].startswith(truth[1]))
        return float(PlainMath.verify(said, truth)) if said else -1.0

    def compared(text, gold):
        text.find("Now everything looks fine. Solution finished.")
        gold = normal(gold)
        truth = PlainMath.parse(gold if "\\boxed" in gold else f"\\boxed{{{gold}}}")
        if not truth:
            return -1.0
        for sign in ("\\boxed", "<answer>", "Answer:"):  # the text is in lower case: the last is never found
            if sign not in text:
                continue
            if sign == "<answer>":
                found = re.search("<answer>(.*?)</answer>", text)
                if not found:
                    continue
                part = f"\\boxed{{{found.group(1)}}}"
            else:
                part = text[text.rindex(sign) :].strip()
            if verified(normal(part), truth) > 0.99:
                return 1.0
        return verified(normal(text), truth)

    out = []
    for text, gold in zip(texts, golds, strict=True):
        if "<|im_end|>" in text or "<|endoftext|>" in text:
            text.lower().count("wait")  # a note that the reward does not use
        score, lowered = 0.0, text.lower()
        for each in [str(gold).lower()]:
            score = compared(lowered, each)
            if score > 0.5:
                break
            if "," in each:
                boxed = "\\" + lowered[lowered.rfind("boxed") :]
                parts = [part.lower().strip() for part in each[len("\\boxed{") : -1].split(",")]
                if "boxed" in lowered and sum(part in boxed for part in parts) == len(parts):
                    score = 1.0
                    break
        out.append(score)
    return out


def pixel_reasoner_loop(texts, golds, size):
    turns = [
        [turn.split("<|im_end|>")[0] for turn in text.split("<|im_start|>assistant\n")] for text in texts
    ]
    calls = [sum(turn.endswith("</tool_call>") for turn in each) for each in turns]
    accuracy = rule_loop([text.replace("<|im_start|>assistant\n", "") for text in texts], golds)
    return curiosity_loop(accuracy, calls, [False] * len(texts), size)


# --- VLM-R1's other answers ----------------------------------------------------------------------------

CUES = [
    "答案",
    "选择",
    "正确",
    "是",
    "对",
    "answer",
    "correct",
    "choose",
    "select",
    "right",
    "认为",
    "应该",
    "觉得",
    "think",
    "believe",
    "should",
]


def option_of(text):
    text = re.sub(r"\s+", " ", text.upper())
    letters = re.findall(r"(?<![A-Z])([A-Z])(?=[\.\,\?\!\:\;]|$)", text)
    if len(letters) < 2:
        return letters[0] if letters else None
    points = dict.fromkeys(letters, 0)
    for letter in letters:
        place = text.find(letter)
        near = text[max(0, place - 20) : min(len(text), place + 20)]
        for cue in CUES:
            points[letter] += cue.upper() in near
        points[letter] += 2 * (place > len(text) * 0.7)
        points[letter] += place < len(text) - 1 and text[place + 1] in "\u3002.!\uff01,\uff0c"
    return max(points.items(), key=lambda each: each[1])[0]


def tidy_answer(text):
    found = re.findall(r"<answer>(.*?)</answer>", text, re.DOTALL)
    text = found[-1] if found else text
    for mark in ("\n", "\r"):
        text = re.sub(r"(?<=\s)" + re.escape(mark), "", text)
        text = re.sub(r"(?<!\s)" + re.escape(mark), " ", text)
    return text.strip().rstrip(".").lower()


def gold_of(solution):
    found = re.search(r"<answer>(.*?)</answer>", solution)
    return found.group(1).strip() if found else solution.strip()


def first_said(text):
    found = re.search(r"<answer>(.*?)</answer>", text, re.DOTALL)
    return found.group(1).strip() if found else text.strip()


def option_score(text, solution):
    named = option_of(gold_of(solution))
    return float(option_of(first_said(text)) == (named.upper() if named else solution.strip()))


def yes_no_score(text, solution):
    text, solution = text.lower(), solution.lower()
    found = [re.search(r"(yes|no)", each) for each in (gold_of(solution), first_said(text))]
    right, said = (each.group(1) if each else "" for each in found)
    return float(right == said)


def all_match_score(text, solution):
    return float(tidy_answer(text) == tidy_answer(solution))


def any_score(text, solution):
    from Levenshtein import ratio

    gold = gold_of(solution)
    found = re.findall(r"<answer>(.*?)</answer>", text, re.DOTALL)
    said = found[-1].strip() if found else text.strip()
    if PlainMath.verify(PlainMath.parse(said), PlainMath.parse(gold)):
        return 1.0
    has_number, right = re.search(r"\d", gold), option_of(gold)
    if has_number:
        try:
            return float(float(tidy_answer(said)) == float(tidy_answer(gold)))
        except ValueError:
            return ratio(tidy_answer(said), tidy_answer(gold))
    if right:
        return float(option_of(said) == right.upper())
    return ratio(tidy_answer(said), tidy_answer(gold))


def detection_score(text, solution):
    def listed(text):
        found = re.search(r"```json(.*?)```", tidy_answer(text), re.DOTALL)
        return list(json.loads(found.group(1).strip())) if found else []

    def share(a, b):
        x0, y0, x1, y1 = max(a[0], b[0]), max(a[1], b[1]), min(a[2] - 1, b[2] - 1), min(a[3] - 1, b[3] - 1)
        shared = (x1 - x0 + 1) * (y1 - y0 + 1) if x0 < x1 and y0 < y1 else 0
        return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)

    tidy_answer(text), tidy_answer(solution)  # once more, before the function is chosen
    found, golds = listed(text), listed(solution)
    if not golds or not found:
        return float(not golds and not found)
    shares = [[share(a["bbox_2d"], b["bbox_2d"]) for b in golds] for a in found]
    free, free_golds, position = list(range(len(found))), list(range(len(golds))), 0.0
    while free and free_golds:
        best, at, gold_at = -1, -1, -1
        for i in free:
            for j in free_golds:
                if shares[i][j] > best:
                    best, at, gold_at = shares[i][j], i, j
        if best < 0.5:
            break
        position += best * (found[at]["label"].lower() == golds[gold_at]["label"].lower())
        free.remove(at)
        free_golds.remove(gold_at)
    missing, adding = len(free_golds) / len(golds), len(free) / len(found)
    return 0.7 * position / len(golds) + 0.3 * (1.0 - (missing + adding) / 2.0)


def vlm_accuracy_loop(texts, solutions, score):
    return [score(text, solution) for text, solution in zip(texts, solutions, strict=True)]


def object_repetition_loop(texts):
    def json_part(text):
        if found := re.search(r"```json(.*?)```", text, re.DOTALL):
            return found.group(1).strip()
        found = re.search(r"```(.*?)```", text, re.DOTALL)
        if found and found.group(1).strip():
            return found.group(1).strip()
        found = re.search(r'\[\s*{.*?"bbox_2d".*?"label".*?}\s*\]', text, re.DOTALL)
        return found.group(0) if found else None

    def repeated(things, size):
        ngrams, total = set(), 0
        for ngram in zip(*[things[i:] for i in range(size)], strict=False):
            ngrams.add(ngram)
            total += 1
        return -(1 - len(ngrams) / total) if total else 0.0

    out = []
    for text in texts:
        part = json_part(text)
        items = json.loads(part) if part else None
        if items and isinstance(items, list):
            named = [item for item in items if "bbox_2d" in item and "label" in item]
            out.append(repeated([f"{item['bbox_2d']}_{item['label']}" for item in named], 1))
        else:
            out.append(0.0 if len(text.split()) < 6 else repeated(text.lower().split(), 6))
    return out
