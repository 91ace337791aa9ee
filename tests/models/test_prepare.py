"""Prepared model directories: any tool that reads their files gets what our trainer has in memory."""

import json
import os
import shutil
import socket
from pathlib import Path

import pytest
import torch
from jinja2 import nodes
from PIL import Image
from safetensors.torch import save_file
from transformers import AutoTokenizer, GenerationConfig
from transformers.utils.chat_template_utils import _compile_jinja_template
from trl import chat_template_utils as trl_templates

from lfpc_trl.commands import prepare_model as command
from lfpc_trl.errors import UserError
from lfpc_trl.models import families, prepare, processors, weights
from lfpc_trl.models.prepare import planned_changes
from tests import tiny

WARM = Path(prepare.__file__).parents[1] / "demo" / "warm"


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def edit(path, **values):
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(content | values))


@pytest.fixture(scope="module")
def source(model_dir, tmp_path_factory):
    """As checkpoints are published: old names, a template without tools, sampling settings of their own."""
    folder = tmp_path_factory.mktemp("source")
    shutil.copytree(model_dir, folder, dirs_exist_ok=True)
    (folder / "chat_template.jinja").unlink()
    edit(folder / "chat_template.json", chat_template=tiny.STOCK_QWEN2_5)
    edit(folder / "tokenizer_config.json", chat_template="{{ messages }}")
    edit(folder / "preprocessor_config.json", min_pixels=3136, max_pixels=1003520)
    sampling = {
        "do_sample": True,
        "temperature": 1e-6,
        "top_k": 1,
        "top_p": 0.001,
        "repetition_penalty": 1.05,
    }
    edit(folder / "generation_config.json", **sampling)
    (folder / "README.md").write_text("A model.")
    (folder / ".cache").mkdir()
    (folder / ".gitattributes").write_text("*")
    return folder


@pytest.fixture(scope="module")
def prepared(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared") / "model"
    prepare.prepare_model(source, folder)
    return folder


# --- what other tools read ---------------------------------------------------------------------------


def test_a_stock_tokenizer_has_the_template_and_the_parser_of_the_trainer(prepared, source):
    ours, stock = processors.load_processor(source), AutoTokenizer.from_pretrained(prepared)
    assert stock.chat_template == ours.chat_template != tiny.STOCK_QWEN2_5
    assert stock.response_template == families.RESPONSE_TEMPLATE
    ids = stock('<tool_call>{"name": "look", "arguments": {"box": [1]}}</tool_call><|im_end|>')["input_ids"]
    prefix = stock("<|im_start|>assistant\n")["input_ids"]
    assert trl_templates.parse_response(stock, ids, prefix=prefix)["tool_calls"][0]["function"] == {
        "name": "look",
        "arguments": {"box": [1]},
    }


def test_vllm_sees_that_the_template_takes_content_blocks(prepared):
    """It looks for a loop over the content of each message; without, it sends flat strings instead."""
    template = (prepared / "chat_template.jinja").read_text()
    tree = _compile_jinja_template(template).environment.parse(template)
    outer = [each for each in tree.find_all(nodes.For) if each.iter == nodes.Name("messages", "load")]
    content = nodes.Getattr(nodes.Name("message", "load"), "content", "load")
    assert any(inner.iter == content for each in outer for inner in each.find_all(nodes.For))


def test_the_template_stands_in_one_file(prepared):
    assert not (prepared / "chat_template.json").exists()
    assert "chat_template" not in json.loads((prepared / "tokenizer_config.json").read_text())


@pytest.mark.parametrize("tokens", [(1, 1), (2, 1), (3, 5), (40, 30)])
def test_a_stock_image_processor_leaves_our_sizes_alone(prepared, tokens):
    family = families.family_of(prepared)
    stock = family.image_processor.from_pretrained(prepared)
    side = stock.patch_size * stock.merge_size
    picture = Image.new("RGB", (tokens[0] * side, tokens[1] * side))
    grid = stock(images=[picture], return_tensors="pt")["image_grid_thw"]
    assert grid.tolist() == [[1, 2 * tokens[1], 2 * tokens[0]]]


def test_the_checkpoint_itself_would_have_scaled_them(source):
    stock = families.family_of(source).image_processor.from_pretrained(source)
    side = stock.patch_size * stock.merge_size
    for tokens in [(1, 1), (40, 40)]:
        picture = Image.new("RGB", (tokens[0] * side, tokens[1] * side))
        grid = stock(images=[picture], return_tensors="pt")["image_grid_thw"]
        assert grid.tolist() != [[1, 2 * tokens[1], 2 * tokens[0]]]


def test_sampling_is_plain_and_stray_picture_tokens_are_suppressed(prepared, source):
    config = GenerationConfig.from_pretrained(prepared)
    assert (config.temperature, config.top_p, config.top_k, config.repetition_penalty) == (1.0, 1.0, 0, 1.0)
    assert config.suppress_tokens == processors.vision_token_ids(processors.load_processor(source))
    assert config.eos_token_id == GenerationConfig.from_pretrained(source).eos_token_id
    config.validate(strict=True)


def test_a_model_loaded_from_it_generates_without_the_checkpoints_habits(prepared, source):
    def first_tokens(folder):
        torch.manual_seed(0)
        model = weights.load_model(folder)
        ids = torch.tensor([[40, 41, 42]])
        return model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8).tolist()

    assert first_tokens(prepared) != first_tokens(source)


