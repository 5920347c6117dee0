"""Tokens into text that can be shown at once: only whole characters, and in the end exactly the whole reply's text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

WINDOW = 24  # tokens
REPLACEMENT = "\ufffd"  # what a decoder puts for bytes that are no character (yet)


def clean(text: str) -> str:
    """The text with what PostgreSQL and UTF-8 cannot hold (NUL, lone surrogates) replaced."""
    return text.replace("\0", REPLACEMENT).encode("utf-8", "replace").decode("utf-8")


class Spelling:
    """One reply's tokens as they come. Characters of several tokens are held back until they are whole."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        # Only a window is decoded, so that a long reply costs no more than a short one. It begins some tokens back, since a
        # tokenizer may look at neighbours (a space between words).
        self._begin = 0
        self._shown = 0  # characters of the window that are shown

    def advance(self, ids: Sequence[int]) -> str:
        """Take further tokens; the text that they make certain."""
        self._ids += ids
        text = self._decode(self._ids[self._begin :])
        certain = text.rstrip(REPLACEMENT)  # the last bytes may still become a character
        new = certain[self._shown :]
        self._shown = max(self._shown, len(certain))
        if len(self._ids) - self._begin > WINDOW and certain == text:
            self._begin = len(self._ids) - WINDOW // 4
            while self._decode(self._ids[self._begin :]).startswith(REPLACEMENT) and self._begin < len(self._ids):
                self._begin += 1  # not within a character
            self._shown = len(self._decode(self._ids[self._begin :]))
        return clean(new)

    def _decode(self, ids: Sequence[int]) -> str:
        return _decode(self._tokenizer, ids)


def whole_text(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text of a whole reply, an unfinished character included as its replacement."""
    return clean(_decode(tokenizer, ids))


def _decode(tokenizer: Any, ids: Sequence[int]) -> str:
    text: str = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text
