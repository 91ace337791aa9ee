"""Engines that need an environment of their own (`.ci/engines`): elsewhere these tests are skipped."""

from importlib import resources
from pathlib import Path

import pytest

from tests.engines import vllm_on_cpu

collect_ignore = ["site"]  # is imported once, by whom it is for

if vllm_on_cpu.is_there():
    vllm_on_cpu.set_up()


def pytest_configure(config):
    """Packages of many years stand beside vLLM and warn of each other; ours are judged elsewhere."""
    config.addinivalue_line("filterwarnings", "ignore")


@pytest.fixture(scope="session")
def signs(tmp_path_factory):
    """Rows of the demo's world, with an overview in which no sign can be read."""
    from lfpc_trl.data.rows import read_rows, with_shown_tokens
    from lfpc_trl.demo import world

    folder = tmp_path_factory.mktemp("signs")
    list(world.make_pictures(folder, 4, seed=1, photos=["astronaut", "retina"], name="signs"))
    return with_shown_tokens(read_rows(folder / "signs.jsonl", require_targets=True), 54, factor=28)


@pytest.fixture(scope="session")
def pairs(signs, tmp_path_factory):
    """Rows about two pictures of `signs`; the sign that is asked for is in the first or in the second."""
    from lfpc_trl.data.rows import read_rows, with_shown_tokens
    from tests.tiny import write_records

    pictures = list(dict.fromkeys(row.image for row in signs))
    records = []
    for row in signs:
        place = pictures.index(row.image)
        image = 1 + place % 2
        other = pictures[place + 1 if image == 1 else place - 1]
        records.append(
            {
                "id": row.id,
                "question": row.question,
                "answer": row.answer[0],
                "images": [str(each) for each in ((row.image, other) if image == 1 else (other, row.image))],
                "targets": row.regions[0].tolist(),
                "target_images": image,
            }
        )
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    write_records(path, records)
    return with_shown_tokens(read_rows(path, require_targets=True), 54, factor=28)


@pytest.fixture(scope="session")
def shipped_dir(tmp_path_factory):
    """The demo's checkpoint, prepared as a model of one's own would be."""
    from lfpc_trl.models.prepare import prepare_model

    prepared = tmp_path_factory.mktemp("prepared") / "shipped"
    prepare_model(Path(str(resources.files("lfpc_trl.demo") / "warm")), prepared)
    return prepared


@pytest.fixture(scope="session")
def one_engine():
    """Where `vllm.LLM` is looked up there is the one engine of these tests."""
    pytest.importorskip("vllm", reason="vLLM is not installed")
    import vllm
    from trl.generation import vllm_generation

    engine = vllm_on_cpu.OneEngine()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vllm, "LLM", engine)
        patch.setattr(vllm_generation, "LLM", engine)
        yield engine
