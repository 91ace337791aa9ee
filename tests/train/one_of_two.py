"""One of two processes that train together, for `torchrun`; its arguments are those of `main`."""

import os
import sys
from pathlib import Path

import torch

from lfpc_trl.data.rows import read_rows
from tests import tiny
from tests.train.scripted import make_trainer


def main(model: str, rows: str, output: str, share: str, group: str, checkpointing: str) -> None:
    call = f"{tiny.CALL_OPEN}15, 15, 50, 45{tiny.CALL_CLOSE}"
    turns = [[call, "<answer>A</answer>"], ["<answer>A</answer>"], [call, call, call], ["no"]]
    folder = Path(output)
    trainer = make_trainer(
        Path(model),
        read_rows(rows),
        folder / "run",
        turns,
        # The weights move by the gradient itself.
        config={
            **dict.fromkeys(tiny.NO_CHECKPOINTING, checkpointing == "on"),
            "num_generations": int(group),
            "loss_type": "dapo",
            "optim": "sgd",
            "learning_rate": 1.0,
            "lr_scheduler_type": "constant",
            "max_grad_norm": 0.0,
            "max_steps": 2,
        },
        share_prompts=share == "on",
    )
    trainer.train()
    torch.save(trainer.model.state_dict(), folder / f"{share}-{os.environ['RANK']}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
