"""Model directories that break in different ways, and the verdict on each."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from lfpc_trl import cli
from lfpc_trl.conformance.checks import CHECKS, examine
from tests import tiny
from tests.conformance import record


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return record.make_model(tmp_path_factory.mktemp("sound"), "qwen3_vl")


@pytest.fixture
def folder(sound, tmp_path):
    return shutil.copytree(sound, tmp_path / "broken")


def problems(folder, until="rollout"):
    """The verdicts before a check, those that are not ok."""
    found = {}
    for verdict in examine(folder):
        if verdict.name == until:
            break
        if verdict.level != "ok":
            found[verdict.name] = (verdict.level, verdict.text)
    return found


def test_a_sound_directory_has_no_problem(folder):
    assert problems(folder) == {}


def test_weights_that_are_missing_misshapen_or_left_over_are_named(folder):
    path = folder / "model.safetensors"
    stored = load_file(path)
    names = [name for name in stored if name.endswith(("layers.0.self_attn.o_proj.weight", "norm.weight"))]
    gone = next(name for name in names if "o_proj" in name)
    bent = next(name for name in names if name.endswith("language_model.norm.weight"))
    del stored[gone]
    stored[bent] = stored[bent][:-1].clone()
    save_file(stored, path, metadata={"format": "pt"})
    level, text = problems(folder)["weights"]
    assert level == "problem"
    assert f"{gone} is missing" in text
    assert f"{bent} has shape (31,), but the config requires (32,)" in text
    stored[gone], stored[bent] = torch.zeros(32, 32), torch.zeros(32)
    save_file(stored | {"surplus": torch.zeros(1)}, path, metadata={"format": "pt"})
    assert problems(folder) == {"weights": ("warning", "surplus is unexpected")}


def test_a_template_whose_calls_nobody_reads_is_a_problem_of_the_processor(folder):
    other = tiny.COMPACT.replace("<tool_call>", "<call>").replace("</tool_call>", "</call>")
    (folder / "chat_template.jinja").write_text(other)
    found = problems(folder)
    assert found["processor"][0] == "problem"
    assert "tool calls of its chat template cannot be parsed" in found["processor"][1]
    assert found["calls"] == ("skipped", "needs processor")


TEXT_ALONE = (
    "<tool_response>{% if message.content is string %}{{ message.content }}{% else %}"
    "{% for block in message.content if block.type == 'text' %}{{ block.text }}{% endfor %}{% endif %}"
)
TEMPLATES = [  # what it lacks, and the change of a sound template that takes it
    (
        "it drops the pictures in tool messages",
        ("<tool_response>{{ show(message.content) }}", TEXT_ALONE),
    ),
    ("its turns do not end with a token", ("<|im_end|>{% endgeneration %}", "{% endgeneration %}")),
    (
        "it renders earlier turns differently",
        ("<tool_call>{{ call", "{{ messages | length }}<tool_call>{{ call"),
    ),
]


@pytest.mark.parametrize(("lacks", "change"), TEMPLATES, ids=[each[0] for each in TEMPLATES])
def test_a_template_that_does_not_do_is_replaced_and_the_reason_told(folder, lacks, change):
    changed = tiny.COMPACT.replace(*change)
    assert changed != tiny.COMPACT
    (folder / "chat_template.jinja").write_text(changed)
    text = next(verdict.text for verdict in examine(folder) if verdict.name == "chat template")
    assert text.startswith(f"ours; the checkpoint's own does not work: {lacks}")


def test_a_parser_of_its_own_that_runs_what_was_only_thought_is_found(folder):
    """A checkpoint may bring its response template; this one runs calls inside the thinking."""
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    settings["response_template"] = {
        "defaults": {"role": "assistant"},
        "start_anchor": "<|im_start|>assistant\n",
        "fields": {
            "tool_calls": {
                "open": "<tool_call>",
                "close_pattern": r"</tool_call>\s*",
                "repeats": True,
                "content": "json",
                "transform": {"type": "function", "function": "{content}"},
            },
            "content": {"close_pattern": r"<\|im_end\|>\s*", "content": "text"},
        },
    }
    path.write_text(json.dumps(settings))
    level, text = problems(folder)["calls"]
    assert level == "problem"
    assert "are run, expected []" in text


def test_a_tokenizer_without_picture_tokens_is_found(folder):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        text = (folder / name).read_text().replace("<|vision_end|>", "<|other_end|>")
        (folder / name).write_text(text)
    assert problems(folder)["processor"] == ("problem", "its tokenizer has no <|vision_end|>")


def test_another_kind_of_model_ends_after_the_first_line(folder):
    (folder / "config.json").write_text(json.dumps({"model_type": "gemma4"}))
    first, *others = examine(folder)
    assert (first.name, first.level) == ("family", "problem")
    assert "TRL 1.16 trains it until the first rollout calls the tool and then fails" in first.text
    assert {verdict.level for verdict in others} == {"skipped"}
    assert len(others) == len(CHECKS) - 1


def test_the_command_prints_a_line_per_check_and_ends_with_the_problems(folder, capsys):
    (folder / "config.json").write_text(json.dumps({"model_type": "gemma4"}))
    assert cli.main(["doctor", "--model", str(folder)]) == 2
    told = capsys.readouterr()
    assert [line.split()[0] for line in told.out.splitlines()] == [
        "problem",
        *["skipped"] * (len(CHECKS) - 1),
    ]
    assert f"{folder} has problems: family" in told.err
    assert cli.main(["doctor", "--model", str(folder), "--json"]) == 2
    assert [each["name"] for each in json.loads(capsys.readouterr().out)["findings"]] == list(CHECKS)
