"""Escaping of special tokens that occur in message texts.

Special tokens open and close turns and stand for pictures. The tokenizer turns text that spells one into the
token itself, and a picture token without a picture crashes the training.
"""

from collections.abc import Mapping
from typing import Any


def special_tokens(tokenizer: Any) -> tuple[str, ...]:
    """The tokens that text must not turn into: those that open and close turns, padding, picture tokens."""
    return tuple(token.content for token in tokenizer.added_tokens_decoder.values() if token.special)


def escape_special_tokens(value: Any, special: tuple[str, ...]) -> Any:
    """Escape special tokens in messages, or in any part of them.

    Args:
        value: messages; other values than texts, lists and dicts, such as pictures, are kept.
        special: from `special_tokens`.

    Returns:
        A copy with a space after the first character of every special token: "< |image_pad|>". Lone
        surrogates, which JSON allows but tokenizers reject, become question marks.
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

    # transformers saves and checks tokenizers by this name.
    Tokenizer.__name__ = Tokenizer.__qualname__ = base.__name__
    return Tokenizer


def guard_response_parser(tokenizer: Any) -> None:
    """Make `tokenizer.parse_response` raise a ValueError for every turn that it cannot parse.

    On a ValueError TRL treats the turn as text. transformers lets the RecursionError of a deeply nested call
    through, which would crash the training.
    """
    if not hasattr(tokenizer, "parses_any_turn"):
        tokenizer.__class__ = _parser_class(type(tokenizer))
