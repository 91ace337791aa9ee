"""`lfpc eval`: killed, divided, gone on with, refused; and the files it leaves.

A scripted model answers, in this process and in those that are started.
"""

import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
from pyarrow import parquet

from lfpc_trl import cli
from lfpc_trl.data.rows import read_rows, write_rows
from lfpc_trl.evaluate import outputs, records
from lfpc_trl.evaluate.conditions import CONDITIONS
from lfpc_trl.pictures import originals
from lfpc_trl.runs.reading import Run
from tests.evaluate.published import hr_rows, write_tsv
from tests.evaluate.scripted_eval import ScriptedRecords

COLUMNS = {
    "benchmark": "string",
    "budget": "int32",
    "condition": "string",
    "sample": "int32",
    "row_id": "string",
    "question_id": "string",
    "category": "string",
    "accuracy": "double",
    "well_formed": "bool",
    "turns": "int32",
    "crops": "int32",
    "failed_calls": "int32",
    "iou": "double",
    "overlap": "double",
    "bbox_ratio": "double",
    "crop_tokens": "double",
    "shown_tokens": "int32",
    "seconds": "double",
}
ASKED = ("--budget", "12", "--budget", "48", "--crop-tokens", "16", "--max-new-tokens", "200")


@pytest.fixture(scope="module")
def data(tmp_path_factory, rows):
    """Nine rows on six pictures: the last three pictures have two questions each."""
    path = tmp_path_factory.mktemp("data") / "signs.jsonl"
    shared = [
        dataclasses.replace(row, image=rows[3 + number % 3].image, size=rows[0].size)
        for number, row in enumerate(rows)
    ]
    every = [
        dataclasses.replace(row, extras={"x_category": "odd" if int(row.id[-1]) % 2 else "even"})
        for row in [*rows[:3], *shared[3:]]
    ]
    write_rows(every, path)
    return path


@pytest.fixture
def work(tiny_model, data, tmp_path, monkeypatch):
    monkeypatch.setattr(records, "MakeRecords", ScriptedRecords)
    monkeypatch.setenv("SCRIPT_LOG", str(tmp_path / "turns"))
    monkeypatch.setattr(outputs, "write_outputs", lambda _: None)  # seconds; `whole` has them
    return SimpleNamespace(
        model=tiny_model.folder, data=data, output=tmp_path / "eval", turns=tmp_path / "turns"
    )


def arguments(work, *options):
    given = {"--model": work.model, "--data": work.data, "--output": work.output}
    return ["eval", *(str(part) for pair in given.items() for part in pair), *ASKED, *options]


def evaluate(work, *options):
    return cli.main(arguments(work, *options))


def content(work, without=("seconds",)):
    """Everything in the Parquet files, in order, but what a clock says."""
    files = sorted((work.output / "trajectories").glob("*.parquet"))
    rows = [row for file in files for row in parquet.read_table(file).to_pylist()]
    return [{name: value for name, value in row.items() if name not in without} for row in rows]


def journals(work):
    return sorted((work.output / "journal").glob("*.jsonl"))


def lines(work):
    return [
        json.loads(line)
        for path in journals(work)
        for line in path.read_bytes().rpartition(b"\n")[0].splitlines()[1:]
    ]


def turns(work):
    return len(work.turns.read_text().splitlines()) if work.turns.exists() else 0


@pytest.fixture(scope="module")
def whole(tiny_model, data, tmp_path_factory):
    """The outcome of an undisturbed run, and how many turns it took."""
    folder = tmp_path_factory.mktemp("whole")
    work = SimpleNamespace(model=tiny_model.folder, data=data, output=folder / "eval", turns=folder / "turns")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "MakeRecords", ScriptedRecords)
        patch.setenv("SCRIPT_LOG", str(work.turns))
        cache = originals.PictureCache()
        patch.setattr(originals, "_PICTURES", cache)
        assert evaluate(work) == 0
    return SimpleNamespace(work=work, content=content(work), turns=turns(work), decodes=cache.decodes)


# --- the files ---------------------------------------------------------------------------------------


def test_the_columns_are_those_of_the_contract(whole):
    [file] = (whole.work.output / "trajectories").glob("*.parquet")
    schema = parquet.read_schema(file)
    assert {name: str(schema.field(name).type) for name in COLUMNS} == COLUMNS
    assert parquet.ParquetFile(file).metadata.num_row_groups == 2
    assert len(whole.content) == 9 * 2 * 6 == 108


