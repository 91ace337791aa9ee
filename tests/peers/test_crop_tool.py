"""The crop tool inside the real verl and ms-swift: the scripts of the page, called as they call them."""

import asyncio
import base64
import io
import json
import re
from pathlib import Path
from types import SimpleNamespace

import yaml
from PIL import Image

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "use-the-crop-tool-elsewhere.md"


def block(language, word):
    """The one example of a language that holds a word."""
    found = re.findall(
        rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    [text] = [each for each in found if word in each]
    return text


def row_of(folder):
    Image.effect_noise((224, 168), 60).convert("RGB").save(folder / "sign.png")
    return {
        "question": "What is on the sign?",
        "answer": "A",
        "image": str(folder / "sign.png"),
        "shown_size": [112, 84],
    }


def expected(row):
    with Image.open(row["image"]) as original:
        return original.convert("RGB").crop((20, 20, 120, 100)).resize((112, 84), Image.Resampling.BICUBIC)


def near(one, other):
    assert one.size == other.size
    return (
        sum(abs(a - b) for a, b in zip(one.tobytes(), other.tobytes(), strict=True)) / len(one.tobytes()) < 3
    )


def test_verl_runs_the_tool(tmp_path):
    from verl.tools.schemas import OpenAIFunctionToolSchema

    [described] = yaml.safe_load(block("yaml", "crop_tool.CropTool"))["tools"]
    names = {}
    exec(compile(block("python", "BaseTool"), "crop_tool.py", "exec"), names)
    tool = names["CropTool"](
        described["config"], OpenAIFunctionToolSchema.model_validate(described["tool_schema"])
    )
    row = row_of(tmp_path)

    async def call(parameters):
        """As `ToolAgentLoop._call_tool` does."""
        name, _ = await tool.create(create_kwargs=row)
        response, *_ = await tool.execute(name, parameters, agent_data=None)
        await tool.release(name)
        return response

    good = asyncio.run(call({"bbox_2d": [10, 10, 60, 50]}))
    assert near(good.image[0], expected(row))
    assert "error" in asyncio.run(call({"bbox_2d": [50, 50, 20, 20]})).text
    assert "error" in asyncio.run(call({"box": 1})).text
    assert tool.rollouts == {}


def test_ms_swift_runs_the_scheduler(tmp_path):
    from swift.infer_engine.protocol import RolloutInferRequest
    from swift.rollout.multi_turn import multi_turns

    exec(compile(block("python", "MultiTurnScheduler"), "crop_plugin.py", "exec"), {})
    scheduler = multi_turns["lfpc_crops"](max_turns=3)
    row = row_of(tmp_path)
    call = {"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [10, 10, 60, 50]}}
    texts = [
        f"<think>near</think><tool_call>{json.dumps(call)}</tool_call>",
        "<think>near</think><tool_call>"
        + json.dumps(call | {"arguments": {"bbox_2d": [50, 50, 20, 20]}})
        + "</tool_call>",
        "<think>so</think><answer>A</answer>",
    ]
    choices = [SimpleNamespace(message=SimpleNamespace(content=text), finish_reason="stop") for text in texts]
    request = RolloutInferRequest(messages=[{"role": "user", "content": "<image>?"}], data_dict={"row": row})
    assert [scheduler.check_finished(request, choice, 1) for choice in choices] == [False, False, True]
    scheduler.step(request, choices[0], 1)
    assert request.messages[-1] == {"role": "tool", "content": "<image>"}
    with Image.open(io.BytesIO(base64.b64decode(request.images[-1]))) as crop:
        assert near(crop.convert("RGB"), expected(row))
    scheduler.step(request, choices[1], 2)
    assert "error" in request.messages[-1]["content"]
    assert len(request.images) == 1
