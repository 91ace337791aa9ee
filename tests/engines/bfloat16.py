"""One training step in bfloat16, trainer and vLLM: `python -m tests.engines.bfloat16 MODEL ROWS OUTPUT`.

A test starts it; the environment is that of the tests, as `vllm_on_cpu.set_up` has left it.
"""

import sys
from pathlib import Path

from tests.engines import vllm_on_cpu

ONE_STEP = {
    "steps": 1,
    "prompts_per_step": 4,
    "prompts_per_update": 4,
    "num_generations": 4,
    "per_device_train_batch_size": 4,
    "learning_rate": 0.0,
    "temperature": 0.5,
    "crop_tokens": 64,
    "response_tokens": 48,
    "trajectory_tokens": 512,
    "max_turns": 3,
    "max_crops": 2,
    "use_vllm": True,
    "vllm_mode": "colocate",
    "save_every": 1,
}
"""Of the recipe `cpu-stage1`: rollouts with crops by vLLM, and weights that stay as they are."""


def main(model: str, rows: str, output: str) -> None:
    """Train."""
    import vllm
    from trl.generation import vllm_generation

    from lfpc_trl.data.rows import read_rows
    from lfpc_trl.train.recipe import load_recipe
    from lfpc_trl.train.run import train

    vllm.LLM = vllm_generation.LLM = vllm_on_cpu.OneEngine("bfloat16")
    train(load_recipe("cpu-stage1", **ONE_STEP, dtype="bfloat16"), model, read_rows(Path(rows)), Path(output))


if __name__ == "__main__":
    main(*sys.argv[1:])