def test_every_row_is_there_at_every_budget_under_every_condition(whole):
    keys = [(row["row_id"], row["budget"], row["condition"], row["sample"]) for row in whole.content]
    assert keys == [
        (row.id, budget, condition, 0)
        for row in sorted(read_rows(whole.work.data), key=lambda row: str(row.image))
        for budget in (12, 48)
        for condition in CONDITIONS
    ]
    assert {row["shown_tokens"] for row in whole.content if row["budget"] == 12} == {12}
    assert {row["shown_tokens"] for row in whole.content if row["budget"] == 48} == {48}


def test_scores_are_those_of_what_the_script_does(whole):
    rows = {
        (row["row_id"], row["condition"]): row
        for row in whole.content
        if row["budget"] == 12  # 112 x 84: what the script's boxes are meant for
    }
    assert rows["row0", "predicted"]["crops"] == 0
    assert rows["row0", "predicted"]["iou"] is None
    one = rows["row1", "predicted"]
    assert (one["crops"], one["turns"], one["failed_calls"], one["crop_tokens"]) == (1, 2, 0, 2.0)
    assert one["boxes"] == [[120, 80, 180, 120]]
    assert one["overlap"] == 1.0
    assert (one["accuracy"], one["answer"], one["well_formed"]) == (1.0, "green", True)
    assert rows["row1", "target"]["accuracy"] == 1.0
    for condition in ("noise", "elsewhere", "no_picture", "no_tool"):
        assert rows["row1", condition]["accuracy"] == 0.0, condition
    assert rows["row1", "no_picture"]["crops"] == 0
    assert rows["row3", "predicted"]["failed_calls"] == 1
    assert rows["row1", "no_tool"]["turns"] == 1
    assert {row["category"] for row in rows.values()} == {"odd", "even"}


def test_conversations_begin_with_what_the_model_was_told(whole):
    row = next(row for row in whole.content if row["condition"] == "predicted" and row["crops"] == 2)
    messages = json.loads(row["messages"])
    roles = ["system", "user", "assistant", "tool", "assistant", "tool", "assistant"]
    assert [message["role"] for message in messages] == roles
    assert messages[1]["content"][0] == {"type": "image", "thumbnail": 0}
    assert messages[3]["content"] == [{"type": "image", "thumbnail": 1}]
    assert messages[5]["content"] == [{"type": "image", "thumbnail": 2}]
    assert len(row["thumbnails"]) == 3
    assert all(each.startswith(b"\xff\xd8") for each in row["thumbnails"])
    assert "crop" in messages[0]["content"]
    without = next(row for row in whole.content if row["condition"] == "no_tool")
    assert "crop" not in json.loads(without["messages"])[0]["content"]


def test_a_picture_is_decoded_once_for_both_budgets_all_questions_and_thumbnails(whole):
    assert whole.decodes == 6


def test_the_overview_is_written_down_once_per_row_and_size(whole):
    assert sum("overview" in line for line in lines(whole.work)) == 9 * 2


def test_lfpc_view_shows_an_evaluation(whole):
    run = Run(whole.work.output)
    facts = run.facts()
    assert (facts["count"], facts["steps"], facts["has_targets"]) == (108, [12, 48], True)
    assert [each["condition"] for each in run.siblings(0)] == facts["conditions"] == list(CONDITIONS)
    assert len(run.columns(7)["thumbnails"]) >= 1


def test_what_was_evaluated_is_on_record(whole):
    about = json.loads((whole.work.output / "evaluation.json").read_text())
    settings = about["settings"]
    assert settings["model"] == whole.work.model.name
    assert (settings["budgets"], settings["samples"]) == ([12, 48], 1)
    assert settings["conditions"] == list(CONDITIONS)
    assert settings["crops"]["crop_tokens"] == 16
    assert settings["versions"]["torch"]
    [benchmark] = about["benchmarks"]
    assert benchmark == {"name": "signs", "questions": 9, "rows": 9, "pictures": 6, "all_targets": True}
    assert about["figures"]["groups"]
    assert "noise" in (whole.work.output / "tables.md").read_text()
    assert "<html" in (whole.work.output / "report.html").read_text()


# --- going on ------------------------------------------------------------------------------------------


def test_a_run_killed_at_any_byte_of_its_journal_goes_on_to_the_same_results(work, whole):
    shutil.copytree(whole.work.output, work.output)
    [path] = journals(work)
    journal = path.read_bytes()
    for cut in sorted(random.Random(0).sample(range(len(journal)), 3)):
        path.write_bytes(journal[:cut])
        shutil.rmtree(work.output / "trajectories")
        work.turns.unlink(missing_ok=True)
        kept = len(lines(work))
        assert evaluate(work) == 0
        assert content(work) == whole.content
        assert turns(work) < whole.turns
        assert len(lines(work)) == 9 * 2 * 6 >= kept


