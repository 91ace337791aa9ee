import os

import pytest

from lfpc_trl.errors import UserError
from lfpc_trl.runs.directory import append_metrics, check_new, read_metrics, truncate_metrics, versions


def test_metrics_skip_what_is_no_line(tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1}\n[2]\n\xff\n\n{"step": 3}\n{"step": 4, "rew')
    assert read_metrics(tmp_path) == [{"step": 1}, {"step": 3}]


def test_a_run_that_goes_on_forgets_the_steps_it_repeats(tmp_path):
    for step in (1, 2, 3):
        append_metrics(tmp_path, {"step": step})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "rew')  # killed while it wrote
    truncate_metrics(tmp_path, 2)
    append_metrics(tmp_path, {"step": 3, "again": True})
    assert read_metrics(tmp_path) == [{"step": 1}, {"step": 2}, {"step": 3, "again": True}]


def test_no_run_no_metrics(tmp_path):
    assert read_metrics(tmp_path / "none") == []


def test_git_is_asked_without_the_callers_settings(tmp_path, monkeypatch):
    """A program of the caller's choosing would run, and another repository would answer."""
    ran = tmp_path / "ran"
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {ran}\n")
    program.chmod(0o755)
    settings = tmp_path / "settings"
    settings.write_text(f"[core]\n\tfsmonitor = {program}\n")
    plain = versions()["commit"]
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(settings))
    monkeypatch.setenv("GIT_DIR", os.devnull)
    assert versions()["commit"] == plain
    assert not ran.exists()


def test_a_new_directory_may_hold_what_a_failed_start_has_told_of_vllm(tmp_path):
    check_new(tmp_path / "none")
    check_new(tmp_path)
    (tmp_path / "vllm-1.log").write_text("Traceback")
    check_new(tmp_path)
    for name in (".hidden", "model.safetensors"):
        (tmp_path / name).touch()
        with pytest.raises(UserError, match="must be new or empty"):
            check_new(tmp_path)
        (tmp_path / name).unlink()
    with pytest.raises(UserError, match="must be new or empty"):
        check_new(tmp_path / "vllm-1.log")