# --- a fixed point -----------------------------------------------------------------------------------


def test_loading_a_prepared_directory_changes_nothing(prepared, source):
    before, after = processors.load_processor(source), processors.load_processor(prepared)
    assert after.chat_template == before.chat_template
    assert after.tokenizer.response_template == before.tokenizer.response_template
    assert dict(after.image_processor.size) == dict(before.image_processor.size)
    assert planned_changes(source)
    assert planned_changes(prepared) == []


def test_preparing_twice_gives_the_same_files(prepared, tmp_path):
    assert prepare.prepare_model(prepared, tmp_path / "again") == []
    files = names_in(prepared)
    assert files == names_in(tmp_path / "again")
    assert all((prepared / name).read_bytes() == (tmp_path / "again" / name).read_bytes() for name in files)


def test_a_directory_written_by_transformers_itself(tmp_path):
    changes = prepare.prepare_model(WARM, tmp_path / "out")
    files = ["preprocessor_config.json", "processor_config.json", "generation_config.json"]
    assert [change.file for change in changes] == files
    flat, whole = (json.loads((tmp_path / "out" / name).read_text()) for name in files[:2])
    assert whole["image_processor"] == flat
    assert flat["size"] == {"longest_edge": 16384 * 784, "shortest_edge": 784}
    assert planned_changes(tmp_path / "out") == []


def test_a_template_with_tools_is_kept_and_moved(source, tmp_path):
    shutil.copytree(source, tmp_path / "source")
    edit(tmp_path / "source" / "chat_template.json", chat_template=tiny.COMPACT)
    [change, *_] = prepare.prepare_model(tmp_path / "source", tmp_path / "out")
    assert change.what == "the checkpoint's own template, moved here"
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == tiny.COMPACT


# --- weights -----------------------------------------------------------------------------------------


def inode(path):
    return path.stat().st_ino


def test_weights_are_linked(prepared, source):
    assert inode(prepared / "model.safetensors") == inode(source / "model.safetensors")
    assert inode(prepared / "config.json") != inode(source / "config.json")
    assert not (prepared / "model.safetensors").is_symlink()


