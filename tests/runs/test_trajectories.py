"""The sampled rollouts of a run: written whole or not at all, read as they were written."""

import dataclasses
import multiprocessing
import os
import re
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lfpc_trl.errors import UserError
from lfpc_trl.runs.trajectories import Trajectory, TrajectoryLog, read_trajectories

ONE = Trajectory(
    step=1,
    group=0,
    rollout=0,
    row_id="q0",
    question="What is on the sign?",
    choices=None,
    accepted=("A", "a"),
    image="/data/0.png",
    image_size=(224, 168),
    messages=[
        {"role": "user", "content": [{"type": "image", "thumbnail": 0}, {"type": "text", "text": "What?"}]},
        {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "x", "arguments": {}}}]},
        {"role": "tool", "content": [{"type": "image", "thumbnail": 1}]},
    ],
    thumbnails=(b"\xff\xd8small", b"\xff\xd8crop"),
    answer=None,
    ending="over_turn",
    masked=True,
    boxes=((1, 2, 30, 40), (5, 6, 70, 80)),
    targets=[[[40.5, 40.0, 80.0, 70.0], [30.0, 30.0, 100.0, 90.0]], [[0.0, 0.0, 9.0, 9.0]]],
    scores={"accuracy": 1.0, "grounding": None},
    reward=0.8,
    advantage=-0.5,
)
BARE = dataclasses.replace(
    ONE, rollout=1, choices=("cat", "dog"), thumbnails=(), answer="B", boxes=(), targets=None, reward=None
)


def test_what_is_written_is_read(tmp_path):
    log = TrajectoryLog(tmp_path / "run" / "trajectories")
    log.write(1, [ONE, BARE])
    log.write(12, [dataclasses.replace(ONE, step=12)])
    for place in (tmp_path / "run", log.directory):
        assert read_trajectories(place) == [ONE, BARE, dataclasses.replace(ONE, step=12)]
    assert read_trajectories(log.directory / "step-000001.parquet") == [ONE, BARE]
    assert read_trajectories(tmp_path) == []
    with pytest.raises(FileNotFoundError, match="nowhere: no such file or directory"):
        read_trajectories(tmp_path / "nowhere")


# Anything JSON can say, as a model may have put it into the arguments of a call.
texts = st.text(st.characters(exclude_categories=()))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
@given(arguments=json_values, answer=st.none() | texts)
@example(arguments={}, answer="half a pair: \ud800")
def test_nothing_that_a_model_writes_stops_the_log(tmp_path, arguments, answer):
    call = {"role": "assistant", "content": "", "tool_calls": [{"function": {"arguments": arguments}}]}
    log = TrajectoryLog(tmp_path)
    log.write(1, [dataclasses.replace(ONE, messages=[call], answer=answer)])
    (read,) = read_trajectories(tmp_path)
    assert read.messages == [call]
    assert read.answer == (answer and re.sub("[\ud800-\udfff]", "?", answer))


def test_which_steps_are_kept(tmp_path):
    wanted = [step for step in range(1, 11) if TrajectoryLog(tmp_path, every=4).wants(step)]
    assert wanted == [1, 5, 9]
    assert not any(TrajectoryLog(tmp_path, groups=0).wants(step) for step in range(1, 11))
    for options in ({"every": 0}, {"groups": -1}):
        with pytest.raises(ValueError, match="every must be at least 1 and groups at least 0"):
            TrajectoryLog(tmp_path, **options)


def test_a_resumed_run_forgets_what_it_is_about_to_repeat(tmp_path):
    log = TrajectoryLog(tmp_path / "trajectories")
    log.forget_after(3)  # a run that never wrote
    for step in (1, 2, 3, 10):
        log.write(step, [dataclasses.replace(ONE, step=step)])
    (log.directory / "step-000011.tmp").write_bytes(b"PAR1 half")
    (log.directory / "step-notes.parquet").write_bytes(b"mine")
    log.forget_after(2)
    assert [trajectory.step for trajectory in read_trajectories(log.directory)] == [1, 2]
    assert sorted(path.name for path in log.directory.iterdir()) == [
        "step-000001.parquet",
        "step-000002.parquet",
        "step-notes.parquet",
    ]


def _write_forever(directory, started):
    log, step = TrajectoryLog(Path(directory)), 0
    big = dataclasses.replace(ONE, thumbnails=tuple(os.urandom(20_000) for _ in range(20)))
    while True:
        step += 1
        log.write(step, [dataclasses.replace(big, step=step)] * 3)
        started.set()


def test_a_kill_leaves_only_whole_files(tmp_path):
    context = multiprocessing.get_context("spawn")
    started = context.Event()
    writer = context.Process(target=_write_forever, args=(str(tmp_path), started))
    writer.start()
    assert started.wait(60)
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    steps = [trajectory.step for trajectory in read_trajectories(tmp_path)]
    assert steps == [step for step in range(1, steps[-1] + 1) for _ in range(3)]


def test_a_failed_write_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    from pyarrow import parquet

    log = TrajectoryLog(tmp_path)
    log.write(1, [ONE])

    def fail(table, path, **_):
        path.write_bytes(b"PAR1")
        raise OSError("disk full")

    monkeypatch.setattr(parquet, "write_table", fail)
    with pytest.raises(UserError, match=r"step-000001.parquet: cannot be written .disk full."):
        log.write(1, [BARE])
    assert read_trajectories(tmp_path) == [ONE]


def test_the_page_has_every_column_in_order():
    page = Path(__file__).parents[2] / "docs" / "reference" / "trajectories.md"
    columns = re.findall(r"^\| `(\w+)` \|", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert columns == [field.name for field in dataclasses.fields(Trajectory)]
