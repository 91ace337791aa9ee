"""Reading trajectories: filters against a slow reading of the same rows, refreshes, bad files."""

import json
import math

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from lfpc_trl.errors import DataError, UserError
from lfpc_trl.runs.reading import BATCH, Filter, Run, crop_scores, crops_by_row
from tests.pages.conftest import SIGN, trajectory, write_trajectories


def run_of(folder, trajectories, **options):
    return Run(
        write_trajectories(
            folder / "run" / "trajectories" / "step-000001.parquet", trajectories, **options
        ).parents[1]
    )


MIXED = [
    trajectory(step=1, row_id="a", question="What does the SIGN say?"),
    trajectory(
        step=1, row_id="b", answer="XX", scores=[("accuracy", 0.0)], boxes=[], reward=0.0, ending="truncated"
    ),
    trajectory(step=2, row_id="a", boxes=[[100, 100, 150, 150]], scores=[("accuracy", 0.0)], reward=None),
    trajectory(step=2, row_id="c", targets=None, scores=[("accuracy", None)], answer=None, reward=1.0),
    trajectory(step=3, row_id="c_%", scores=[], reward=-1.0, boxes=[[0, 0, 50, 50], [100, 100, 200, 150]]),
]
FILTERS = [
    ("nothing asked", Filter(), [0, 1, 2, 3, 4]),
    ("right", Filter(outcome="right"), [0]),
    ("wrong, undecided ones left out", Filter(outcome="wrong"), [1, 2]),
    ("no crop", Filter(crop="no"), [1]),
    ("with a crop", Filter(crop="yes"), [0, 2, 3, 4]),
    ("low overlap, none without targets", Filter(overlap_below=0.9), [1, 2]),
    ("a little overlap", Filter(overlap_below=0.1), [1]),
    ("a step", Filter(step=2), [2, 3]),
    ("an ending", Filter(ending="truncated"), [1]),
    ("text in the question, any case", Filter(text="sign"), [0]),
    ("text in the answer", Filter(text="xx"), [1]),
    ("text in the row's id", Filter(text="c_"), [4]),
    ("no pattern", Filter(text="c_."), []),
    ("two at once", Filter(outcome="wrong", step=2), [2]),
    ("lowest reward first, none last", Filter(order="reward"), [4, 1, 3, 0, 2]),
    ("lowest overlap first", Filter(order="overlap"), [1, 2, 0, 4, 3]),
]


@pytest.mark.parametrize(("_", "wanted", "positions"), FILTERS, ids=[case[0] for case in FILTERS])
def test_filters(tmp_path, _, wanted, positions):
    assert run_of(tmp_path, MIXED).select(wanted).tolist() == positions


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(1, 4), st.booleans(), st.booleans()),
        min_size=1,
        max_size=90,
    ),
    st.integers(1, 40),
)
def test_every_trajectory_is_found_whatever_the_row_groups(tmp_path_factory, facts, row_group):
    trajectories = [
        trajectory(
            row_id=row,
            step=step,
            boxes=SIGN if crop else [],
            answer=str(number),
            scores=[("accuracy", float(right))],
        )
        for number, (row, step, crop, right) in enumerate(facts)
    ]
    run = run_of(tmp_path_factory.mktemp("r"), trajectories, row_group_size=row_group)
    assert [run.columns(position)["answer"] for position in range(len(run))] == [
        str(n) for n in range(len(facts))
    ]
    for position in range(len(run)):
        row, step, *_ = facts[position]
        assert [each["position"] for each in run.siblings(position)] == [
            number for number, fact in enumerate(facts) if fact[:2] == (row, step)
        ]
        assert [each for each, _ in run.steps_of(position)] == sorted(
            {fact[1] for fact in facts if fact[0] == row}
        )


def test_a_batch_that_spans_row_groups_is_read_whole(tmp_path):
    run = run_of(tmp_path, [trajectory(answer=str(n)) for n in range(3 * BATCH)], row_group_size=BATCH - 5)
    assert [run.columns(n)["answer"] for n in reversed(range(3 * BATCH))] == [
        str(n) for n in reversed(range(3 * BATCH))
    ]


def test_the_nearest_step_of_a_row_is_matched(tmp_path):
    run = run_of(tmp_path, MIXED)
    assert (run.match("a", 1), run.match("a", 9), run.match("a", None), run.match("z", 1)) == (0, 2, 0, None)


