"""The command `vllm`, where vLLM is its build for CPUs: it asks for the version of a package `vllm`."""

import importlib.metadata
import sys

from lfpc_trl.versions import distribution


def main() -> None:
    """As the script `vllm`."""
    plain, build = importlib.metadata.version, distribution("vllm")
    importlib.metadata.version = lambda name: plain(build if name == "vllm" else name)
    from vllm.entrypoints.cli.main import main as vllm

    sys.argv[0] = "vllm"
    vllm()


if __name__ == "__main__":
    main()
