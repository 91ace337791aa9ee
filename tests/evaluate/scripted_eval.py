"""`lfpc eval` with a scripted model in place of the real one, also in the processes that it starts.

python -m tests.evaluate.scripted_eval --model ... --data ... --output ...
"""

import os
import re
import sys
import time
from pathlib import Path

from lfpc_trl import cli
from lfpc_trl.evaluate import records
from lfpc_trl.models.engines import TransformersEngine
from lfpc_trl.models.processors import load_processor
from tests.evaluate.scripted import Prompt, ScriptedModel, answer, call, read

ASKED_AT = [60, 40, 90, 60]
"""The box that the script asks for first, pixels of the overview: 112 x 84 of 224 x 168."""


def script(prompt: Prompt) -> str:
    """Row n crops n times (modulo 3), row 3 calls badly first; then the last picture's colour is said."""
    if log := os.environ.get("SCRIPT_LOG"):
        time.sleep(float(os.environ.get("SCRIPT_SECONDS", "0")))
        with Path(log).open("a") as file:
            file.write(f"{os.getpid()}\n")
    if "image_zoom_in_tool" not in prompt.text:
        return answer("grey")
    conversation = prompt.text.split("Which colour")[1]
    number = int(re.search(r"row(\d)", conversation)[1])
    replies = conversation.count("<tool_response>")
    if number == 3 and not replies:
        return call([1, 2, 3])
    if replies < (number % 3 if number != 3 else 2):
        return call(ASKED_AT if replies == 0 else [0, 0, 112, 84])
    return answer(read(prompt.pictures[-1]))


class ScriptedRecords(records.MakeRecords):
    """Pickles by its name, so that other processes make it too."""

    def __call__(self) -> records.Records:
        model = ScriptedModel(load_processor(self.open.model_dir), script)
        engine = TransformersEngine(model, load_processor(self.open.model_dir))
        return records.Records(engine, self.crops, self.settings)


if __name__ == "__main__":
    # By its importable name: what is pickled in __main__ is not found elsewhere.
    from tests.evaluate import scripted_eval

    records.MakeRecords = scripted_eval.ScriptedRecords
    sys.exit(cli.main(["eval", *sys.argv[1:]]))
