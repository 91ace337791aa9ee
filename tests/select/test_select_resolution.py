"""`lfpc select-resolution` in many processes and shards, killed and gone on with.

vLLM's stand-in answers, so that the answers differ from size to size and every question is on record.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter

import psutil
import pytest

from lfpc_trl import cli
from lfpc_trl.commands import select_resolution as command
from lfpc_trl.jobs import running
from lfpc_trl.models.processors import load_processor
from tests.tiny import write_records

LADDER = ("--coarsest", "3", "--max-new-tokens", "99")


def arguments(work, *options, name="selected.jsonl", engine="vllm"):
    given = {"--model": work.model, "--data": work.data, "--output": work.folder / name, "--engine": engine}
    return ["select-resolution", *(str(part) for pair in given.items() for part in pair), *LADDER, *options]


def select(work, *options, **how):
    return cli.main(arguments(work, *options, **how))


def output(work, name="selected.jsonl"):
    return (work.folder / name).read_bytes()


def journals(work, name="selected.jsonl"):
    return sorted((work.folder / f"{name}.answers").glob("*.jsonl"))


def answered_in(journal):
    """(row, size) of every whole record of a journal's bytes."""
    records = [json.loads(line) for line in journal[: journal.rfind(b"\n") + 1].splitlines()[1:]]
    return [(each["id"], tuple(each["shown"])) for each in records]


def answered(work):
    """(row, size) of every record of every journal."""
    return [each for path in journals(work) for each in answered_in(path.read_bytes())]


def asked(work):
    """(row, size) of every question that reached the stand-in, in their order."""
    if not work.log.exists():
        return []
    tokenizer = load_processor(work.model).tokenizer
    questions = {f"What is on sign {number}?": f"q{number}" for number in range(99)}
    found = []
    for line in work.log.read_text().splitlines():
        question = json.loads(line)
        text = tokenizer.decode(question["ids"])
        [row] = [row for words, row in questions.items() if words in text]
        found.append((row, tuple(question["size"])))
    return found


@pytest.fixture
def whole(work):
    """The output of an undisturbed run in one process, and what it asked."""
    assert select(work, name="whole.jsonl") == 0
    questions = asked(work)
    work.log.unlink()
    return output(work, "whole.jsonl"), questions


def test_the_stand_in_gives_the_tests_something_to_tell_apart(work, whole):
    rows = [json.loads(line) for line in whole[0].splitlines()]
    assert len(Counter(row["selected_level"] for row in rows)) > 2
    assert {row["diverged"] for row in rows} == {row["right_at_full"] for row in rows} == {True, False}
    assert len(whole[1]) == len(set(whole[1])) < 16 * 6


@pytest.mark.parametrize(
    "options",
    [
        ("--batch-size", "1"),
        ("--batch-size", "5"),
        ("--batch-tokens", "1"),
        ("--batch-tokens", "100", "--seed", "7"),
    ],
)
def test_batches_change_nothing(work, whole, options):
    assert select(work, *options) == 0
    assert output(work) == whole[0]
    assert sorted(asked(work)) == sorted(whole[1])


def test_batches_hold_what_they_may(work, vllm):
    assert select(work, "--batch-size", "5", "--batch-tokens", "100") == 0
    sizes = [[picture_tokens(prompt) for prompt in prompts] for prompts, _ in vllm.LLM.last.calls]
    assert all(len(batch) <= 5 and sum(batch) <= 100 for batch in sizes)
    assert max(map(len, sizes)) == 5
    assert sum(batch == [48, 48] for batch in sizes) > 2
    work.log.unlink()
    assert select(work, "--batch-tokens", "1", name="other.jsonl") == 0
    assert {len(prompts) for prompts, _ in vllm.LLM.last.calls} == {1}


def test_sampled_answers_do_not_depend_on_batches_either(work, whole):
    for batch in ("1", "7"):
        options = ("--temperature", "0.5", "--seed", "3", "--batch-size", batch)
        assert select(work, *options, name=f"{batch}.jsonl") == 0
    assert output(work, "1.jsonl") == output(work, "7.jsonl") != whole[0]


def picture_tokens(prompt):
    [picture] = prompt["multi_modal_data"]["image"]
    return picture.width * picture.height // 28**2


# --- shards --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2)])
def test_shards_in_any_order_give_the_same_file(work, whole, capsys, order):
    for shard in order:
        assert select(work, "--shard", f"{shard}/3") == 0
        assert not (work.folder / "selected.jsonl").exists()
    assert sorted(asked(work)) == sorted(whole[1])
    assert [path.name for path in journals(work)] == ["1-of-3.jsonl", "2-of-3.jsonl", "3-of-3.jsonl"]
    assert "shard 1/3: 6 rows answered" in capsys.readouterr().out
    work.log.unlink()
    assert select(work, "--merge") == 0
    assert output(work) == whole[0]
    assert asked(work) == []