def test_what_is_there_is_not_asked_again(work, whole):
    shutil.copytree(whole.work.output, work.output)
    assert evaluate(work) == 0
    assert turns(work) == 0
    assert content(work) == whole.content


def test_the_seconds_of_the_runs_before_are_counted(work, whole):
    shutil.copytree(whole.work.output, work.output)
    [path] = journals(work)
    path.with_name("1-1.seconds").write_text("1000.000\n")  # of a run that was killed
    assert evaluate(work) == 0
    noted = sum(float(note.read_text()) for note in path.parent.glob("*.seconds"))
    assert noted > 1000
    assert (
        json.loads((work.output / "evaluation.json").read_text())["wall_seconds"] > noted - 0.01
    )  # notes are rounded


def test_of_two_records_of_a_rollout_the_first_one_decides(work, whole):
    shutil.copytree(whole.work.output, work.output)
    [path] = journals(work)
    header, *records = map(json.loads, path.read_text().splitlines())
    others = [header, *(record | {"messages": "[]", "ending": "cut"} for record in records)]
    (path.parent / "zz.jsonl").write_text("".join(json.dumps(each) + "\n" for each in others))
    assert evaluate(work) == 0
    assert turns(work) == 0
    assert content(work) == whole.content


def test_further_budgets_conditions_and_benchmarks_ask_only_what_is_new(work, whole):
    assert evaluate(work, "--conditions", "no_tool") == 0
    assert turns(work) == 9 * 2
    assert {row["condition"] for row in content(work)} == {"no_tool"}
    assert evaluate(work, "--conditions", "predicted", "--limit", "5") == 0
    assert evaluate(work) == 0
    assert turns(work) == whole.turns  # the first turns of before are gone on with
    assert content(work) == whole.content


def test_budgets_that_show_a_picture_alike_share_its_rollouts(work, whole):
    assert evaluate(work, "--budget", "49", "--budget", "20000") == 0
    assert turns(work) == whole.turns
    more = content(work)
    assert {row["budget"] for row in more} == {12, 48, 49, 16384}

    def at(budget):
        keep = [row for row in more if row["budget"] == budget]
        return [{name: row[name] for name in row if name not in ("budget", "step")} for row in keep]

    assert at(48) == at(49) == at(16384)


def test_a_corrected_answer_is_used_and_a_changed_question_is_refused(work, whole, tmp_path, capsys):
    shutil.copytree(whole.work.output, work.output)
    changed = read_rows(work.data)
    work.data = tmp_path / "signs.jsonl"
    changed[0] = dataclasses.replace(changed[0], answer=("grey",))
    write_rows(changed, work.data)
    assert evaluate(work) == 0
    assert turns(work) == 0
    before, after = (
        {row["row_id"]: row for row in rows if row["budget"] == 12 and row["condition"] == "predicted"}
        for rows in (whole.content, content(work))
    )
    assert (before["row0"]["accuracy"], after["row0"]["accuracy"]) == (0.0, 1.0)
    assert before["row1"]["accuracy"] == after["row1"]["accuracy"]
    changed[1] = dataclasses.replace(changed[1], question="Which colour, really, row1?")
    write_rows(changed, work.data)
    assert evaluate(work) == 2
    assert "signs.jsonl row 2: its question, choices, picture or targets changed" in capsys.readouterr().err


def test_changed_targets_matter_where_they_are_shown(work, whole, tmp_path, capsys):
    shutil.copytree(whole.work.output, work.output)
    changed = read_rows(work.data)
    work.data = tmp_path / "signs.jsonl"
    changed[1] = dataclasses.replace(changed[1], regions=(np.array([[0.0, 0, 30, 30]]),))
    write_rows(changed, work.data)
    assert evaluate(work) == 2
    assert "signs.jsonl row 2: its question" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--max-turns", "3"), "max_turns was 5 and is 3"),
        (("--crop-tokens", "15"), "crops.crop_tokens was 16 and is 15"),
        (("--seed", "1"), "seed was 0 and is 1"),
        (("--temperature", "0.5"), "temperature was 0.0 and is 0.5"),
    ],
)
def test_other_settings_are_refused_by_name(work, whole, capsys, options, message):
    shutil.copytree(whole.work.output, work.output)
    assert evaluate(work, *options) == 2
    error = capsys.readouterr().err
    assert "1-of-1.jsonl: was written by a run with other settings" in error
    assert message in error