def test_each_step_of_a_row_has_its_first_trajectory(tmp_path):
    places = [(1, "a"), (1, "a"), (1, "b"), (2, "a"), (2, "a")]
    run = run_of(tmp_path, [trajectory(step=step, row_id=row) for step, row in places])
    assert run.steps_of(4) == [(1, 0), (2, 3)]


def test_runs_are_compared_by_the_mean_of_each_row(tmp_path):
    def scored(row, *values):
        return [trajectory(row_id=row, scores=[("accuracy", value)]) for value in values]

    mine = run_of(
        tmp_path / "mine",
        [*scored("up", 1.0, 0.0), *scored("down", 0.0), *scored("same", 1.0), *scored("new", 1.0)],
    )
    theirs = run_of(
        tmp_path / "theirs", [*scored("up", 0.0), *scored("down", 1.0, None), *scored("same", 1.0)]
    )
    assert mine.select(Filter(against="better"), theirs).tolist() == [0, 1]
    assert mine.select(Filter(against="worse"), theirs).tolist() == [2]


def evaluated(row_id, **accuracy):
    """The rollouts of one row of an evaluation, by condition."""
    return [
        trajectory(row_id=row_id, rollout=rollout, condition=condition, scores=[("accuracy", value)])
        for rollout, (condition, value) in enumerate(accuracy.items())
    ]


def test_conditions_of_an_evaluation_are_filtered_compared_and_matched(tmp_path):
    mine = run_of(
        tmp_path / "mine",
        [*evaluated("a", predicted=1.0, noise=0.0), *evaluated("b", noise=1.0, predicted=0.0)],
    )
    theirs = run_of(
        tmp_path / "theirs",
        [*evaluated("a", predicted=0.0, noise=1.0), *evaluated("b", noise=1.0, predicted=0.0)],
    )
    assert mine.facts()["conditions"] == ["predicted", "noise"]
    assert mine.select(Filter(condition="noise")).tolist() == [1, 2]
    assert [each["condition"] for each in mine.siblings(2)] == ["noise", "predicted"]
    assert mine.select(Filter(against="better"), theirs).tolist() == []
    assert mine.select(Filter(against="better", condition="predicted"), theirs).tolist() == [0]
    assert mine.select(Filter(against="worse", condition="noise"), theirs).tolist() == [1]
    assert [theirs.match("b", 1, condition) for condition in ("predicted", "noise", "")] == [3, 2, 2]


def test_files_with_and_without_conditions_stand_together(tmp_path):
    file = write_trajectories(tmp_path / "a.parquet", evaluated("a", noise=1.0))
    write_trajectories(file.with_name("b.parquet"), [trajectory()])
    run = Run(tmp_path)
    assert [run.summary(position)["condition"] for position in range(2)] == ["noise", None]
    assert run.facts()["conditions"] == ["noise"]


# --- forms -------------------------------------------------------------------------------------------


def test_a_run_a_folder_and_a_file_are_read(tmp_path):
    file = write_trajectories(tmp_path / "run" / "trajectories" / "step-000001.parquet", MIXED)
    write_trajectories(file.parent / "step-000002.parquet", MIXED[:1])
    assert [len(Run(path)) for path in (tmp_path / "run", file.parent, file)] == [6, 6, 5]


def test_only_three_columns_are_needed(tmp_path):
    table = pa.table({"row_id": ["a"], "question": ["What?"], "messages": ["[]"]})
    parquet.write_table(table, tmp_path / "plain.parquet")
    run = Run(tmp_path / "plain.parquet")
    assert run.summary(0) == {
        "position": 0,
        "row_id": "a",
        "question": "What?",
        "answer": "",
        "step": None,
        "rollout": 0,
        "condition": None,
        "crops": 0,
        "accuracy": None,
        "overlap": None,
        "reward": None,
    }
    assert run.facts()["steps"] == run.facts()["conditions"] == []


def test_a_run_with_metrics_alone_is_read(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "reward": 0.5}\n')
    assert len(Run(tmp_path)) == 0