def test_merging_too_early_names_what_is_missing(work, capsys):
    assert select(work, "--shard", "2/3") == 0
    capsys.readouterr()
    assert select(work, "--merge") == 2
    assert (
        "11 of 16 rows still need answers, such as row q0; run the missing shards" in capsys.readouterr().err
    )


def test_shards_may_be_cut_anew_and_a_run_without_does_the_rest(work, whole):
    assert select(work, "--shard", "1/3") == 0
    assert select(work, "--shard", "2/2") == 0
    assert select(work) == 0
    assert output(work) == whole[0]
    assert sorted(asked(work)) == sorted(whole[1])


def test_a_finished_shard_asks_nothing_again(work):
    assert select(work, "--shard", "1/3") == 0
    work.log.unlink()
    assert select(work, "--shard", "1/3") == 0
    assert asked(work) == []


# --- going on ------------------------------------------------------------------------------------------


def test_a_run_killed_at_any_byte_of_its_journal_goes_on_to_the_same_file(work, whole):
    assert select(work) == 0
    [path] = journals(work)
    journal = path.read_bytes()
    for cut in sorted(random.Random(0).sample(range(len(journal)), 8)):
        path.write_bytes(journal[:cut])
        kept = answered_in(journal[:cut])
        (work.folder / "selected.jsonl").unlink()
        work.log.unlink(missing_ok=True)
        assert select(work) == 0
        assert output(work) == whole[0]
        assert not set(asked(work)) & set(kept)
        assert len(answered(work)) == len(set(answered(work)))
        assert sorted(asked(work) + kept) == sorted(whole[1])


def test_of_two_journals_with_an_answer_the_first_one_decides(work, whole):
    assert select(work) == 0
    [path] = journals(work)
    header, *records = map(json.loads, path.read_text().splitlines())
    others = [header, *(record | {"answer": "another"} for record in records)]
    (path.parent / "zz.jsonl").write_text("".join(json.dumps(each) + "\n" for each in others))
    (work.folder / "selected.jsonl").unlink()
    work.log.unlink()
    assert select(work) == 0
    assert asked(work) == []
    assert output(work) == whole[0]


def test_another_comparison_takes_the_answers_that_are_there(work, whole):
    assert select(work) == 0
    work.log.unlink()
    (work.folder / "selected.jsonl").unlink()
    assert select(work, "--same-answer", "exact") == 0
    assert output(work) == whole[0]
    assert asked(work) == []
    (work.folder / "selected.jsonl").unlink()
    assert select(work, "--same-answer", "tests.select.test_select_resolution:never_the_same") == 0
    rows = [json.loads(line) for line in output(work).splitlines()]
    assert {row["selected_level"] for row in rows} == {1}


def never_the_same(answer, reference, choices):
    return False


def test_a_longer_ladder_asks_only_at_its_new_sizes(work, whole):
    assert select(work) == 0
    work.log.unlink()
    (work.folder / "selected.jsonl").unlink()
    assert select(work, "--coarsest", "1") == 0
    assert {size for _, size in asked(work)} == {(28, 28)}


CHANGES = [  # id, options of the second run, what is said
    ("answer length", ("--max-new-tokens", "98"), "max_new_tokens was 99 and is 98"),
    ("temperature", ("--temperature", "0.5"), "seed was None and is 0|temperature was 0.0 and is 0.5"),
]


@pytest.mark.parametrize(
    ("options", "message"), [case[1:] for case in CHANGES], ids=[case[0] for case in CHANGES]
)
def test_other_settings_are_refused_by_name(work, capsys, options, message):
    assert select(work, "--shard", "1/3") == 0
    before = journals(work)[0].read_bytes()
    work.log.unlink()
    capsys.readouterr()
    for shard in ("1/3", "2/3"):
        assert select(work, "--shard", shard, *options) == 2
        error = capsys.readouterr().err
        assert "1-of-3.jsonl: was written by a run with other settings" in error
        assert any(each in error for each in message.split("|"))
    assert journals(work)[0].read_bytes() == before
    assert asked(work) == []


def test_another_engine_is_refused_by_name(work, capsys):
    assert select(work, "--shard", "1/3") == 0
    assert select(work, "--shard", "1/3", engine="transformers") == 2
    assert "engine was 'vllm' and is 'transformers'" in capsys.readouterr().err


