import dataclasses
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as profile
from hypothesis import strategies as st
from PIL import Image

from lfpc_trl.demo import report
from lfpc_trl.demo.goals import check_goals, differences_between, intervals_of
from lfpc_trl.demo.report import PHASES, write_report
from lfpc_trl.evaluate.in_process import EvaluatedRollout
from lfpc_trl.rollouts.transcript import ScoredRollout

METRICS = {
    "warm": {
        "accuracy": 0.3,
        "accuracy_without_tool": 0.02,
        "tool_calls": 0.6,
        "iou": 0.3,
        "bbox_ratio": 0.06,
    },
    "stage1": {
        "accuracy": 0.82,
        "accuracy_noise_crop": 0.05,
        "tool_calls": 0.99,
        "iou": 0.29,
        "overlap": 0.9,
        "bbox_ratio": 0.09,
        "format": 0.99,
        "format_noise_crop": 0.97,
    },
    "stage2": {"accuracy": 0.86, "iou": 0.6, "overlap": 0.93, "bbox_ratio": 0.03, "crop_tokens": 31.0},
    "control": {"accuracy": 0.84, "iou": 0.2, "overlap": 0.91, "bbox_ratio": 0.12, "crop_tokens": 55.0},
}
RESULTS = {name: {"questions": 9} | metrics for name, metrics in METRICS.items()} | {
    "seconds": {"stage 1": 61.2}
}
RECORD = {"tool_calls": 1.0, "iou": 0.3, "overlap": 0.8, "bbox_ratio": 0.05, "crop_tokens": 30.0, "loss": 0.0}
CURVES = {
    phase: [RECORD | {"step": step, "reward": step / 9} for step in range(1, 9)]
    + [{"step": 8, "train_runtime": 1.0}]
    for phase in ("stage1", "stage2", "control")
}


def scored(right: bool = True, crops=((140, 84, 168, 112),)) -> ScoredRollout:
    has = 1.0 if crops else math.nan
    return ScoredRollout("x", 2, float(right), 0.0, 1.0, 1.0, tuple(crops), (), has, has, has, has)


def trajectory(row, text: str = "<answer>red</answer>", *, right: bool = True, crops=((140, 84, 168, 112),)):
    arguments = {"bbox_2d": [70, 42, 84, 56]}
    turns = []
    for _ in crops:
        asks = {"type": "function", "function": {"name": "image_zoom_in_tool", "arguments": arguments}}
        turns.append({"role": "assistant", "content": "near", "tool_calls": [asks]})
        picture = {"type": "image", "image": Image.new("RGB", (56, 28), "red")}
        turns.append({"role": "tool", "name": "image_zoom_in_tool", "content": [picture]})
    return EvaluatedRollout(row, [*turns, {"role": "assistant", "content": text}], scored(right, crops))


def everywhere(rows, **options):
    return {phase: [trajectory(row, f"{phase} on {row.id}", **options) for row in rows] for phase in PHASES}


def write(tmp_path, **options) -> str:
    given = {"results": RESULTS, "curves": {}, "trajectories": {}} | options
    return write_report(tmp_path / "report.html", **given).read_text(encoding="utf-8")


