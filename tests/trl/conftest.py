"""Tiny models and rows, built once per session; tests read them and write elsewhere."""

from pathlib import Path

import pytest
import torch

from lfpc_trl.data.rows import Row, read_rows
from tests.trl import tiny

FAMILIES = {"qwen2_5_vl": 28, "qwen3_vl": 32}


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session", params=list(FAMILIES))
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def model_dir(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model as the Hub holds it, with the stock template of its family."""
    return tiny.make_model(tmp_path_factory.mktemp(family), family)


@pytest.fixture(scope="session")
def data_file(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    side = FAMILIES[family]
    return tiny.make_rows(tmp_path_factory.mktemp("data"), shown_size=[4 * side, 3 * side])


@pytest.fixture(scope="session")
def rows(data_file: Path) -> list[Row]:
    return read_rows(data_file)


@pytest.fixture(scope="session")
def taught_dir(family: str, rows: list[Row], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that mostly crops once and answers right; its own compact template."""
    folder = tiny.make_model(tmp_path_factory.mktemp("taught"), family, chat_template=tiny.COMPACT)
    tiny.teach(folder, rows)
    return folder


@pytest.fixture
def row(tmp_path: Path) -> Row:
    """One row: a picture of 224 x 168 shown at half its size, two nested targets."""
    return read_rows(tiny.make_rows(tmp_path, 1))[0]
