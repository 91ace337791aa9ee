#!/usr/bin/env bash
# TRL 1.16.0, GRPOTrainer: a rollout that no reward function scores leaves its group.
#
# A reward function may return None for a rollout: it does not apply. Where every function returns None for one of a
# group, neither the mean nor the deviation of the group counts this rollout, and its advantage is 0: it is neither
# encouraged nor discouraged. None is not a reward of 0, which would move all the others.
#
# Versions: trl 1.16.0, transformers 5.23.0, torch 2.13.0 on a CPU, Python 3.11.
# Output seen:
#   rewards [None, 1, 2, 3]: advantages [0.0, -1.0, 0.0, 1.0]
#   rewards [0, 1, 2, 3]: advantages [-1.162, -0.387, 0.387, 1.162]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet trl==1.16.0 transformers==5.23.0 datasets==5.2.0 accelerate==1.15.0 torch==2.13.0
cat > "$folder/group.py" <<'PY'
import sys

import pandas
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
from trl import GRPOConfig, GRPOTrainer


def advantages(rewards):
    """The advantages of a group with these rewards, as TRL writes them down after one step of a tiny model."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bytewise = Tokenizer(models.BPE(vocab={char: index for index, char in enumerate(alphabet)}, merges=[]))
    bytewise.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytewise.decoder = decoders.ByteLevel()
    words = PreTrainedTokenizerFast(
        tokenizer_object=bytewise, eos_token="<end>", pad_token="<pad>", padding_side="left"
    )
    config = Qwen2Config(
        vocab_size=len(words), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, bos_token_id=None, eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id,
    )

    def score(completions, **columns):
        return rewards

    folder = f"{sys.argv[1]}/{rewards[0]}"
    trainer = GRPOTrainer(
        model=Qwen2ForCausalLM(config),
        reward_funcs=score,
        args=GRPOConfig(
            folder, per_device_train_batch_size=len(rewards), num_generations=len(rewards), max_steps=1,
            max_completion_length=4, logging_steps=1, log_completions=True, save_strategy="no", report_to="none",
            use_cpu=True, bf16=False, disable_tqdm=True,
        ),
        train_dataset=Dataset.from_dict({"prompt": ["What?"]}),
        processing_class=words,
    )
    trainer.train()
    found = pandas.read_parquet(f"{folder}/completions/completions_00001.parquet")["advantage"]
    return [round(value, 3) + 0.0 for value in found]


SEEN = [([None, 1, 2, 3], [0.0, -1.0, 0.0, 1.0]), ([0, 1, 2, 3], [-1.162, -0.387, 0.387, 1.162])]
changed = 0
for rewards, expected in SEEN:
    found = advantages(rewards)
    print(f"rewards {rewards}: advantages {found}")
    changed |= found != expected
sys.exit(changed)
PY
# TRL prints a table as well.
"$folder/venv/bin/python" "$folder/group.py" "$folder" 2> "$folder/errors" | grep "^rewards" || {
    tail -5 "$folder/errors"
    exit 1
}
