"""Tokens into text that can be shown at once: only whole characters, and in the end exactly the whole reply's text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

REPLACEMENT = "\ufffd"  # what a decoder puts for bytes that are no character (yet)


def clean(text: str) -> str:
    """The text with what PostgreSQL and UTF-8 cannot hold (NUL, lone surrogates) replaced."""
    return text.replace("\0", REPLACEMENT).encode("utf-8", "replace").decode("utf-8")


class Spelling:
    """One reply's tokens as they come. Characters of several tokens are held back until they are whole."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._begin = (
            0  # the window that is decoded begins here, some tokens back, since a tokenizer may look at neighbours
        )
        self._shown = 0  # tokens before this are shown

    def advance(self, ids: Sequence[int]) -> str:
        """Take further tokens; the text that they make certain."""
        self._ids += ids
        shown = self._decode(self._ids[self._begin : self._shown])
        text = self._decode(self._ids[self._begin :])
        if text.endswith(REPLACEMENT) or len(text) <= len(shown):
            return ""
        self._begin, self._shown = self._shown, len(self._ids)
        return clean(text[len(shown) :])

    def _decode(self, ids: Sequence[int]) -> str:
        return _decode(self._tokenizer, ids)


def whole_text(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text of a whole reply, an unfinished character included as its replacement."""
    return clean(_decode(tokenizer, ids))


def _decode(tokenizer: Any, ids: Sequence[int]) -> str:
    text: str = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text
