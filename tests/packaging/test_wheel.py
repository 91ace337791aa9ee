"""The built wheel: what is inside, and that it works where nothing else of the project is."""

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    [path] = folder.glob("*.whl")
    return path


@pytest.fixture(scope="session")
def contents(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="session")
def run(wheel: Path, tmp_path_factory: pytest.TempPathFactory):
    """Run Python with the installed wheel and without the checkout."""
    target = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target)]
    subprocess.run([*pip, str(wheel)], check=True, capture_output=True)
    elsewhere = tmp_path_factory.mktemp("elsewhere")

    def python(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=elsewhere,
            env=os.environ | {"PYTHONPATH": str(target), "INSTALLED": str(target)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return python


def test_data_files_are_inside(contents):
    folders = {
        "lfpc_rewards": ["py.typed"],
        "integrations/lfpc_trl": [
            *(
                "py.typed",
                "tested_versions.json",
                "html/templates/*",
                "models/*.jinja",
            ),
            *(
                "demo/chat_template.jinja",
                "demo/warm/*",
                "train/recipes/*",
                "annotate/static/*.*",
                "view/static/*.*",
            ),
            *("html/static/*.*", "html/static/vendor/*/*"),
        ],
    }
    expected = {
        file.relative_to(ROOT).as_posix().removeprefix("integrations/")
        for folder, patterns in folders.items()
        for pattern in patterns
        for file in (ROOT / folder).glob(pattern)
    }
    for name in ("config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"):
        assert f"lfpc_trl/demo/warm/{name}" in expected, "the checkout itself lacks it"
    assert sorted(expected - contents) == []


def test_every_module_is_inside_and_nothing_else_of_the_project(contents):
    modules = {
        path.relative_to(folder).as_posix()
        for folder, package in ((ROOT, "lfpc_rewards"), (ROOT / "integrations", "lfpc_trl"))
        for path in (folder / package).rglob("*.py")
    }
    assert {name for name in contents if name.endswith(".py")} == modules
    tops = {name.partition("/")[0] for name in contents}
    assert {name for name in tops if not name.endswith(".dist-info")} == {"lfpc_rewards", "lfpc_trl"}


def test_the_wheel_is_small(wheel):
    assert wheel.stat().st_size < 5_000_000


def test_both_packages_work_from_the_wheel(run):
    out = run(
        "-c",
        "import os, lfpc_rewards, lfpc_trl\n"
        "for package in (lfpc_rewards, lfpc_trl):\n"
        "    assert package.__file__.startswith(os.environ['INSTALLED']), package.__file__\n"
        "print(lfpc_rewards.grounding_reward([[[40, 40, 60, 60]]], [[[40, 40, 60, 60]]], (100, 100)))\n"
        "print(lfpc_rewards.__version__)\n",
    )
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert out.split() == ["[1.]", project["version"]]


def test_chat_templates_render_from_the_wheel(run):
    out = run(
        "-c",
        "from importlib.resources import files\n"
        "from transformers.utils.chat_template_utils import render_jinja_template\n"
        "messages = [{'role': 'user', 'content': [{'type': 'image'}, {'type': 'text', 'text': 'What?'}]}]\n"
        "ours = [f'models/families/qwen_{calls}.jinja' for calls in ('json', 'xml')]\n"
        "for name in (*ours, 'demo/chat_template.jinja'):\n"
        "    template = files('lfpc_trl').joinpath(name).read_text('utf-8')\n"
        "    options = {'chat_template': template, 'add_generation_prompt': True}\n"
        "    [text], _ = render_jinja_template([messages], **options)\n"
        "    assert '<|image_pad|>' in text and 'What?' in text, text\n"
        "    assert text.endswith('<|im_start|>assistant\\n'), text\n"
        "print('rendered')\n",
    )
    assert out == "rendered\n"


def test_the_command_runs_from_the_wheel(run):
    out = run("-m", "lfpc_trl.cli", "--help")
    assert out.startswith("usage: lfpc")
    for command in ("convert", "demo", "train", "select-resolution", "synthesize"):
        assert command in out
