"""An alert when tool use collapses: once, in time, through every reporter."""

import sys
import types

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from lfpc_trl.train.alerts import ALERT, METRIC, CollapseWatch, ToolUseAlert


def alerts(values, **options):
    watch = CollapseWatch(**{"patience": 3, "window": 2} | options)
    return [step for step, value in enumerate(values) if watch.update(value)]


CASES = [  # id, shares of rollouts with a crop, steps with an alert
    ("it stays", [0.8] * 10, []),
    ("it falls to nothing", [0.8] * 4 + [0.0] * 6, [6]),
    ("it falls step by step", [0.8, 0.8, 0.5, 0.39, 0.3, 0.2, 0.1], [5]),
    ("it falls a little", [0.8] * 4 + [0.41] * 6, []),
    ("it comes back in time", [0.8, 0.8, 0.1, 0.1, 0.8, 0.1, 0.1, 0.8], []),
    ("it comes back and falls again", [0.8, 0.8, 0, 0, 0, 0, 0.5, 0, 0, 0], [4, 9]),
    ("it was never there", [0.0] * 10, []),
    ("it was rare", [0.15, 0.15, 0.15, 0, 0, 0, 0], []),
    ("one high step is no level", [0.0, 0.9, 0.0, 0.0, 0.0, 0.5, 0.5], [4]),
    ("it rose and fell", [0.1, 0.2, 0.5, 0.9, 0.9, 0.4, 0.4, 0.4], [7]),
    ("too short to tell", [0.9, 0, 0, 0], []),
    ("nothing", [], []),
]


@pytest.mark.parametrize(
    ("values", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_when_it_is_said(values, expected):
    assert alerts(values) == expected


def test_settings_that_make_no_sense_are_refused():
    for options in ({"fraction": 0.0}, {"fraction": 1.0}, {"patience": 0}, {"window": 0}):
        with pytest.raises(ValueError, match="fraction must be between 0 and 1"):
            CollapseWatch(**options)


# --- as a callback -----------------------------------------------------------------------------------


@pytest.fixture
def play(tmp_path):
    """Lets a callback see the logs of a run."""

    def run(shares, *, report_to="none", main=True, before=()):
        callback = ToolUseAlert(CollapseWatch(patience=3, window=2))
        args = TrainingArguments(output_dir=str(tmp_path), report_to="none", use_cpu=True)
        args.report_to = [report_to]
        state = TrainerState(is_world_process_zero=main)
        state.log_history = [{"loss": 1.0}] + [{METRIC: share} for share in before]
        callback.on_train_begin(args, state, TrainerControl())
        logs = [{METRIC: share} for share in shares] + [{"train_runtime": 1.0}]
        for each in logs:
            callback.on_log(args, state, TrainerControl(), logs=each)
        return [each.get(ALERT) for each in logs]

    return run


TEXT = "0% of the rollouts use a crop, down from 80%"


def test_without_a_reporter_that_can_it_stands_on_stderr_and_in_the_logs(play, capsys):
    assert play([0.8, 0.8, 0, 0, 0, 0], report_to="tensorboard") == [None] * 4 + [TEXT] + [None] * 2
    assert capsys.readouterr().err == f"lfpc: tool use collapsed: {TEXT}\n"


def test_only_the_main_process_says_it(play, capsys):
    play([0.8, 0.8, 0, 0, 0], main=False)
    assert capsys.readouterr().err == ""


def test_a_resumed_run_remembers_the_level_and_the_alert(play, capsys):
    assert play([0, 0], before=[0.8, 0.8, 0]) == [None, TEXT, None]
    assert play([0, 0], before=[0.8, 0.8, 0, 0, 0]) == [None, None, None]
    assert capsys.readouterr().err.count("collapsed") == 1


@pytest.mark.parametrize("name", ["trackio", "wandb"])
def test_a_reporter_that_can_alert_gets_it(play, capsys, monkeypatch, name):
    said = []
    reporter = types.SimpleNamespace(
        alert=lambda **alert: said.append(alert), AlertLevel=types.SimpleNamespace(WARN="warn")
    )
    monkeypatch.setitem(sys.modules, name, reporter)
    play([0.8, 0.8, 0, 0, 0], report_to=name)
    assert said == [{"title": "Tool use collapsed", "text": TEXT, "level": "warn"}]
    assert capsys.readouterr().err == ""
