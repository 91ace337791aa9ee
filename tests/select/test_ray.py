"""The same work in actors of Ray Data; runs where Ray is installed (the extra `ray`)."""

import os
import sys

import pytest

from lfpc_trl.errors import UserError
from lfpc_trl.jobs.workers import Failure, Piece, run_on_ray
from tests.jobs.fake_work import Doubling, OneByOne
from tests.select.test_select_resolution import answered, asked, output, select


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"ray\[data\] is not installed; .*'\.\[ray\]'"):
        next(run_on_ray(Doubling(), {"a": 1}, workers=1, at_a_time=1))


@pytest.fixture(scope="module")
def ray():
    ray = pytest.importorskip("ray")
    path = {"env_vars": {"PYTHONPATH": os.pathsep.join(sys.path)}}  # the package need not be installed
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env=path)
    yield ray
    ray.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_actors_do_every_item_once_and_pass_each_piece_on_at_once(ray):
    items = {f"item{index}": index for index in range(6)}
    pieces = list(run_on_ray(Doubling(pieces=2, pause=0.1), items, workers=2, at_a_time=3))
    assert sorted(piece.key for piece in pieces) == sorted([*items, *items])
    assert {piece.key: piece.record["twice"] for piece in pieces} == {key: 2 * n for key, n in items.items()}
    for how in ("raise", "tell"):
        found = list(run_on_ray(Doubling("item3", how), items, workers=2, at_a_time=2))
        lost = {key for each in found if isinstance(each, Failure) for key in each.keys}
        assert "item3" in lost
        assert {each.key for each in found if isinstance(each, Piece)} == set(items) - lost
        assert len(lost) <= (2 if how == "raise" else 1)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_piece_arrives_before_its_call_is_over(ray, tmp_path):
    """The worker goes on to its second item only when its first piece was read."""
    running = run_on_ray(OneByOne(tmp_path / "read"), {"a": 1, "b": 2}, workers=1, at_a_time=2)
    assert next(running).key == "a"
    (tmp_path / "read").touch()
    assert [piece.key for piece in running] == ["b"]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_an_error_that_the_user_can_put_right_comes_through(ray):
    with pytest.raises(UserError, match="no such model"):
        next(run_on_ray(Doubling(how="user"), {"a": 1}, workers=1, at_a_time=1))


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_the_selection_on_ray_is_that_of_one_process(ray, work):
    short = ("--max-new-tokens", "4")
    assert select(work, *short, "--ray", "--processes", "2", name="ray.jsonl", engine="transformers") == 0
    assert select(work, *short, name="one.jsonl", engine="transformers") == 0
    assert output(work, "one.jsonl") == output(work, "ray.jsonl")
    assert asked(work) == []  # no stand-in had a hand in it
    assert answered(work) == []