class Page(HTMLParser):
    """Tags, links and visible text of a page; unbalanced tags are an error."""

    VOID = frozenset({"meta", "img", "link", "br", "input"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags, self.links, self.text, self.open, self.images = [], [], [], [], []
        self.feed(html)
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        given = dict(attributes)
        self.links += [value for name, value in attributes if name in ("src", "href", "xlink:href", "srcset")]
        if tag == "img" or given.get("role") == "img":
            self.images.append(given)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.text.append(data)


def test_every_trajectory_is_on_the_page(tmp_path, rows):
    page = Page(write(tmp_path, trajectories=everywhere(rows)))
    text = "".join(page.text)
    for phase in PHASES:
        for row in rows:
            assert f"{phase} on {row.id}" in text
    for row in rows:
        assert row.question in text
    assert text.count("✓ right") == 4 * len(rows)
    assert 'image_zoom_in_tool {"bbox_2d": [70, 42, 84, 56]}' in text


def test_a_dozen_questions_are_taken_at_even_distances(tmp_path, rows):
    html = write(tmp_path, trajectories=everywhere(rows), examples=3)
    assert re.findall(r"stage2 on (row\d)", html) == ["row0", "row4", "row8"]


def test_only_questions_that_every_phase_answered_are_compared(tmp_path, rows):
    some = everywhere(rows)
    some["warm"] = some["warm"][2:4]
    assert re.findall(r"stage2 on (row\d)", write(tmp_path, trajectories=some)) == ["row2", "row3"]


def test_what_a_model_writes_is_text_and_not_html(tmp_path, rows):
    evil = '<script>alert(1)</script><img src=x onerror="alert(2)">{{ 7 * 191 }}</pre><svg onload=alert(3)>'
    one = trajectory(rows[0], evil)
    one.messages[0]["tool_calls"][0]["function"]["arguments"] = {evil: evil}
    one.messages[0]["tool_calls"][0]["function"]["name"] = evil
    page = Page(write(tmp_path, trajectories={"warm": [one]}, notes=[evil], settings={evil: evil}))
    assert "script" not in page.tags
    assert "".join(page.text).count("<script>alert(1)</script>") >= 5
    assert not any(link == "x" for link in page.links)
    assert "1337" not in "".join(page.text)


def test_the_page_needs_nothing_beside_itself(tmp_path, rows):
    html = write(tmp_path, curves=CURVES, trajectories=everywhere(rows))
    page = Page(html)
    assert page.links
    assert all(link.startswith(("data:image/jpeg;base64,", "#")) for link in page.links)
    assert not {"script", "link", "iframe", "object", "embed"} & set(page.tags)
    assert not re.search(r"url\((?!#)|@import", html)
    # The only addresses are the names of XML namespaces, which nobody loads.
    assert set(re.findall(r"https?://[^\"' <]+", html)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }


def test_every_picture_has_a_text(tmp_path, rows):
    page = Page(write(tmp_path, trajectories=everywhere(rows)))
    assert len(page.images) == len(rows) * (2 + 4 + 4)
    assert all(image.get("alt") or image.get("aria-label") for image in page.images)


def test_a_wrong_answer_is_called_wrong(tmp_path, rows):
    text = "".join(Page(write(tmp_path, trajectories={"warm": [trajectory(rows[0], right=False)]})).text)
    assert "✗ wrong" in text
    assert "✓ right" not in text


def test_crops_and_targets_are_drawn_in_pixels_of_the_original(tmp_path, rows):
    html = write(tmp_path, trajectories={"stage1": [trajectory(rows[0], crops=[(10, 20, 110, 80)])]})
    assert '<rect class="crop" x="10.0" y="20.0" width="100.0" height="60.0"/>' in html
    assert '<rect class="target" x="140.0" y="84.0" width="28.0" height="28.0"/>' in html
    assert html.count('viewBox="0 0 224 168"') == 2


def test_the_curves_follow_the_style_of_the_page(tmp_path):
    html = write(tmp_path, curves=CURVES)
    assert html.count("<figure role=") == 12
    for arm in ("stage1", "stage2", "control"):
        assert f"stroke: var(--{arm})" in html
    assert not re.search(r"#0[1-5]0[1-5]0[1-5]", html)
    assert "reward 0" not in html
    assert "stage 1 0.11 → 0.89" in html


def test_the_same_numbers_give_the_same_bytes(tmp_path, rows):
    first = write(tmp_path, curves=CURVES, trajectories=everywhere(rows))
    assert write(tmp_path, curves=CURVES, trajectories=everywhere(rows)) == first


def test_a_large_evaluation_stays_small(tmp_path, rows):
    big = tmp_path / "big.png"
    Image.effect_noise((1800, 1200), 90).convert("RGB").save(big)
    noisy = [dataclasses.replace(rows[0], id=str(i), image=big, size=(1800, 1200)) for i in range(40)]
    write(tmp_path, curves=CURVES, trajectories=everywhere(noisy))
    assert (tmp_path / "report.html").stat().st_size < 4e6


@pytest.mark.parametrize("phases", [[], ["warm"], ["warm", "stage1"], ["stage2"], ["stage1", "control"]])
def test_phases_may_be_missing(tmp_path, rows, phases):
    html = write(
        tmp_path,
        results={phase: RESULTS[phase] for phase in phases},
        curves={phase: CURVES[phase] for phase in phases if phase in CURVES},
        trajectories={phase: everywhere(rows[:2])[phase] for phase in phases},
    )
    text = "".join(Page(html).text)
    assert not re.search(r"\b(nan|none)\b", text.lower())
    for phase, name in PHASES.items():
        assert (f"<h4><span>{name}" in html) == (phase in phases)


def test_numbers_that_do_not_apply_are_said_so(tmp_path):
    nothing = dict.fromkeys(METRICS["stage1"]) | {"questions": 4, "accuracy": 0.5}
    html = write(tmp_path, results={"warm": nothing, "stage1": nothing, "stage2": nothing})
    assert "n/a" in html
    assert "None" not in html


def test_the_story_is_told_from_the_numbers(tmp_path):
    good = "".join(Page(write(tmp_path)).text)
    assert "Stage 1 taught it to focus" in good
    assert "costs 77 points of accuracy: its answers come from the crops" in good
    assert "Stage 2 taught it to crop precisely" in good
    assert "8 of 8 reached" in good
    worse = {"stage1": {"accuracy": 0.2, "iou": 0.5}, "stage2": {"iou": 0.4, "overlap": 0.5}}
    bad = "".join(Page(write(tmp_path, results={k: RESULTS[k] | worse.get(k, {}) for k in PHASES})).text)
    assert "Stage 1 did not help" in bad
    assert "Stage 2 did not tighten the crops" in bad
    assert "✗ not reached" in bad


def test_resolution_selection_is_told_from_its_summaries(tmp_path):
    one = {"method": "answer", "tokens": {"54": 30, "108": 6}, "never_diverged": 4}
    html = write(tmp_path, results=RESULTS | {"selection": {"stage1": one, "stage2": one}})
    assert "Of 72 questions: 60 at 54 visual tokens, 12 at 108 visual tokens; 8 kept their answer" in html
    hard = {"method": "hard", "tokens": {"54": 36}}
    both = write(tmp_path, results=RESULTS | {"selection": {"stage1": one, "stage2": hard}})
    assert "Of 36 questions" in both
    assert "How coarse" not in write(tmp_path, results=RESULTS | {"selection": {"stage1": hard}})


GOALS = [  # phase, changed metrics, the goal that must fall
    ("stage1", {"accuracy": 0.5, "accuracy_noise_crop": 0.05}, "25 points"),
    ("stage1", {"accuracy": 0.79}, "80 %"),
    ("stage1", {"accuracy_noise_crop": 0.6}, "30 points"),
    ("stage1", {"format_noise_crop": 0.5}, "format of the replies"),
    ("stage2", {"iou": 0.29}, "IoU higher"),
    ("control", {"iou": 0.7}, "IoU higher"),
    ("stage2", {"bbox_ratio": 0.1}, "crops less"),
    ("stage2", {"overlap": 0.879}, "overlap lower by at most"),
    ("stage2", {"accuracy": 0.809}, "keeps the accuracy"),
]


@pytest.mark.parametrize(("phase", "changed", "goal"), GOALS, ids=[f"{case[0]} {case[2]}" for case in GOALS])
def test_a_missed_target_is_not_called_reached(phase, changed, goal):
    assert all(each.met for each in check_goals(RESULTS))
    results = RESULTS | {phase: RESULTS[phase] | changed}
    (found,) = [each for each in check_goals(results) if goal in each.text]
    assert not found.met


@pytest.mark.parametrize("lower", [0.0, 0.03])
def test_three_points_are_not_lower_and_equal_is_not_higher(lower):
    same = {name: {"accuracy": 0.9, "iou": 0.5, "overlap": 0.9, "bbox_ratio": 0.1} for name in PHASES}
    same["stage2"] |= {"accuracy": 0.9 - lower, "overlap": 0.9 - lower}
    met = {goal.text: goal.met for goal in check_goals(same)}
    assert [met[text] for text in met if "at most 0.03" in text or "3 points" in text] == [True, True]
    assert [met[text] for text in met if "IoU higher" in text or "crops less" in text] == [False, False]


def test_intervals_take_the_picture_as_the_unit(rows):
    """Eight questions of one picture are one observation: too few for an interval, whatever they say."""
    crops = ((140, 84, 168, 112),)
    one_picture = [trajectory(rows[0], right=bool(i % 2), crops=crops) for i in range(8)]
    assert intervals_of(one_picture)["accuracy"] == {"value": 0.5, "low": None, "high": None, "n": 1}
    pictures = [dataclasses.replace(rows[0], image=f"{i // 2}.jpg") for i in range(40)]
    many = [trajectory(row, right=i % 4 < 2) for i, row in enumerate(pictures)]
    found = intervals_of(many)["accuracy"]
    assert (found["value"], found["n"]) == (0.5, 20)
    assert found["low"] <= 0.3 < 0.7 <= found["high"]  # of 20 observations, not of 40


def test_differences_are_paired(rows):
    pictures = [dataclasses.replace(rows[0], image=f"{i}.jpg") for i in range(40)]
    hard = [i % 2 == 0 for i in range(40)]
    before = [trajectory(row, right=not each) for row, each in zip(pictures, hard, strict=True)]
    after = [
        trajectory(row, right=not each or i < 8)
        for i, (row, each) in enumerate(zip(pictures, hard, strict=True))
    ]
    found = differences_between({"warm": before, "stage1": after})
    assert list(found) == ["stage1 - warm"]
    accuracy = found["stage1 - warm"]["accuracy"]
    assert accuracy["value"] == 0.1
    assert 0 < accuracy["low"] < 0.1 < accuracy["high"] < 0.25  # unpaired it would reach below 0
    goals = check_goals({"warm": {"accuracy": 0.5}, "stage1": {"accuracy": 0.6}, "differences": found})
    low, high = accuracy["low"], accuracy["high"]
    assert f"from 50% to 60%; difference +10% ({low:+.0%} to {high:+.0%})" in [goal.numbers for goal in goals]


def test_goals_without_numbers_are_left_out():
    assert check_goals({}) == []
    assert [goal.numbers for goal in check_goals({"stage1": {"accuracy": 0.8}})] == ["80%"]


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)
message = st.fixed_dictionaries(
    {"role": st.sampled_from(["assistant", "tool"])},
    optional={
        "content": st.text() | st.none() | st.lists(junk, max_size=3),
        "reasoning_content": st.text(max_size=9),
        "tool_calls": st.lists(
            st.fixed_dictionaries({"function": st.fixed_dictionaries({"name": junk, "arguments": junk})})
        ),
    },
)


@given(messages=st.lists(message, max_size=4))
@profile(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_transcript_breaks_the_page(tmp_path, rows, messages):
    Page(write(tmp_path, trajectories={"warm": [EvaluatedRollout(rows[0], messages, scored(crops=()))]}))


def test_a_runaway_text_is_cut(tmp_path, rows):
    html = write(tmp_path, trajectories={"warm": [trajectory(rows[0], "z" * 100_000)]})
    assert "z" * 1500 + " …" in html
    assert "z" * 1501 not in html


def test_the_running_mean_keeps_ends_and_length():
    values = np.arange(40.0)
    smooth = report._smooth(values)
    assert len(smooth) == 40
    assert smooth[20] == 20
    assert smooth[0] < 3
    assert report._smooth(np.array([5.0])).tolist() == [5.0]