def test_another_model_is_refused(work, whole, tmp_path, capsys):
    shutil.copytree(whole.work.output, work.output)
    work.model = shutil.copytree(work.model, tmp_path / "other")
    weights = bytearray((work.model / "model.safetensors").read_bytes())
    weights[len(weights) // 2] ^= 1
    (work.model / "model.safetensors").write_bytes(weights)
    assert evaluate(work) == 2
    assert "was written by a run with other settings, model was " in capsys.readouterr().err


# --- divided -----------------------------------------------------------------------------------------


def test_shards_in_any_order_give_the_same_results(work, whole, capsys):
    for shard in ("2/3", "3/3", "1/3"):
        assert evaluate(work, "--shard", shard) == 0
        assert not (work.output / "trajectories").exists()
    assert turns(work) == whole.turns
    assert [path.name for path in journals(work)] == ["1-of-3.jsonl", "2-of-3.jsonl", "3-of-3.jsonl"]
    assert "shard 1/3: 2 pictures done" in capsys.readouterr().out
    assert evaluate(work, "--merge") == 0
    assert content(work) == whole.content
    assert turns(work) == whole.turns


def test_merging_too_early_names_what_is_missing(work, capsys):
    assert evaluate(work, "--shard", "1/3") == 0
    assert evaluate(work, "--merge") == 2
    assert "4 of 6 pictures still need rollouts, such as" in capsys.readouterr().err


def start(work, *options, seconds):
    return subprocess.Popen(
        [sys.executable, "-m", "tests.evaluate.scripted_eval", *arguments(work, *options)[1:]],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "SCRIPT_SECONDS": seconds},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.slow
def test_two_processes_killed_in_the_middle_go_on_to_the_same_results(work, whole):
    """Kill -9 to the command, whose workers end with it; the rest is done in this process."""
    options = ("--processes", "2", "--batch-size", "2", "--threads", "1")
    with start(work, *options, seconds="0.1") as process:
        while process.poll() is None and len(lines(work)) < 50:
            time.sleep(0.02)
        assert process.poll() is None, process.communicate()
        process.send_signal(signal.SIGKILL)
    assert 50 <= len(lines(work)) < 108
    assert len(set(work.turns.read_text().split())) == 2
    assert evaluate(work) == 0
    assert content(work) == whole.content
    assert len(lines(work)) == 108


# --- how it is asked ---------------------------------------------------------------------------------


def test_samples_differ_and_have_their_own_first_turns(tiny_model, data, tmp_path, monkeypatch):
    """With the real engine: what is drawn depends on the sample."""
    monkeypatch.setattr(outputs, "write_outputs", lambda _: None)
    work = SimpleNamespace(model=tiny_model.folder, data=data, output=tmp_path / "eval")
    short = ("--max-new-tokens", "4", "--limit", "1", "--conditions", "predicted,no_picture")
    assert evaluate(work, *short, "--samples", "2", "--temperature", "1", "--threads", "1") == 0
    found = content(work)
    assert [row["sample"] for row in found if row["budget"] == 12] == [0, 1, 0, 1]
    assert len({row["messages"] for row in found if row["budget"] == 12}) == 2


def test_settings_are_those_of_the_training_unless_given(work, tmp_path):
    work.model = shutil.copytree(work.model, tmp_path / "trained")
    recipe = {"method": "lfpc", "crop_tokens": 9, "max_crops": 1, "max_turns": 4, "response_tokens": 100}
    (work.model / "manifest.json").write_text(json.dumps({"recipe": recipe}))
    given = ["--budget", "12", "--max-turns", "3", "--limit", "2"]
    base = arguments(work)
    assert cli.main([*base[: len(base) - len(ASKED)], *given]) == 0
    settings = json.loads((work.output / "evaluation.json").read_text())["settings"]
    assert (settings["max_turns"], settings["max_new_tokens"]) == (3, 100)
    assert (settings["crops"]["crop_tokens"], settings["crops"]["max_crops"]) == (9, 1)


def test_a_limit_takes_questions_from_all_over_the_file(work):
    assert evaluate(work, "--limit", "3", "--conditions", "no_tool") == 0
    ids = list(dict.fromkeys(row["row_id"] for row in content(work)))
    every = [row.id for row in sorted(read_rows(work.data), key=lambda row: str(row.image))]
    assert ids == every[::3]


def test_several_benchmarks_have_a_file_each(work, tmp_path):
    other = shutil.copy(work.data, work.data.with_name("others.jsonl"))
    options = ("--data", f"more signs={other}", "--limit", "2", "--conditions", "no_tool")
    assert evaluate(work, *options) == 0
    names = sorted(path.name for path in (work.output / "trajectories").iterdir())
    assert names == ["01-signs.parquet", "02-more-signs.parquet"]
    assert {row["benchmark"] for row in content(work)} == {"signs", "more signs"}
    assert evaluate(work, "--limit", "2", "--conditions", "no_tool") == 0
    assert [path.name for path in (work.output / "trajectories").iterdir()] == ["01-signs.parquet"]


def test_a_layout_can_be_named_where_several_fit(work, tmp_path):
    work.data = write_tsv(tmp_path / "four orders.tsv", hr_rows(1))
    for options, ids in (((), 1), (("--layout", "vlmevalkit"), 4), (("--layout", "four orders=hr-bench"), 1)):
        work.output = tmp_path / str(options)
        assert evaluate(work, "--conditions", "no_tool", *options) == 0
        assert len({row["question_id"] for row in content(work)}) == ids


BAD = [  # options, what is said
    (("--budget", "0"), "--budget must be at least 1, got 0"),
    (("--samples", "2"), "--samples above 1 needs a --temperature above 0"),
    (("--samples", "0"), "--samples must be at least 1, got 0"),
    (("--limit", "0"), "--limit must be at least 1, got 0"),
    (("--temperature", "3"), "--temperature must be 0 to 2, got 3"),
    (("--shard", "3/2"), "--shard must be K/N"),
    (("--conditions", "predicted,nose"), "--conditions: conditions must be some of"),
    (("--data", "{data}"), "--data: two benchmarks are called 'signs', name them: NAME=PATH"),
    (("--data", "none.jsonl"), "none.jsonl: no such file"),
    (("--boxes", "other=b.jsonl"), "--boxes must be NAME=PATH, NAME one of signs, got 'other=b.jsonl'"),
    (("--layout", "other=rows"), "--layout must be NAME=LAYOUT, NAME one of signs, got 'other=rows'"),
    (("--layout", "hrbench"), "--layout must be one of hr-bench, vstar, "),
    (("--layout", "signs=treebench"), "unknown layout. Columns: "),
    (
        ("--max-new-tokens", "4090"),
        "row 1: at budget 48 its picture has 48 visual tokens and a turn up to 4090",
    ),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_bad_options_are_one_line_before_anything_is_asked(work, capsys, options, message):
    assert evaluate(work, *(option.format(data=work.data) for option in options)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert turns(work) == 0
    assert not work.output.exists()


def test_target_without_targets_is_refused(work, tmp_path, capsys):
    bare = [dataclasses.replace(row, regions=None) for row in read_rows(work.data)]
    work.data = tmp_path / "bare.jsonl"
    write_rows(bare, work.data)
    assert evaluate(work, "--conditions", "predicted,target") == 2
    assert "the condition target needs rows with targets" in capsys.readouterr().err
    assert evaluate(work, "--limit", "1") == 0
    assert {row["condition"] for row in content(work)} == set(CONDITIONS) - {"target"}


def test_a_directory_with_something_else_is_refused(work, capsys):
    work.output.mkdir()
    (work.output / "manifest.json").write_text("{}")
    assert evaluate(work) == 2
    assert "must be new, empty or an evaluation to go on with" in capsys.readouterr().err


def test_a_picture_that_vanishes_is_named_and_the_rest_is_done(work, whole, tmp_path, capsys, monkeypatch):
    folder = shutil.copytree(work.data.parent, tmp_path / "copy")
    rows = read_rows(work.data)
    copies = {row.image: shutil.copy(row.image, folder) for row in rows}
    work.data = folder / "signs.jsonl"
    write_rows(
        [dataclasses.replace(row, image=type(row.image)(copies[row.image])) for row in rows], work.data
    )
    gone = type(work.data)(copies[rows[0].image])
    opened = records.open_items

    def vanish(*given):
        gone.rename(tmp_path / "away.png")
        return opened(*given)

    monkeypatch.setattr(records, "open_items", vanish)
    assert evaluate(work) == 2
    assert f"picture {gone}: not finished, {gone}: " in capsys.readouterr().err
    assert len(lines(work)) == 8 * 2 * 6
    (tmp_path / "away.png").rename(gone)
    monkeypatch.setattr(records, "open_items", opened)
    assert evaluate(work) == 0
    assert content(work, ("seconds", "image")) == [
        {name: row[name] for name in row if name != "image"} for row in whole.content
    ]
