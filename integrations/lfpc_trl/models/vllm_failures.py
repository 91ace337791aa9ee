"""Errors inside vLLM: one line for the user, with the traceback in a log file."""

import contextlib
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

from lfpc_trl.errors import UserError, one_line


@contextlib.contextmanager
def vllm_failures(folder: Path, what: str) -> Iterator[None]:
    """Turn an exception raised inside vLLM into one line that names a file with the traceback.

    Args:
        folder: folder of the file; created if missing.
        what: what failed, such as "cannot start".

    Raises:
        UserError: the exception passed through vLLM's code. Others are raised unchanged.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if not _comes_from_vllm(error):
            raise
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"vllm-{time.time_ns()}.log"
        path.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
        text = f"vLLM {what}, {type(error).__name__}: {one_line(error)}; the full traceback is in {path}"
        raise UserError(text) from error


def _comes_from_vllm(error: Exception) -> bool:
    frames = traceback.walk_tb(error.__traceback__)
    return any(str(frame.f_globals.get("__name__")).partition(".")[0] == "vllm" for frame, _ in frames)
