"""The reward terms under TRL's contract."""

import dataclasses
import math
import pickle
import threading

import numpy as np
import pytest

from lfpc_rewards import Frame, lfpc_reward
from lfpc_trl.rollouts.crop_tool import CropSettings
from lfpc_trl.rollouts.rewards import (
    METRICS,
    AccuracyReward,
    FormatReward,
    GroundingReward,
    ToolBonus,
    crop_metrics,
)
from lfpc_trl.rollouts.transcript import score_transcripts
from lfpc_trl.train.settings import StageSettings
from tests.rollouts.test_transcript import RIGHT, WRONG, call, crop, refusal, says

CROPS = CropSettings(frame=Frame.SHOWN, factor=28)
TERMS = [AccuracyReward(), FormatReward(), ToolBonus(), GroundingReward()]
COMPLETIONS = [
    [call(), crop(), RIGHT],
    [call([40, 30, 80, 70]), crop(), WRONG],
    [call([200, 0, 300, 9]), refusal(), RIGHT],
    [RIGHT],
    [says("no tags")],
]


def scores(term, rows, completions=COMPLETIONS, **columns):
    return term(
        completions=completions, row=rows, scored=score_transcripts(completions, rows, CROPS), prompts=[],
        completion_ids=[], trainer_state=None, **columns,
    )  # fmt: skip


@pytest.mark.parametrize("term", TERMS, ids=lambda term: term.__name__)
def test_a_term_pickles_and_works_in_a_thread(term, row):
    rows = [row] * len(COMPLETIONS)
    again = pickle.loads(pickle.dumps(term))
    seen = []
    thread = threading.Thread(target=lambda: seen.append(scores(again, rows)))
    thread.start()
    thread.join()
    assert again == term
    assert seen == [scores(term, rows)]


def test_the_names_in_the_logs():
    assert [term.__name__ for term in TERMS] == ["accuracy", "format", "tool_bonus", "grounding"]


def test_one_score_per_completion(row):
    rows = [row] * len(COMPLETIONS)
    assert scores(TERMS[0], rows) == [1, 0, 1, 1, 0]
    assert scores(TERMS[1], rows) == [0, 0, 0, 0, -1]
    assert scores(TERMS[2], rows) == [1, 0, 0, 0, 0]
    grounding = scores(TERMS[3], rows)
    assert grounding[0] == 1
    assert 0 < grounding[1] < 1
    assert grounding[2:] == [0, 0, 0]


def test_a_term_that_does_not_apply_is_none(row):
    rows = [row, dataclasses.replace(row, regions=None)] * 2 + [row]
    assert [score is None for score in scores(TERMS[3], rows)] == [False, True, False, True, False]


def test_the_weighted_terms_are_the_total_of_the_core(row):
    rows = [row] * len(COMPLETIONS)
    settings = StageSettings(stage=2, grounding_weight=1.0)
    terms, weights = settings.rewards(CROPS)
    columns = [scores(term, rows) for term in terms]
    totals = np.array(columns).T @ np.array(weights)
    expected = lfpc_reward(
        COMPLETIONS,
        [row.answer] * len(rows),
        crops=[[(30, 30, 100, 90)], [(80, 60, 160, 140)], [], [], []],
        targets=[list(row.regions)] * len(rows),
        image_sizes=row.size,
    )
    assert totals == pytest.approx(expected)


class Log(dict):
    """As TRL's: the mean over what was logged under a name, which a NaN would spoil."""

    def __call__(self, name, value):
        assert math.isfinite(value)
        self.setdefault(name, []).append(value)

    def means(self):
        return {name: sum(values) / len(values) for name, values in self.items()}


def test_what_crops_are_like_is_logged(row):
    log = Log()
    scores(TERMS[2], [row] * len(COMPLETIONS), log_metric=log)
    logged = log.means()
    assert tuple(logged) == METRICS
    assert (logged["tool_use"], logged["tool_calls"]) == (2 / 5, 2 / 5)
    failed = {name: value for name, value in logged.items() if name.startswith("failed_calls") and value}
    assert failed == {"failed_calls": 1 / 5, "failed_calls/outside": 1 / 5}
    assert 0 < logged["iou"] <= 1
    assert logged["crop_tokens"] > 0


def test_each_rollout_counts_once_however_they_are_spread_over_processes(row):
    rows, together, apart = [row] * len(COMPLETIONS), Log(), Log()
    scores(TERMS[2], rows, log_metric=together)
    for part in (slice(0, 1), slice(1, 5)):  # the second holds one of the two crops, with three others
        scores(TERMS[2], rows[part], COMPLETIONS[part], log_metric=apart)
    assert apart.means() == pytest.approx(together.means())


def test_what_applies_to_nothing_is_not_logged(row):
    log = Log()
    scores(TERMS[2], [row], [[RIGHT]], log_metric=log)
    assert log["tool_calls"] == [0]
    assert not {"iou", "overlap", "bbox_ratio", "crop_tokens"} & log.keys()
    assert math.isnan(crop_metrics(score_transcripts([[RIGHT]], [row], CROPS))["iou"])
