"""The doctor: every finding is a line, whatever the machine is like."""

import json
import re
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

import lfpc_rewards
from lfpc_rewards import _cache
from lfpc_trl import cli, doctor
from lfpc_trl.doctor import GIB, MATRIX, Check, check_version, diagnose

ROOT = Path(__file__).parents[2]


def run(capsys, *options):
    status = cli.main(["doctor", *options])
    return status, capsys.readouterr()


def by_name(checks):
    return {check.name: check for check in checks}


# --- the matrix --------------------------------------------------------------------------------------


@pytest.mark.parametrize("package", MATRIX, ids=lambda package: package.name)
def test_the_matrix_knows_the_installed_version(package):
    check = check_version(package, doctor._installed(package.name))
    assert check.level != "problem", check
    if check.level == "warning":
        pytest.skip(f"{check.name} {check.text}")  # newer than tested: to be seen, not to be stopped by


ENTRY = doctor.Package("thing", "trl", ">=1.0,<3.0", ("1.5.0", "2.0.0"))


@pytest.mark.parametrize(
    ("package", "version", "level", "text"),
    [
        (ENTRY, "1.7.2", "ok", "1.7.2"),
        (ENTRY, "1.5.0", "ok", "1.5.0"),
        (ENTRY, "2.1.0", "warning", "tested with 1.5.0 to 2.0.0"),
        (ENTRY, "1.0.0", "warning", "tested with 1.5.0 to 2.0.0"),
        (ENTRY, "3.0.0", "problem", "3.0.0 is not supported"),
        (ENTRY, None, "warning", "not installed"),
        (ENTRY._replace(extra=""), None, "problem", "not installed"),
        (ENTRY._replace(extra=None, note="for speed"), None, "ok", "for speed"),
        (ENTRY._replace(tested=()), "2.0.0", "warning", "not tested yet"),
    ],
)
def test_what_the_matrix_says_about_a_version(package, version, level, text):
    check = check_version(package, version)
    assert check.level == level
    assert text in check.text
    assert (level != "problem") or "pip install" in check.advice


# --- packages that do not fit together ---------------------------------------------------------------


def pretend(monkeypatch, versions, requires):
    real = doctor._installed
    monkeypatch.setattr(doctor, "_installed", lambda name: versions.get(name, real(name)))
    metadata = doctor.importlib.metadata
    kept = metadata.requires
    monkeypatch.setattr(metadata, "requires", lambda name: requires.get(name) or kept(name))


VLLM = ["numpy", "transformers<5.18.0,>=5.10.4", "numba==0.65.0", "torch==2.13.0", "foo>=1"]


def test_a_vllm_that_needs_other_versions_is_a_problem_with_both_named(monkeypatch):
    installed = {"vllm": "0.31.0", "transformers": "5.23.0", "numba": "0.68.1"}
    pretend(monkeypatch, installed, {"vllm": VLLM})
    found = [check for check in doctor._requirements() if check.text.startswith("vllm")]
    assert [check.text for check in found] == [
        "vllm 0.31.0 needs transformers<5.18.0,>=5.10.4, got 5.23.0",
        "vllm 0.31.0 needs numba==0.65.0, got 0.68.1",
    ]
    assert all(check.level == "problem" for check in found)
    assert found[0].advice == "pip install 'transformers<5.18.0,>=5.10.4'"


def test_a_vllm_that_trl_does_not_know_is_a_problem(monkeypatch):
    pretend(monkeypatch, {"vllm": "0.33.0"}, {})
    monkeypatch.setattr(doctor.importlib.metadata, "requires", lambda name: {
        "trl": ['vllm<=0.31.0,>=0.22.0; extra == "vllm"']
    }.get(name))  # fmt: skip
    [check] = doctor._requirements()
    assert "needs vllm<=0.31.0,>=0.22.0, got 0.33.0" in check.text
    assert by_name(doctor._packages())["vllm"].level == "problem"


def test_packages_that_fit_are_not_mentioned(monkeypatch):
    installed = {"vllm": "0.31.0", "transformers": "5.17.0", "numba": "0.65.0", "torch": "2.13.0+cpu"}
    pretend(monkeypatch, installed, {"vllm": VLLM})
    assert [check for check in doctor._requirements() if check.text.startswith("vllm")] == []


# --- the machine -------------------------------------------------------------------------------------

FAKE_TORCH = """
__version__ = "2.13.0+cu130"
class version:
    cuda = "13.0"
class Properties:
    name = "NVIDIA H100"
class cuda:
    def device_count(): return {count}
    def get_device_properties(index): return Properties
    def mem_get_info(index): return (70 << 30, 80 << 30)
    def is_bf16_supported(including_emulation=True): return {bf16}
    class device:
        def __init__(self, index): pass
        def __enter__(self): pass
        def __exit__(self, *_): pass
"""


