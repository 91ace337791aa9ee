"""The real `vllm serve`, started with the printed command, asked as `--endpoint` asks."""

import json

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed")
pytest.importorskip("openai", reason="the client of such servers is not installed")

from lfpc_rewards import Frame
from lfpc_rewards.parsing import is_image
from lfpc_trl import cli
from lfpc_trl.data.rows import write_rows
from lfpc_trl.evaluate.outputs import read_columns
from lfpc_trl.models.endpoint import Endpoint, EndpointSettings, Reply
from lfpc_trl.models.engines import TransformersEngine
from lfpc_trl.models.processors import load_processor
from lfpc_trl.models.weights import load_model
from lfpc_trl.rollouts.chat import EndpointEngine
from lfpc_trl.rollouts.crop_tool import TOOL_NAME, CropSettings
from lfpc_trl.rollouts.generate import generate_rollouts
from tests.engines.record import record
from tests.engines.serving import served

CROPS = CropSettings(Frame.SHOWN, 28, crop_tokens=64, max_crops=2)


@pytest.fixture(scope="module")
def url(widened_dir, tmp_path_factory):
    with served(widened_dir, tmp_path_factory.mktemp("served") / "serve.log") as address:
        yield address


@pytest.fixture(scope="module")
def engine(url, widened_dir):
    settings = EndpointSettings(url, "signs")
    return EndpointEngine(Endpoint(settings), 28, load_processor(widened_dir))


def call(row):
    """A turn that asks for the sign of the row, as the server gives one."""
    box = [round(side * row.shown_size[0] / row.size[0]) for side in row.regions[0][1]]
    function = {"name": TOOL_NAME, "arguments": {"bbox_2d": box}}
    sent = function | {"arguments": json.dumps({"bbox_2d": box})}
    return Reply(
        text=f"<think>near</think><tool_call>{json.dumps(function)}</tool_call>",
        content="<think>near</think>",
        tool_calls=({"id": "call-0", "type": "function", "function": sent},),
        calls=({"type": "function", "function": function},),
    ).as_turn()


def test_it_reads_the_prompts_that_we_count(engine, signs, capsys):
    """The server's count of the first prompt, pictures included, is that of the model's own processor."""
    generate_rollouts(engine, signs[:2], crop_settings=CROPS, max_turns=1, max_new_tokens=8)
    said = capsys.readouterr().err
    assert "the server counts" in said
    assert "warning" not in said


def test_rollouts_with_crops_have_our_transcripts(engine, signs):
    rollouts = generate_rollouts(
        engine,
        signs,
        crop_settings=CROPS,
        max_turns=3,
        max_new_tokens=48,
        first_turns=[call(row) for row in signs],
    )
    for rollout in rollouts:
        first, crop, *rest = rollout.messages
        assert first["content"].startswith("<think>near</think><tool_call>")
        assert is_image(crop["content"][0])
        assert rest[-1]["role"] == "assistant"
        assert rollout.usage.prompt_tokens > 54 + 1
    assert any("<answer>" in rollout.messages[-1]["content"] for rollout in rollouts)


def test_a_turn_has_the_words_of_transformers(engine, widened_dir, signs):
    """Greedy. vLLM turns the vision tower of a Qwen2.5-VL as Qwen does, whatever the config says."""
    model = load_model(widened_dir)
    if model.config.vision_config.rope_parameters["rope_theta"] != 10_000:
        pytest.skip("this checkpoint's vision tower turns otherwise")
    plain = TransformersEngine(model, engine.processor)
    options = {"crop_settings": CROPS, "tools": False, "max_new_tokens": 16}
    ours, theirs = (generate_rollouts(each, signs, **options) for each in (engine, plain))
    assert [each.messages for each in ours] == [each.messages for each in theirs]
    record("eval without the tool, greedy", "vLLM, vllm serve", equals="transformers, every word")


def test_the_command_evaluates_it(url, widened_dir, signs, tmp_path, capsys):
    write_rows(signs, tmp_path / "signs.jsonl")
    words = ["eval", "--endpoint", url, "--model", str(widened_dir), "--data", str(tmp_path / "signs.jsonl")]
    words += ["--budget", "54", "--max-turns", "3", "--crop-tokens", "64", "--max-new-tokens", "48"]
    words += [
        "--conditions",
        "predicted,no_tool",
        "--endpoint-price",
        "1,2",
        "--output",
        str(tmp_path / "eval"),
    ]
    assert cli.main(words) == 0
    assert "tokens: " in capsys.readouterr().out
    about = json.loads((tmp_path / "eval" / "evaluation.json").read_text())
    assert about["settings"]["model"] == "signs"
    assert about["endpoint"]["cost"] > 0
    assert len(read_columns(tmp_path / "eval", ("answer",))["answer"]) == 2 * len(signs)
