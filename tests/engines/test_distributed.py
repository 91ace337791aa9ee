"""Two processes with DDP, FSDP2, ZeRO-2 and ZeRO-3 on gloo: the same rollouts, weights and names as DDP.

Each engine starts twice: for all its trainings, the last of which is killed, and to go on with that one.
"""

import dataclasses
import functools
import importlib.util
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lfpc_trl.runs import directory as run_directory
from tests.engines.launching import start
from tests.engines.record import record

if importlib.util.find_spec("deepspeed") is None:
    pytest.skip(
        "deepspeed is not installed; these run in an environment of their own", allow_module_level=True
    )

pytestmark = pytest.mark.slow

SHARDED = ("fsdp2", "zero3", "zero2")
FAMILIES = {"qwen2_5_vl": 28, "qwen3_vl": 32}
SMALL = {
    "share_prompts": "false",  # DDP would share them: another order of rollouts, other random numbers
    "num_processes": 2,
    "prompts_per_step": 2,
    "prompts_per_update": 2,
    "num_generations": 4,
    "per_device_train_batch_size": 2,
    "learning_rate": 1e-3,
    "crop_tokens": 8,
    "response_tokens": 40,
    "trajectory_tokens": 300,
    "save_every": 1,
    "threads": 1,
}
PLAIN_STEP = {
    "optim": "sgd",  # weights change by the gradient itself
    "learning_rate": 0.1,
    "max_grad_norm": 1e9,
    "loss_type": "grpo",  # the same whichever rollouts share a micro batch
    "gradient_checkpointing": "true",
    "steps": 1,
}
LORA = {"use_peft": "true", "lora_target_modules": ["q_proj", "v_proj"]}
SECONDS = 600
"""For one start on a machine that does much else; the processes take a small part of it."""


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """For each family rows, and a model that crops a different number of times for each of them."""
    from lfpc_trl.data.rows import read_rows
    from tests import tiny

    folder = tmp_path_factory.mktemp("material")
    for family, side in FAMILIES.items():
        data = tiny.make_rows(folder / family, shown_size=[4 * side, 3 * side])
        tiny.make_model(folder / family / "model", family, chat_template=tiny.COMPACT)
        tiny.teach(folder / family / "model", read_rows(data), crops=(0, 2, 0, 1))
    return folder


@dataclasses.dataclass
class Runs:
    """What an engine has left behind."""

    engine: str
    folder: Path
    said: str

    def weights(self, name: str) -> dict[str, torch.Tensor]:
        return load_file(self.folder / name / "model.safetensors")

    def metrics(self, name: str) -> list[dict[str, float]]:
        return run_directory.read_metrics(self.folder / name)

    def seen(self, name: str) -> list[dict[str, object]]:
        return [json.loads((self.folder / f"{name}.seen{rank}.json").read_text()) for rank in (0, 1)]


def call(material, folder, family, output, *, model=None, config="cpu-stage1", resume=False, **options):
    """The arguments of one `lfpc train`."""
    words = ["train", "--config", config, "--data", str(material / family / "rows.jsonl")]
    words += ["--model", str(model or material / family / "model"), "--output", str(folder / output)]
    words += ["--resume"] if resume else []
    for name, value in (SMALL | options).items():
        words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    return words


@pytest.fixture(scope="module")
def runs_of(material, tmp_path_factory):
    @functools.cache
    def run(engine: str) -> Runs:
        folder = tmp_path_factory.mktemp(engine)
        job = functools.partial(call, material, folder)
        full = functools.partial(job, "qwen2_5_vl", steps=3)
        first = [
            {"arguments": full("full")},
            {"arguments": job("qwen3_vl", "full3", steps=1)},
            {"arguments": job("qwen2_5_vl", "lora", steps=1, **LORA)},
            {"arguments": job("qwen3_vl", "lora3", steps=1, **LORA)},
            {"arguments": job("qwen2_5_vl", "stage2", model=folder / "full", config="cpu-stage2", steps=1)},
            *(
                {"arguments": job(family, f"{name}_{family}", share_prompts=shared, **PLAIN_STEP)}
                for family in FAMILIES
                for name, shared in (("together", "true"), ("apart", "false"))
                if engine != "ddp"
            ),
            # The window is the final save of a large model: all steps are done, nothing is finished.
            {"arguments": job("qwen2_5_vl", "ended", steps=1, **LORA), "stop_at": 1, "name": "stopped"},
            {"arguments": job("qwen2_5_vl", "ended", steps=1, resume=True, **LORA)},
            {"arguments": full("killed"), "kill_at": 2},
        ]
        code, said = start(engine, first, folder / "first", seconds=SECONDS)
        assert code == 9, said
        code, said = start(
            engine, [{"arguments": full("killed", resume=True)}], folder / "second", seconds=SECONDS
        )
        assert code == 0, said
        return Runs(engine, folder, said)

    return run


