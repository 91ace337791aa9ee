"""vLLM in the trainer's process, fixed to read exactly the prompts that are trained on.

TRL 1.16 passes a colocated vLLM one placeholder per visual token, and vLLM 0.22 to 0.33 expands the first of
them again (TRL issue 6294): rollouts would answer a different prompt from the one they are trained on. In
server mode TRL tells vLLM where the pictures are, and nothing is expanded.
"""

from collections.abc import Sequence
from typing import Any

from lfpc_trl.errors import UserError
from lfpc_trl.models.engines import collapsed


class ColocatedEngine:
    """Wraps TRL's colocated `LLM` so that every prompt has one placeholder per picture.

    Prompts that already have one, or that mark their pictures in another way, pass unchanged, so a fixed TRL
    works too.

    Args:
        llm: vLLM's `LLM`.
        placeholder: id of the image placeholder token.
    """

    def __init__(self, llm: Any, placeholder: int) -> None:
        self._llm, self._placeholder = llm, placeholder
        self._read: list[list[int]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._llm, name)

    def generate(self, prompts: Sequence[dict[str, Any]], *args: Any, **kwargs: Any) -> Any:
        """Like `LLM.generate`, with collapsed placeholders."""
        outputs = self._llm.generate([self._collapsed(prompt) for prompt in prompts], *args, **kwargs)
        self._read = [list(output.prompt_token_ids) for output in outputs]
        return outputs

    def _collapsed(self, prompt: dict[str, Any]) -> dict[str, Any]:
        if prompt.keys() != {"prompt_token_ids", "multi_modal_data"}:
            return prompt
        pictures = prompt["multi_modal_data"]["image"]
        count = len(pictures) if isinstance(pictures, list) else 1
        return prompt | {"prompt_token_ids": collapsed(prompt["prompt_token_ids"], count, self._placeholder)}

    def check_read(self, prompts: Sequence[Sequence[int]]) -> None:
        """Check that vLLM read the prompts that are trained on.

        Args:
            prompts: token ids that are trained on, of the last call of `generate`.

        Raises:
            UserError: vLLM read other tokens.
        """
        # With tensor parallelism one engine reads the prompts of several processes.
        read = {tuple(ids) for ids in self._read}
        for index, ids in enumerate(prompts):
            if tuple(ids) not in read:
                other = self._read[index % len(self._read)]
                raise UserError(
                    "vLLM must read the prompts that are trained on: rollout "
                    f"{index} has {self._counts(ids)}, vLLM read {self._counts(other)}"
                )

    def _counts(self, ids: Sequence[int]) -> str:
        return f"{len(ids)} tokens, {list(ids).count(self._placeholder)} of them visual"