def test_bad_files_are_named(tmp_path):
    with pytest.raises(UserError, match=r"holds neither trajectories \(.parquet\) nor metrics.jsonl"):
        Run(tmp_path)
    (tmp_path / "no.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"no.parquet: not a readable Parquet file \("):
        Run(tmp_path / "no.parquet")
    parquet.write_table(pa.table({"x": [1]}), tmp_path / "no.parquet")
    with pytest.raises(DataError, match=r"no.parquet: not a trajectory file, has no column row_id"):
        Run(tmp_path / "no.parquet")
    write_trajectories(tmp_path / "no.parquet", [trajectory(targets=[[[5, 5, 1, 1]]])])
    with pytest.raises(DataError, match=r"no.parquet: targets\[0\]"):
        Run(tmp_path / "no.parquet")


# --- a run that goes on ------------------------------------------------------------------------------


def test_new_steps_are_added_and_repeated_ones_replaced(tmp_path):
    folder = tmp_path / "trajectories"
    write_trajectories(folder / "step-000001.parquet", [trajectory(answer="1")])
    run = Run(tmp_path)
    run.refresh()
    assert run.generation == 1
    write_trajectories(folder / "step-000002.parquet", [trajectory(step=2, answer="2")])
    run.refresh()
    assert (run.generation, len(run)) == (2, 2)
    assert [run.columns(position)["answer"] for position in (0, 1)] == ["1", "2"]
    write_trajectories(folder / "step-000001.parquet", [trajectory(answer="1b"), trajectory(answer="1c")])
    run.refresh()
    assert [run.columns(position)["answer"] for position in range(len(run))] == ["1b", "1c", "2"]
    (folder / "step-000002.parquet").unlink()
    run.refresh()
    assert (run.generation, len(run)) == (4, 2)
    assert sorted(run.rows) == ["q0"]
    assert run.rows["q0"] == [0, 1]


def test_a_step_that_is_removed_meanwhile_is_told(tmp_path):
    file = write_trajectories(tmp_path / "t.parquet", [trajectory()])
    run = Run(tmp_path)
    file.unlink()
    with pytest.raises(DataError, match=r"t.parquet: not a readable Parquet file \("):
        run.columns(0)


# --- crops -------------------------------------------------------------------------------------------


def test_each_crop_has_its_own_scores():
    columns = {"boxes": [[100, 100, 200, 150], [100, 100, 150, 150], [0, 0, 9, 9]], "targets": [SIGN]}
    scores = crop_scores(columns)
    assert [each["overlap"] for each in scores] == [1.0, 0.5, 0.0]
    assert scores[0]["iou"] == 1.0
    assert crop_scores({"boxes": [[0, 0, 9, 9]], "targets": None}) == [{"overlap": None, "iou": None}]
    assert crop_scores({"boxes": [], "targets": [SIGN]}) == []


def test_boxes_to_start_from_stay_on_their_pictures(tmp_path):
    first, second, third = [1, 2, 30, 40], [5, 5, 50, 50], [7, 7, 70, 70]
    path = write_trajectories(
        tmp_path / "t.parquet",
        [
            trajectory(boxes=[first, first], box_images=[2, 1], reward=1.0),
            trajectory(boxes=[second, third], box_images=[2, 2], reward=3.0),
        ],
    )
    best = [(2, tuple(second)), (2, tuple(third)), (2, tuple(first)), (1, tuple(first))]
    assert crops_by_row(path)["q0"] == best
    assert crops_by_row(path, limit=1)["q0"] == [best[0], best[3]]


def test_boxes_to_start_from_are_the_best_ones(tmp_path):
    first, second, third = [1, 2, 30, 40], [5, 5, 50, 50], [7, 7, 70, 70]
    path = write_trajectories(
        tmp_path / "t.parquet",
        [
            trajectory(boxes=[third, first], reward=None),
            trajectory(boxes=[first], reward=0.1),
            trajectory(boxes=[second], reward=2.0),
            trajectory(boxes=[second], reward=0.0),
            trajectory(boxes=[third], reward=None),
            trajectory(row_id="other", boxes=[third]),
            trajectory(row_id="none", boxes=[]),
        ],
    )
    found = crops_by_row(path)
    assert found["q0"] == [(1, tuple(second)), (1, tuple(first)), (1, tuple(third))]
    assert found["other"] == [(1, tuple(third))]
    assert "none" not in found
    assert crops_by_row(path, limit=1)["q0"] == [(1, tuple(second))]
    with pytest.raises(UserError, match="holds no trajectories"):
        crops_by_row(tmp_path / "empty")


def test_numbers_that_are_none_stay_none(tmp_path):
    run = run_of(tmp_path, [trajectory(scores=[("accuracy", math.nan)], reward=math.nan)])
    assert json.dumps(run.summary(0), allow_nan=False)
    assert run.summary(0)["accuracy"] is None
