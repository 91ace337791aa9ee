"""The crop tool in a TRL script of one's own: the script of the page."""

import re
import shutil
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "use-the-crop-tool-elsewhere.md"


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_the_script_trains_on_rollouts_with_crops(taught_dir, data_file, tmp_path, monkeypatch):
    """As it stands, but that here is no GPU."""
    shutil.copytree(taught_dir, tmp_path / "model")
    shutil.copytree(data_file.parent, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text(encoding="utf-8")
    script = next(each for each in re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE))
    assert sum(bool(line.strip()) for line in script.splitlines()) <= 40
    here = {"output_dir=": "use_cpu=True, bf16=False, output_dir="}
    for old, new in here.items():
        script = script.replace(old, new)
    names = {"__name__": "script"}
    exec(compile(script, str(PAGE), "exec"), names)
    [line] = [each for each in names["trainer"].state.log_history if "reward" in each]
    assert 0 <= line["reward"] <= 2  # how often so small a model is right is chance
    assert line["tools/call_frequency"] > 0
    assert line["tools/failure_frequency"] < 1
