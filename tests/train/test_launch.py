"""How many processes, and the command that starts them."""

import sys
from importlib import resources

import pytest

from lfpc_trl.errors import UserError
from lfpc_trl.train.launch import launch_command, processes_of
from lfpc_trl.train.recipe import LaunchSettings

ARGUMENTS = ["train", "--config", "x"]


def words(launch, *, cpu):
    command = launch_command(launch, ARGUMENTS, cpu=cpu)
    assert command[0] == sys.executable
    assert command[-5:] == ["-m", "lfpc_trl.cli", *ARGUMENTS]
    return " ".join(command[1:-5])


def test_one_process_without_a_configuration_is_this_one():
    assert launch_command(LaunchSettings(), ARGUMENTS, cpu=False) is None
    assert launch_command(LaunchSettings(num_processes=1), ARGUMENTS, cpu=True) is None


def test_the_number_of_processes_comes_from_the_option_or_the_configuration(tmp_path):
    assert processes_of(LaunchSettings(accelerate_config="zero3")) == 8
    assert processes_of(LaunchSettings(accelerate_config="zero3", num_processes=4)) == 4
    path = tmp_path / "mine.yaml"
    path.write_text("num_processes: 3\n")
    assert processes_of(LaunchSettings(accelerate_config=str(path))) == 3


def test_on_a_cpu_torchrun_starts_them():
    assert words(LaunchSettings(num_processes=2), cpu=True) == (
        "-m torch.distributed.run --nproc_per_node 2 --standalone"
    )
    cluster = LaunchSettings(
        num_processes=4, num_machines=2, machine_rank=1, main_process_ip="10.0.0.1", main_process_port=29500
    )
    assert words(cluster, cpu=True) == (
        "-m torch.distributed.run --nproc_per_node 2 --nnodes 2 --node_rank 1 "
        "--master_addr 10.0.0.1 --master_port 29500"
    )


def test_on_gpus_accelerate_starts_them(monkeypatch):
    monkeypatch.setattr("torch.accelerator.is_available", lambda: True)
    monkeypatch.setattr("torch.accelerator.device_count", lambda: 8)
    line = words(LaunchSettings(accelerate_config="zero3", num_processes=8), cpu=False)
    assert line.startswith("-m accelerate.commands.launch --num_processes 8 --config_file ")
    assert line.endswith("zero3.yaml --num_machines 1 --machine_rank 0")
    assert "--multi_gpu" in words(LaunchSettings(num_processes=2), cpu=False)
    cluster = LaunchSettings("fsdp2", 16, 2, 1, "10.0.0.1", 29500)
    assert words(cluster, cpu=False).endswith(
        "fsdp2.yaml --num_machines 2 --machine_rank 1 --main_process_ip 10.0.0.1 --main_process_port 29500"
    )


def test_accelerate_understands_the_command(monkeypatch):
    from accelerate.commands.launch import launch_command_parser

    monkeypatch.setattr("torch.accelerator.is_available", lambda: True)
    monkeypatch.setattr("torch.accelerator.device_count", lambda: 8)
    command = launch_command(LaunchSettings("zero3", 16, 2, 1, "10.0.0.1", 29500), ARGUMENTS, cpu=False)
    parsed = launch_command_parser().parse_args(command[3:])
    assert parsed.module is True
    assert parsed.training_script == "lfpc_trl.cli"
    assert parsed.training_script_args == ARGUMENTS
    assert (parsed.num_processes, parsed.machine_rank, parsed.main_process_port) == (16, 1, 29500)


BAD = [
    (LaunchSettings(num_processes=0), "num_processes must be at least 1, got 0"),
    (LaunchSettings(num_machines=0), "num_machines must be at least 1, got 0"),
    (LaunchSettings(machine_rank=1), "machine_rank must be from 0 to 0"),
    (LaunchSettings(num_machines=2, num_processes=2), "needs main_process_ip and main_process_port"),
    (LaunchSettings(None, 3, 2, 0, "a", 1), r"num_processes \(3\) must be a multiple of num_machines \(2\)"),
    (
        LaunchSettings(accelerate_config="zero4"),
        "unknown accelerate_config 'zero4'; give a file or one of fsdp1, fsdp2, .*zero3",
    ),
]


@pytest.mark.parametrize(("launch", "message"), BAD)
def test_a_launch_that_cannot_be_is_refused(launch, message):
    with pytest.raises(UserError, match=message):
        processes_of(launch)


def test_a_file_that_is_no_configuration_is_refused(tmp_path):
    path = tmp_path / "odd.yaml"
    path.write_text("colour: red\n")
    with pytest.raises(UserError, match=r"odd\.yaml: 'colour' is not allowed in an accelerate configuration"):
        processes_of(LaunchSettings(accelerate_config=str(path)))


def test_gpus_that_are_not_there_are_refused_before_anything_is_loaded(monkeypatch):
    monkeypatch.setattr("torch.accelerator.is_available", lambda: False)
    with pytest.raises(UserError, match="asks for 8 GPUs on this machine, it has 0"):
        launch_command(LaunchSettings(accelerate_config="zero3"), ARGUMENTS, cpu=False)
    with pytest.raises(UserError, match="accelerate_config zero3 needs GPUs"):
        launch_command(LaunchSettings(accelerate_config="zero3"), ARGUMENTS, cpu=True)


# --- accelerate obeys every key of its file ----------------------------------------------------------

KEYS = [
    ("env: {PATH: /tmp}", "'env' is not allowed"),
    ("command_file: run.sh", "'command_file' is not allowed"),
    ("commands: [run]", "'commands' is not allowed"),
    ("mpirun_config: {mpirun_hostfile: hosts}", "mpirun_config must be empty or false"),
    ("tpu_use_sudo: true", "tpu_use_sudo must be empty or false"),
    ("tpu_env: [A=B]", "tpu_env must be empty or false"),
    (
        "compute_environment: AMAZON_SAGEMAKER",
        "compute_environment must be LOCAL_MACHINE, got 'AMAZON_SAGEMAKER'",
    ),
    (
        "deepspeed_config: {deepspeed_multinode_launcher: pdsh}",
        "deepspeed_multinode_launcher must be standard",
    ),
    ("deepspeed_config: {deepspeed_hostfile: hosts}", "settings, without deepspeed_hostfile"),
    ("- a list", "must map settings to values"),
    ("[" * 2000, "not an accelerate configuration"),
]


@pytest.mark.parametrize(("text", "message"), KEYS, ids=[case[0][:30] for case in KEYS])
def test_a_configuration_that_starts_other_programs_is_refused(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(text if text[0] in "-[" else f"num_processes: 2\n{text}\n")
    for launch in (LaunchSettings(accelerate_config=str(path)),):
        with pytest.raises(UserError, match=message):
            processes_of(launch)


def test_also_when_the_number_of_processes_is_given(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.accelerator.is_available", lambda: True)
    monkeypatch.setattr("torch.accelerator.device_count", lambda: 8)
    path = tmp_path / "mine.yaml"
    path.write_text("command_file: run.sh\n")
    with pytest.raises(UserError, match="'command_file' is not allowed"):
        launch_command(LaunchSettings(accelerate_config=str(path), num_processes=2), ARGUMENTS, cpu=False)


def test_every_configuration_that_trl_ships_is_allowed(tmp_path):
    folder = resources.files("trl") / "accelerate_configs"
    files = [file for file in folder.iterdir() if file.name.endswith(".yaml")]
    assert files
    for file in files:
        copy = tmp_path / file.name
        copy.write_text(file.read_text())
        assert processes_of(LaunchSettings(accelerate_config=str(copy))) == 8
