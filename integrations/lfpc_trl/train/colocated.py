"""vLLM inside the process of the trainer, given the prompts that are trained on.

TRL 1.16 hands a colocated vLLM as many placeholders as a picture has visual tokens, and vLLM 0.22 to 0.33
puts in as many for the first of them (TRL issue 6294): the rollouts would answer another prompt than the one
they are trained on. In server mode TRL tells vLLM where the pictures are, and nothing is put in.
"""

from collections.abc import Sequence
from typing import Any

from lfpc_trl.errors import UserError
from lfpc_trl.models.engines import collapsed


class ColocatedEngine:
    """TRL's colocated `LLM`; every prompt reaches it with one placeholder per picture.

    What holds one already is left alone, and so is a prompt that says in another way where its pictures are:
    a TRL that has healed is recognised by what it hands over.

    Args:
        llm: vLLM's.
        placeholder: the id that stands for a picture.
    """

    def __init__(self, llm: Any, placeholder: int) -> None:
        self._llm, self._placeholder = llm, placeholder
        self._read: list[list[int]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._llm, name)

    def generate(self, prompts: Sequence[dict[str, Any]], *args: Any, **kwargs: Any) -> Any:
        """As `LLM.generate`."""
        outputs = self._llm.generate([self._short(prompt) for prompt in prompts], *args, **kwargs)
        self._read = [list(output.prompt_token_ids) for output in outputs]
        return outputs

    def _short(self, prompt: dict[str, Any]) -> dict[str, Any]:
        if prompt.keys() != {"prompt_token_ids", "multi_modal_data"}:
            return prompt
        pictures = prompt["multi_modal_data"]["image"]
        count = len(pictures) if isinstance(pictures, list) else 1
        return prompt | {"prompt_token_ids": collapsed(prompt["prompt_token_ids"], count, self._placeholder)}

    def check_read(self, prompts: Sequence[Sequence[int]]) -> None:
        """Refuse rollouts that were written for other prompts.

        Args:
            prompts: the tokens that are trained on, of the last call of `generate`.

        Raises:
            UserError: vLLM read other tokens.
        """
        # With tensor parallelism an engine reads the prompts of several processes.
        read = {tuple(ids) for ids in self._read}
        for index, ids in enumerate(prompts):
            if tuple(ids) not in read:
                theirs = self._read[index % len(self._read)]
                raise UserError(
                    "vLLM must read the prompts that are trained on: rollout "
                    f"{index} has {self._counts(ids)}, vLLM read {self._counts(theirs)}"
                )

    def _counts(self, ids: Sequence[int]) -> str:
        return f"{len(ids)} tokens, {list(ids).count(self._placeholder)} of them of pictures"