def test_weights_on_another_file_system_are_linked_by_name(source, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.chdir(source.parent)
    prepare.prepare_model(source.name, tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").readlink() == (source / "model.safetensors").resolve()
    weights.load_model(tmp_path / "out")


def test_weights_can_be_copied(source, tmp_path):
    prepare.prepare_model(source, tmp_path / "out", weights="copy")
    assert inode(tmp_path / "out" / "model.safetensors") != inode(source / "model.safetensors")


def test_folders_and_hidden_files_stay_behind(prepared, source):
    before, after = set(names_in(source)), set(names_in(prepared))
    assert before - after == {".cache", ".gitattributes", "chat_template.json"}
    assert after - before == {"chat_template.jinja"}


# --- what is refused ---------------------------------------------------------------------------------


def test_an_output_directory_that_holds_something_is_refused(source, tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(UserError, match="the output directory must be new or empty"):
        prepare.prepare_model(source, tmp_path)
    with pytest.raises(UserError, match="the output directory must be new or empty"):
        prepare.prepare_model(source, tmp_path / "note.txt")
    assert names_in(tmp_path) == ["note.txt"]


def shard(folder):
    edit(
        folder / "model.safetensors.index.json",
        weight_map={"a": "model.safetensors", "b": "more.safetensors"},
    )


REFUSED = [
    ("a missing shard", shard, "its weights are incomplete, more.safetensors is missing"),
    ("no weights", lambda folder: (folder / "model.safetensors").unlink(), "holds no weights"),
    (
        "broken settings",
        lambda folder: (folder / "generation_config.json").write_text("{"),
        "generation_config.json: not readable",
    ),
    (
        "another kind of model",
        lambda folder: (folder / "config.json").write_text('{"model_type": "llama"}'),
        "model_type 'llama' is not supported",
    ),
]


@pytest.mark.parametrize(("_", "damage", "message"), REFUSED, ids=[case[0] for case in REFUSED])
def test_a_directory_that_is_not_good_leaves_nothing_behind(source, tmp_path, _, damage, message):
    shutil.copytree(source, tmp_path / "source")
    damage(tmp_path / "source")
    with pytest.raises(UserError, match=message):
        prepare.prepare_model(tmp_path / "source", tmp_path / "out")
    assert names_in(tmp_path) == ["source"]


@pytest.mark.parametrize("file", ["chat_template.jinja", "tokenizer_config.json", "preprocessor_config.json"])
def test_a_copy_that_loads_otherwise_is_not_delivered(source, tmp_path, monkeypatch, file):
    write = prepare._write

    def write_without(model_dir, folder, contents, *options):
        write(model_dir, folder, {name: text for name, text in contents.items() if name != file}, *options)

    monkeypatch.setattr(prepare, "_write", write_without)
    with pytest.raises(RuntimeError, match="does not load as written"):
        prepare.prepare_model(source, tmp_path / "out")
    assert names_in(tmp_path) == []


# --- the command -------------------------------------------------------------------------------------


def test_the_command_says_what_changed(source, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    command.main(["--model", str(source), "--output", str(tmp_path / "out")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "chat_template.jinja: our template, which supports tools"
    assert any("repetition_penalty 1.05 -> 1.0" in line for line in lines)
    assert any("min_pixels 3136 -> " in line for line in lines)
    assert lines[-1] == f"prepared model: {tmp_path / 'out'}"
    command.main(["--model", str(tmp_path / "out"), "--output", str(tmp_path / "again")])
    assert "nothing to change" in capsys.readouterr().out


def test_a_foreign_name_of_the_image_processor_is_replaced(source, tmp_path):
    folder = tmp_path / "source"
    shutil.copytree(source, folder)
    edit(folder / "preprocessor_config.json", image_processor_type="SomebodysImageProcessor")
    changes = prepare.prepare_model(folder, tmp_path / "model")
    settings = json.loads((tmp_path / "model" / "preprocessor_config.json").read_text())
    assert settings["image_processor_type"] == "Qwen2VLImageProcessor"
    [change] = [change for change in changes if change.file == "preprocessor_config.json"]
    assert "image_processor_type 'SomebodysImageProcessor' -> 'Qwen2VLImageProcessor'" in change.what
    assert prepare.planned_changes(tmp_path / "model") == []


# --- code and pickles --------------------------------------------------------------------------------


@pytest.fixture
def hostile(source, tmp_path):
    """A good model that brings code: files, keys that name them, and pickles."""
    folder = shutil.copytree(source, tmp_path / "hostile")
    for name in ("modeling_evil.py", "training_args.bin", "optimizer.pt"):
        (folder / name).write_bytes(b"import os")
    for name in ("config.json", "tokenizer_config.json", "preprocessor_config.json"):
        edit(folder / name, auto_map={"AutoModel": "modeling_evil.Evil"})
    return folder


def test_code_of_a_checkpoint_stays_behind_and_is_named(hostile, tmp_path):
    changes = prepare.prepare_model(hostile, tmp_path / "out")
    assert not set(names_in(tmp_path / "out")) & {"modeling_evil.py", "training_args.bin", "optimizer.pt"}
    for path in (tmp_path / "out").glob("*.json"):
        assert "auto_map" not in path.read_text(), path.name
    said = {change.file: change.what for change in changes}
    assert said["modeling_evil.py"] == "left out, code in the checkpoint"
    assert said["training_args.bin"] == "left out, loading a pickle can execute code"
    assert said["config.json"] == "auto_map left out, it names code in the checkpoint"
    assert prepare.planned_changes(tmp_path / "out") == []


def test_a_kernel_of_the_hub_stays_behind_and_is_named(source, tmp_path):
    folder = shutil.copytree(source, tmp_path / "model")
    text = json.loads((folder / "config.json").read_text())["text_config"]
    edit(
        folder / "config.json",
        _attn_implementation="owner/kernel",
        text_config=text | {"attn_implementation": "owner/kernel"},
    )
    changes = prepare.prepare_model(folder, tmp_path / "out")
    assert "owner/kernel" not in (tmp_path / "out" / "config.json").read_text()
    [said] = [change.what for change in changes if change.file == "config.json"]
    assert said.count("left out, 'owner/kernel' is code on the Hub") == 2
    edit(folder / "config.json", _attn_implementation="sdpa", text_config=text)
    assert "config.json" not in {change.file for change in prepare.planned_changes(folder)}


def only(folder, name, content=b"\x80\x04."):
    """The folder with this file in place of its weights."""
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(content)


def empty_safetensors(folder):
    save_file({}, folder / "model.safetensors")


def cut(folder):
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def outside(folder):
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../model.safetensors"}}')


NO_WEIGHTS = [
    ("a pickle", lambda f: only(f, "pytorch_model.bin"), "holds only pickled weights .pytorch_model.bin."),
    ("a pickle of arguments", lambda f: only(f, "training_args.bin"), "only pickled weights"),
    ("an adapter", lambda f: only(f, "adapter_config.json", b"{}"), "holds only an adapter"),
    (
        "another name",
        lambda f: only(f, "consolidated.safetensors"),
        "holds no weights, neither model.safetensors",
    ),
    ("no tensors", empty_safetensors, "holds no weights, its files are empty"),
    ("cut short", cut, "model.safetensors: not readable"),
    ("outside", outside, "its files must be in the same folder, got '../model.safetensors'"),
]


@pytest.mark.parametrize(("_", "damage", "message"), NO_WEIGHTS, ids=[case[0] for case in NO_WEIGHTS])
def test_a_directory_without_weights_is_one_line_wherever_it_is_read(source, tmp_path, _, damage, message):
    folder = shutil.copytree(source, tmp_path / "model")
    damage(folder)
    for read in (
        weights.check_weights,
        weights.load_model,
        lambda each: prepare.prepare_model(each, tmp_path / "out"),
    ):
        with pytest.raises(UserError, match=message):
            read(folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_what_a_killed_preparation_left_is_removed(source, tmp_path):
    left = tmp_path / f".out-{socket.gethostname()}-4194305-abc"  # above the largest number of a process
    left.mkdir()
    (left / "model.safetensors").write_bytes(b"half")
    (tmp_path / ".out-abcdefgh").mkdir()  # as older versions called them
    mine = tmp_path / f".out-{socket.gethostname()}-{os.getpid()}-abc"
    mine.mkdir()
    prepare.prepare_model(source, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == [mine.name, "out"]
