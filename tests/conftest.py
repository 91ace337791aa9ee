"""Tiny models and rows, built once per session; tests read them and write elsewhere.

Torch and TRL are imported by the fixtures that need them, so that the core's tests run without.
"""

import json
import os
import sys
from types import SimpleNamespace

import pytest

FAMILIES = {"qwen2_5_vl": 28, "qwen3_vl": 32}


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Tests run beside others; with many threads on few cores torch mostly waits."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


@pytest.fixture(scope="session", params=list(FAMILIES))
def family(request):
    return str(request.param)


@pytest.fixture(scope="session")
def model_dir(family, tmp_path_factory):
    """A model as the Hub holds it, with the stock template of its family."""
    from tests import tiny

    return tiny.make_model(tmp_path_factory.mktemp(family), family)


@pytest.fixture(scope="session")
def data_file(family, tmp_path_factory):
    from tests import tiny

    side = FAMILIES[family]
    return tiny.make_rows(tmp_path_factory.mktemp("data"), shown_size=[4 * side, 3 * side])


@pytest.fixture(scope="session")
def rows(data_file):
    from lfpc_trl.data.rows import read_rows

    return read_rows(data_file)


@pytest.fixture(scope="session")
def taught_dir(family, rows, tmp_path_factory):
    """A model that mostly crops once and answers right; its own compact template."""
    from tests import tiny

    folder = tiny.make_model(tmp_path_factory.mktemp("taught"), family, chat_template=tiny.COMPACT)
    tiny.teach(folder, rows)
    return folder


@pytest.fixture
def row(tmp_path):
    """One row: a picture of 224 x 168 shown at half its size, two nested targets."""
    from lfpc_trl.data.rows import read_rows
    from tests import tiny

    return read_rows(tiny.make_rows(tmp_path, 1))[0]


# --- many rows, asked with vLLM's stand-in -----------------------------------------------------------


@pytest.fixture(scope="session")
def one_model_dir(tmp_path_factory):
    """One family, where all are asked alike."""
    from tests import tiny

    return tiny.make_model(tmp_path_factory.mktemp("model"), "qwen2_5_vl")


@pytest.fixture(scope="session")
def vllm_folder(tmp_path_factory):
    from tests import vllm_stand_in

    return vllm_stand_in.install(tmp_path_factory.mktemp("site"))


@pytest.fixture
def vllm(vllm_folder, monkeypatch, tmp_path):
    """The stand-in, importable here and in the processes that are started from here."""
    monkeypatch.syspath_prepend(vllm_folder)
    monkeypatch.setitem(sys.modules, "vllm", None)  # so that it is removed, or restored, afterwards
    del sys.modules["vllm"]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.setenv("STAND_IN_LOG", str(tmp_path / "asked.jsonl"))
    import vllm

    return vllm


@pytest.fixture
def work(tmp_path, one_model_dir, vllm):
    """A folder with rows; every question is another, so that what was asked can be told apart."""
    from tests import tiny

    folder = tmp_path / "work"
    data = tiny.make_rows(folder, 16, shown_size=None)
    records = [json.loads(line) for line in data.read_text().splitlines()]
    for number, record in enumerate(records):
        record["question"] = f"What is on sign {number}?"
    tiny.write_records(data, records)
    return SimpleNamespace(folder=folder, data=data, model=one_model_dir, log=tmp_path / "asked.jsonl")