def gpu(monkeypatch, folder, source, driver="580.1"):
    (folder / "torch.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setattr(doctor, "_driver", lambda: driver)
    return list(doctor._gpu())


def test_each_gpu_has_a_line(monkeypatch, tmp_path):
    checks = gpu(monkeypatch, tmp_path, FAKE_TORCH.format(count=2, bf16=True))
    text = "NVIDIA H100, 80 GiB (70 free), driver 580.1, bf16"
    assert checks == [Check("ok", "gpu 0", text), Check("ok", "gpu 1", text)]


def test_a_gpu_without_bf16(monkeypatch, tmp_path):
    [check] = gpu(monkeypatch, tmp_path, FAKE_TORCH.format(count=1, bf16=False))
    assert check.level == "warning"
    assert "no bf16" in check.text


def test_a_driver_and_a_torch_that_sees_no_gpu(monkeypatch, tmp_path):
    [check] = gpu(monkeypatch, tmp_path, FAKE_TORCH.format(count=0, bf16=False))
    assert (check.level, "sees no GPU" in check.text) == ("problem", True)


def test_no_gpu_at_all_is_no_problem(monkeypatch, tmp_path):
    [check] = gpu(monkeypatch, tmp_path, FAKE_TORCH.format(count=0, bf16=False), driver=None)
    assert (check.level, check.text) == ("warning", "none")


def test_a_torch_that_cannot_be_imported(monkeypatch, tmp_path):
    [check] = gpu(monkeypatch, tmp_path, "raise OSError('libcudart.so.13: cannot open')")
    assert (check.level, check.name) == ("problem", "torch")
    assert "libcudart.so.13" in check.text


def torchvision(monkeypatch, folder, source):
    (folder / "torchvision.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setattr(doctor, "_installed", lambda _: "0.28.0")
    [check] = doctor._torchvision()
    return check


def test_a_torchvision_for_another_torch_is_a_problem(monkeypatch, tmp_path):
    broken = "raise RuntimeError('operator torchvision::nms does not exist')"
    check = torchvision(monkeypatch, tmp_path, broken)
    assert check.level == "problem"
    assert "operator torchvision::nms does not exist" in check.text
    assert "pip uninstall torchvision" in check.advice
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)  # vLLM is there, which needs it
    assert torchvision(monkeypatch, tmp_path, broken).advice == "install the build for your torch"
    assert torchvision(monkeypatch, tmp_path, "import os; os.abort()").level == "problem"


def test_a_torchvision_that_works_is_fine(monkeypatch, tmp_path):
    assert torchvision(monkeypatch, tmp_path, "").level == "ok"


@pytest.mark.parametrize(("free", "level"), [(0.5, "problem"), (20, "warning"), (400, "ok")])
def test_room_on_the_disk(monkeypatch, free, level):
    usage = namedtuple("usage", "total used free")  # noqa: PYI024 - as shutil's
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: usage(0, 0, free * GIB))
    assert by_name(doctor._disk())["working directory"].level == level


def test_a_cache_that_is_not_there_yet_is_measured_where_it_will_be(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "not" / "yet"))
    check = by_name(doctor._disk())["Hugging Face cache"]
    assert check.text.startswith(str(tmp_path / "not" / "yet"))
    assert not (tmp_path / "not").exists()


def test_a_place_that_cannot_be_written(monkeypatch):
    monkeypatch.setattr(doctor.os, "access", lambda *_: False)
    assert by_name(doctor._disk())["temporary files"].level == "problem"
    [check] = doctor._kernel_cache()
    assert (check.level, "NUMBA_CACHE_DIR" in check.advice) == ("warning", True)


def test_a_kernel_cache_that_cannot_be_written_is_named(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file"))
    [check] = doctor._kernel_cache()
    assert check.level == "warning"
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "new"))
    assert list(doctor._kernel_cache()) == [Check("ok", "compiled kernels", f"cached in {tmp_path / 'new'}")]


def test_the_kernel_cache_is_looked_for_where_the_core_keeps_it(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(doctor, "_can_write", asked.append)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "told"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    monkeypatch.setattr(_cache.config, "CACHE_DIR", str(tmp_path / "told"))
    list(doctor._kernel_cache())
    assert asked == _cache.places(Path(lfpc_rewards.__file__).parent)


@pytest.mark.parametrize(("told", "level"), [("1", "ok"), ("100000", "warning"), ("many", "warning")])
def test_threads(monkeypatch, told, level):
    monkeypatch.setenv("OMP_NUM_THREADS", told)
    [check] = doctor._processes()
    assert check.level == level


def test_a_check_that_fails_is_a_line(monkeypatch):
    def fail():
        raise PermissionError("no entry")
        yield

    monkeypatch.setattr(doctor, "_disk", fail)
    assert by_name(diagnose())["disk"] == Check(
        "warning", "disk", "could not be checked (PermissionError: no entry)"
    )


# --- the command -------------------------------------------------------------------------------------


def test_the_report_of_this_machine(monkeypatch, capsys):
    checks = [Check("ok", "python", "3.11.7"), Check("warning", "gpu", "none", "get one")]
    monkeypatch.setattr("lfpc_trl.commands.doctor.diagnose", lambda: checks)
    status, output = run(capsys)
    assert (status, output.err) == (0, "")
    assert output.out == "ok       python  3.11.7\nwarning  gpu     none: get one\n"
    checks.append(Check("problem", "trl", "1.2 is not supported", "pip install 'trl>=1.16'"))
    status, output = run(capsys, "--json")
    assert status == 2
    assert output.err.endswith("lfpc: error: this machine has problems: trl\n")
    assert json.loads(output.out)["findings"][2]["advice"] == "pip install 'trl>=1.16'"


def test_it_runs_where_nothing_is_installed():
    # -S leaves out the installed packages: no numpy, no numba, no torch.
    code = f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'integrations')!r}]\n"
    code += "from lfpc_trl import cli; sys.exit(cli.main(['doctor']))"
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("lfpc: error: this machine has problems: numpy, numba")
    assert re.search(
        r"^warning +torch +not installed: in the folder of your clone: pip install '\.\[trl\]'",
        done.stdout,
        re.MULTILINE,
    )
    assert re.search(r"^ok +vllm +not installed", done.stdout, re.MULTILINE)
