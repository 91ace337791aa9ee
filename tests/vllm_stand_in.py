"""A stand-in for vLLM: its call signatures, its rules about prompts and pictures, and a made-up model.

Installed as a package named vllm of any version (`install`), it serves `VllmEngine` in every process. The
signatures are those of vLLM 0.22.0 to 0.31.0, the exceptions those of 0.31.0, as far as they are used;
anything else is a TypeError here. The model answers A to C, mostly the same at every size of a picture; every
question is logged.
"""

import hashlib
import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

_EXCEPTIONS = """
class VLLMClientError(Exception): ...
class VLLMValidationError(VLLMClientError): ...
"""


def install(folder: Path, version: str = "0.31.0") -> Path:
    """Make `folder` a place from which vllm is imported."""
    (folder / "vllm").mkdir(parents=True)
    shutil.copy(__file__, folder / "vllm" / "__init__.py")
    (folder / "vllm" / "exceptions.py").write_text(_EXCEPTIONS)
    metadata = folder / f"vllm-{version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")
    return folder


@dataclass(kw_only=True)
class SamplingParams:
    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    max_tokens: int | None = 16
    repetition_penalty: float = 1.0
    stop_token_ids: list[int] | None = None
    logit_bias: dict[int, float] | None = None
    detokenize: bool = True


class LLM:
    last: "LLM"

    def __init__(
        self,
        model: str,
        *,
        dtype: str = "auto",
        max_model_len: int | None = None,
        limit_mm_per_prompt: dict[str, int] | None = None,
        mm_processor_kwargs: dict[str, Any] | None = None,
    ) -> None:
        from tokenizers import Tokenizer

        assert isinstance(model, str)
        LLM.last = self
        self.words = Tokenizer.from_file(str(Path(model) / "tokenizer.json"))
        settings = json.loads((Path(model) / "preprocessor_config.json").read_text())
        self.side = settings["patch_size"] * settings["merge_size"]
        self.options = SimpleNamespace(
            dtype=dtype,
            max_model_len=max_model_len,
            limit_mm_per_prompt=limit_mm_per_prompt or {},
            size=(mm_processor_kwargs or {}).get("size", settings["size"]),
        )
        self.calls: list[tuple[list[Any], list[SamplingParams]]] = []

    def generate(
        self, prompts: list[Any], sampling_params: list[SamplingParams], *, use_tqdm: bool = True
    ) -> list[Any]:
        assert isinstance(prompts, list)
        assert len(prompts) == len(sampling_params)
        assert not use_tqdm
        self.calls.append((prompts, sampling_params))
        time.sleep(float(os.environ.get("STAND_IN_SECONDS", "0")))
        return [self.answer(*pair) for pair in zip(prompts, sampling_params, strict=True)]

    def answer(self, prompt: dict[str, Any], params: SamplingParams) -> Any:
        ids, pictures = prompt["prompt_token_ids"], prompt["multi_modal_data"]["image"]
        assert prompt.keys() == {"prompt_token_ids", "multi_modal_data"}
        assert len(pictures) <= self.options.limit_mm_per_prompt.get("image", 999)
        # vLLM puts in as many placeholders as its processor makes of each picture.
        assert ids.count(self.words.token_to_id("<|image_pad|>")) == len(pictures)
        tokens = sum(self.processed(picture) for picture in pictures)
        assert len(ids) - len(pictures) + tokens + params.max_tokens <= self.options.max_model_len
        seen = hashlib.sha256(json.dumps([ids, params.seed]).encode())
        letter = seen.digest()[0] % 3
        seen.update(b"".join(picture.tobytes() for picture in pictures))
        letter += seen.digest()[0] % 10 < 3
        if log := os.environ.get("STAND_IN_LOG"):
            line = json.dumps({"ids": ids, "size": pictures[0].size, "pid": os.getpid()})
            with Path(log).open("a") as file:
                file.write(line + "\n")
        text = f"<think>hm</think><answer>{'ABCA'[letter]}</answer>"
        assert params.stop_token_ids
        end = params.stop_token_ids[seen.digest()[1] % len(params.stop_token_ids)]
        written = [*self.words.encode(text).ids, end]
        turn = SimpleNamespace(token_ids=tuple(written[: params.max_tokens]))
        return SimpleNamespace(outputs=[turn])

    def processed(self, picture: Any) -> int:
        """Visual tokens of a picture after vLLM's processor, which must not change its size."""
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

        limits = {
            "min_pixels": self.options.size["shortest_edge"],
            "max_pixels": self.options.size["longest_edge"],
        }
        height, width = smart_resize(picture.height, picture.width, factor=self.side, **limits)
        assert (width, height) == picture.size, f"vLLM would resize {picture.size} to {(width, height)}"
        return (width // self.side) * (height // self.side)
