from lfpc_trl.run_directory import append_metrics, keep_metrics_until, read_metrics


def test_metrics_skip_what_is_no_line(tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1}\n[2]\n\xff\n\n{"step": 3}\n{"step": 4, "rew')
    assert read_metrics(tmp_path) == [{"step": 1}, {"step": 3}]


def test_a_run_that_goes_on_forgets_the_steps_it_repeats(tmp_path):
    for step in (1, 2, 3):
        append_metrics(tmp_path, {"step": step})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "rew')  # killed while it wrote
    keep_metrics_until(tmp_path, 2)
    append_metrics(tmp_path, {"step": 3, "again": True})
    assert read_metrics(tmp_path) == [{"step": 1}, {"step": 2}, {"step": 3, "again": True}]


def test_no_run_no_metrics(tmp_path):
    assert read_metrics(tmp_path / "none") == []