NAMES = {"ddp": "DDP", "fsdp2": "FSDP2", "zero2": "ZeRO-2", "zero3": "ZeRO-3"}
LIMIT = 5e-5
"""On the difference of a weight, beside a learning rate of 1e-3: a sum in another order, not another step."""


def difference(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    """The largest difference of a weight; the names must be the same."""
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def proven(path: str, engine: str, **found: object) -> None:
    record(path, f"{NAMES[engine]}, 2 processes", **found)


@pytest.mark.parametrize("engine", NAMES)
def test_the_weights_or_the_moments_are_in_parts(engine, runs_of):
    """accelerate trains with whole weights on a CPU without a word: the other tests would prove nothing."""
    for seen in runs_of(engine).seen("full"):
        (held, whole), moments = seen["held"], seen["moments"]
        assert seen["type"] == {"ddp": "MULTI_CPU", "fsdp2": "FSDP"}.get(engine, "DEEPSPEED")
        assert held == (whole if engine in ("ddp", "zero2") else pytest.approx(whole / 2, rel=0.02))
        assert moments == pytest.approx(2 * whole / (1 if engine == "ddp" else 2), rel=0.02)


@pytest.mark.parametrize("engine", SHARDED)
def test_processes_need_different_numbers_of_turns_and_get_them(engine, runs_of):
    ddp = [each["rounds"] for each in runs_of("ddp").seen("full")]
    own = [each["rounds"] for each in runs_of(engine).seen("full")]
    lengths = [[len(turns) for turns in rounds] for rounds in ddp]
    assert lengths[0] != lengths[1]
    if engine == "zero2":
        assert own == ddp
        return
    for first, second, *plain in zip(*own, *ddp, strict=True):
        assert len(first) == len(second) == max(map(len, plain))
        # 0: it accompanied a turn of the other process.
        assert [[count for count in turns if count] for turns in (first, second)] == plain
    proven("unequal turns, transformers writes", engine, equals="the turns of DDP")


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("stage 1, full weights", ["full", "full3"]),
        ("stage 2 from stage 1, full weights", ["stage2"]),
        ("LoRA, merged", ["lora", "lora3"]),
    ],
    ids=["full", "stage2", "lora"],
)
@pytest.mark.parametrize("engine", SHARDED)
def test_names_and_values_are_those_of_ddp(engine, path, names, runs_of, material):
    runs, ddp = runs_of(engine), runs_of("ddp")
    start_of = {"full3": "qwen3_vl", "lora3": "qwen3_vl"}
    found = []
    for name in names:
        before = load_file(material / start_of.get(name, "qwen2_5_vl") / "model" / "model.safetensors")
        assert difference(runs.weights(name), before) > 10 * LIMIT  # that of another family has other names
        found.append(difference(runs.weights(name), ddp.weights(name)))
        for ours, theirs in zip(runs.metrics(name), ddp.metrics(name), strict=True):
            assert ours == {
                key: value if value is None else pytest.approx(value, abs=1e-4, rel=1e-3)
                for key, value in theirs.items()
            }
    assert max(found) <= LIMIT
    proven(path, engine, equals="DDP: names, weights", difference=max(found), limit=LIMIT, unit="a weight")


@pytest.mark.parametrize("engine", SHARDED)
def test_a_prompt_computed_once_gives_the_same_update(engine, runs_of, material):
    """Some rollouts crop and some do not, differently in the two processes."""
    runs, found = runs_of(engine), []
    assert "computed separately" not in (runs.folder / "first" / "rank0.log").read_text(encoding="utf-8")
    for family in FAMILIES:
        before = load_file(material / family / "model" / "model.safetensors")
        ours, theirs = (runs.weights(f"{name}_{family}") for name in ("together", "apart"))
        step = difference(theirs, before)
        assert step > 1e-4
        found.append(difference(ours, theirs) / step)
    assert max(found) < 1e-3
    proven(
        "the prompt of a group once, gradient checkpointing",
        engine,
        equals="TRL's way, the update",
        difference=max(found),
        limit=1e-3,
        unit="of the largest change",
    )


@pytest.mark.parametrize("engine", NAMES)
def test_a_killed_run_goes_on_to_the_same_model(engine, runs_of):
    runs = runs_of(engine)
    assert [line["step"] for line in runs.metrics("killed")] == [1, 2, 3]
    assert runs.metrics("killed") == runs.metrics("full")
    assert difference(runs.weights("killed"), runs.weights("full")) == 0
    proven(
        "stage 1, full weights, killed after step 2 of 3",
        engine,
        resumes="the uninterrupted run, bit for bit",
    )


@pytest.mark.parametrize("engine", NAMES)
def test_a_run_that_ended_before_its_merge_trains_no_further_step(engine, runs_of):
    runs = runs_of(engine)
    assert "rounds" not in runs.seen("ended")[0]
    assert runs.metrics("ended") == runs.metrics("lora")
    assert difference(runs.weights("ended"), runs.weights("lora")) == 0
    proven("LoRA, ended before its merge", engine, resumes="the uninterrupted run, bit for bit")