def test_another_training_of_the_model_is_refused(work, tmp_path, capsys):
    assert select(work, "--shard", "1/3") == 0
    other = shutil.copytree(work.model, tmp_path / "other")
    weights = bytearray((other / "model.safetensors").read_bytes())
    weights[len(weights) // 2] ^= 1
    (other / "model.safetensors").write_bytes(weights)
    assert select(work, "--shard", "1/3", "--model", str(other)) == 2
    assert "was written by a run with other settings, model was " in capsys.readouterr().err


def test_changed_rows_are_refused_by_name_and_new_ones_are_asked(work, capsys):
    assert select(work, "--shard", "1/1") == 0
    records = [json.loads(line) for line in work.data.read_text().splitlines()]
    work.log.unlink()
    extra = records[0] | {"id": "q77", "question": "What is on sign 77?"}
    corrected = [records[0] | {"answer": "B"}, *records[2:], extra]  # another answer, one row gone, one new
    write_records(work.data, corrected)
    assert select(work) == 0
    assert {row for row, _ in asked(work)} == {"q77"}
    assert len(output(work).splitlines()) == 16
    (work.folder / "selected.jsonl").unlink()
    corrected[3]["question"] += " Look!"
    write_records(work.data, corrected)
    capsys.readouterr()
    assert select(work) == 2
    assert "rows.jsonl row 4: its question, choices or picture changed since" in capsys.readouterr().err


# --- what goes wrong -----------------------------------------------------------------------------------


def test_a_picture_that_vanishes_costs_its_row_alone(work, whole, capsys, monkeypatch):
    gone = work.folder / "images" / "3.png"
    ask = command._ask

    def vanish(*given):
        gone.rename(work.folder / "away.png")
        return ask(*given)

    monkeypatch.setattr(command, "_ask", vanish)
    assert select(work) == 2
    error = capsys.readouterr().err
    assert f"row q3: not finished, {gone}: " in error
    assert "No such file" in error
    assert {row for row, _ in answered(work)} == {f"q{number}" for number in range(16)} - {"q3"}
    (work.folder / "away.png").rename(gone)
    monkeypatch.setattr(command, "_ask", ask)
    assert select(work) == 0
    assert output(work) == whole[0]


BAD = [  # options, what is said
    (("--shard", "4/3"), "--shard must be K/N with 1 <= K <= N, such as 3/16, got '4/3'"),
    (("--shard", "0/3"), "--shard must be K/N with 1 <= K <= N, such as 3/16, got '0/3'"),
    (("--shard", "three"), "--shard must be K/N"),
    (("--shard", "1/3", "--merge"), "give one of them"),
    (("--shard", "1/3", "--method", "hard"), "of the method answer; hard asks nothing"),
    (("--processes", "0"), "--processes must be at least 1, got 0"),
    (("--batch-tokens", "0"), "--batch-tokens must be at least 1, got 0"),
    (("--threads", "0"), "--threads must be at least 1, got 0"),
    (("--temperature", "-1"), "--temperature must be 0 to 2, got -1"),
    (("--temperature", "nan"), "--temperature must be 0 to 2, got nan"),
    (
        ("--same-answer", "nonsense"),
        "same-answer must be one of rewards, exact, module:function, got 'nonsense'",
    ),
    (("--same-answer", "json:nothing"), "same-answer json:nothing: json has no function nothing"),
    (("--same-answer", "json:__name__"), "same-answer json:__name__: json has no function __name__"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_bad_options_are_one_line_before_anything_is_asked(work, capsys, options, message):
    assert select(work, *options) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not journals(work)


LADDERS = [  # options, what is said
    (("--ladder", "64,256"), "--ladder: budgets must fall, got [64, 256]"),
    (("--ladder", "64,64"), "--ladder: budgets must fall, got [64, 64]"),
    (("--ladder", "64,0"), "--ladder: budgets must be at least 1 visual token each, got [64, 0]"),
    (("--ladder", "64,,4"), "--ladder must be whole numbers such as 4096,1024,256,64, got '64,,4'"),
    (("--ladder", ""), "--ladder must be whole numbers"),
    (
        ("--ladder", "64,4", "--coarsest", "4"),
        "--ladder names every level: leave --finest and --coarsest out",
    ),
    (("--finest", "3", "--coarsest", "4"), "needs 1 <= coarsest <= finest, got coarsest 4 and finest 3"),
    (("--finest", "0"), "needs 1 <= coarsest <= finest, got coarsest 64 and finest 0"),
]


@pytest.mark.parametrize(("options", "message"), LADDERS)
def test_bad_ladders_are_one_line_before_anything_is_read(tmp_path, capsys, options, message):
    given = ("--model", "none", "--data", "none.jsonl", "--output", str(tmp_path / "out.jsonl"))
    assert cli.main(["select-resolution", *given, *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"lfpc: error: {message}")
    assert error.count("\n") == 1


def test_a_ladder_of_ones_own(work):
    given = [*arguments(work)[: -len(LADDER)], "--ladder", "40,6,1", "--max-new-tokens", "99"]
    assert cli.main(given) == 0
    assert {size for _, size in asked(work)} == {(196, 140), (56, 56), (28, 28)}


@pytest.mark.parametrize("token", ["<|image_pad|>", "<|im_end|>"])
def test_a_question_that_spells_a_special_token_is_refused(work, capsys, token):
    records = [json.loads(line) for line in work.data.read_text().splitlines()]
    records[2]["question"] = f"What is {token}?"
    write_records(work.data, records)
    assert select(work) == 2
    assert f"row 3: question and choices must not hold '{token}'" in capsys.readouterr().err


def test_more_processes_than_gpus_are_refused(work, capsys, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert select(work, "--processes", "3") == 2
    assert "--processes must be at most the 2 visible GPUs, got 3" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("visible", "expected"),
    [("2,5", ["2", "5"]), ("MIG-a,MIG-b,MIG-c", ["MIG-a", "MIG-b"]), ("", [None, None])],
)
def test_every_process_has_a_gpu_of_its_own_or_its_share_of_the_cores(monkeypatch, visible, expected):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(9))
    found = running.environments(2, None)
    assert [each.get("CUDA_VISIBLE_DEVICES") for each in found] == expected
    assert {each["OMP_NUM_THREADS"] for each in found} == {"4"}


# --- real processes, real kills ------------------------------------------------------------------------


def start(work, *options, **environment):
    """The command in a process of its own, in a session of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "lfpc_trl.cli", *arguments(work, *options)],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell that runs the tests in the background ignores Ctrl-C, and its children would, too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def wait_for_answers(work, process, count):
    while process.poll() is None and len(answered(work)) < count:
        time.sleep(0.02)
    assert process.poll() is None, process.communicate()


def askers(work):
    """The processes that have asked a question."""
    return {json.loads(line)["pid"] for line in work.log.read_text().splitlines() if line.endswith("}")}


def wait_until_gone(processes):
    _, alive = psutil.wait_procs(processes, timeout=60)
    assert all(process.status() == psutil.STATUS_ZOMBIE for process in alive)


@pytest.mark.slow
def test_two_processes_killed_and_interrupted_go_on_to_the_same_file(work, whole):
    """Kill -9, then Ctrl-C: what was written down is never asked again, and no process is left behind."""
    options = ("--processes", "2", "--batch-size", "1", "--threads", "1")
    with start(work, *options, STAND_IN_SECONDS="0.3") as process:
        wait_for_answers(work, process, 5)
        while process.poll() is None and len(askers(work)) < 2:  # one may start much later than the other
            time.sleep(0.02)
        workers = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGKILL)
        wait_until_gone(workers)
    assert len(askers(work)) == 2
    killed = answered(work)
    asked_before = len(asked(work))

    # Slower, so that the signal comes before the last answer on any machine.
    with start(work, *options, STAND_IN_SECONDS="2") as process:
        wait_for_answers(work, process, len(killed) + 2)
        workers = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGINT)
        said, error = process.communicate(timeout=60)
    wait_until_gone(workers)
    assert process.returncode == 130
    assert f"going on: {len(killed)} answers are there already" in said
    assert f"{len(answered(work))} answers are saved in {journals(work)[0].parent}" in error
    assert "run the same command to resume" in error
    assert "Traceback" not in error
    assert not set(asked(work)[asked_before:]) & set(killed)

    interrupted = answered(work)
    asked_before = len(asked(work))
    assert select(work) == 0
    assert output(work) == whole[0]
    assert not set(asked(work)[asked_before:]) & set(interrupted)
    assert len(answered(work)) == len(set(answered(work))) == len(whole[1])


@pytest.mark.slow
def test_transformers_in_two_processes_write_the_file_of_one(work):
    """A real model with random weights; nothing but the sameness of the runs can be seen on it."""
    for options, name in ((("--processes", "2"), "two.jsonl"), ((), "one.jsonl")):
        short = ("--threads", "1", "--max-new-tokens", "4", *options)
        assert select(work, *short, name=name, engine="transformers") == 0
    assert output(work, "one.jsonl") == output(work, "two.jsonl")
