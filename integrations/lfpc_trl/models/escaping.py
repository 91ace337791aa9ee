"""Special tokens that are spelled in text are escaped before the text is rendered.

Special tokens open and close turns and stand for pictures. The tokenizer turns rendered text that spells one
into the token itself, and a picture token without a picture ends a training.
"""

from collections.abc import Mapping
from typing import Any


def special_tokens(tokenizer: Any) -> tuple[str, ...]:
    """The tokens that no text may become: what opens, closes and pads, and what stands for pictures."""
    return tuple(token.content for token in tokenizer.added_tokens_decoder.values() if token.special)


def escape_special_tokens(value: Any, special: tuple[str, ...]) -> Any:
    """Messages, or any part of them, in which no text becomes a special token.

    Args:
        value: messages; what is neither text nor a list nor a dict, such as a picture, is kept.
        special: of `special_tokens`.

    Returns:
        A copy with a space after the first character of every special token: "< |image_pad|>". Half a
        surrogate pair, which JSON can spell and no tokenizer takes, is a question mark.
    """
    if isinstance(value, str):
        for token in special:
            value = value.replace(token, f"{token[:1]} {token[1:]}")
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, Mapping):
        return {
            escape_special_tokens(key, special): escape_special_tokens(each, special)
            for key, each in value.items()
        }
    if isinstance(value, list | tuple):
        return [escape_special_tokens(each, special) for each in value]
    return value


def _parser_class(base: type[Any]) -> type[Any]:
    class Tokenizer(base):  # type: ignore[misc]
        parses_any_turn = True

        def parse_response(self, *args: Any, **kwargs: Any) -> Any:
            try:
                return super().parse_response(*args, **kwargs)
            except RecursionError:
                raise ValueError("a call is nested too deeply") from None

    # Under the name by which transformers saves and checks tokenizers.
    Tokenizer.__name__ = Tokenizer.__qualname__ = base.__name__
    return Tokenizer


def guard_response_parser(tokenizer: Any) -> None:
    """Let `tokenizer.parse_response` refuse every turn that it cannot take apart with a ValueError.

    At a ValueError TRL takes the turn for text. transformers lets the RecursionError of a deeply nested call
    through, which would end the training.
    """
    if not hasattr(tokenizer, "parses_any_turn"):
        tokenizer.__class__ = _parser_class(type(tokenizer))
