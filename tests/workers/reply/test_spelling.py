"""What is shown bit by bit is the whole text in the end, and never half a character."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.reply.spelling import Spelling, clean, whole_text


def pieces(tokenizer, ids, size=1):
    spelling = Spelling(tokenizer)
    return [spelling.advance(ids[start : start + size]) for start in range(0, len(ids), size)]


@pytest.fixture(scope="module")
def ids_of(tokenizer):
    return lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]


def test_a_character_of_four_tokens_appears_with_its_last(tokenizer, ids_of):
    ids = ids_of("a🌱b")  # one token a byte: the plant takes four
    assert pieces(tokenizer, ids) == ["a", "", "", "", "🌱", "b"]


def test_a_long_text_in_any_portions(tokenizer, ids_of):
    text = "Grüße, 你好 and 🌱🌳! " * 20
    for size in (1, 2, 5, 100):
        assert "".join(pieces(tokenizer, ids_of(text), size)) == text


def test_special_tokens_are_not_shown(tokenizer, ids_of):
    ids = [*ids_of("a"), tokenizer.convert_tokens_to_ids("<|assistant|>"), *ids_of("b")]
    assert "".join(pieces(tokenizer, ids)) == whole_text(tokenizer, ids) == "ab"


def test_bytes_that_are_no_character_become_replacements(tokenizer, ids_of):
    ids = ids_of("🌱")[:2] + ids_of("x")
    assert "".join(pieces(tokenizer, ids)) == whole_text(tokenizer, ids) == "�x"
    assert pieces(tokenizer, ids_of("🌱")[:2]) == ["", ""]  # it may still become whole
    assert whole_text(tokenizer, ids_of("🌱")[:2]) == "�"


def test_what_a_database_cannot_hold_is_replaced():
    assert clean("a\0b\ud800c🌱") == "a�b?c🌱"


def test_joined_pieces_are_the_whole_text(tokenizer):
    ids = st.lists(st.integers(0, 255), max_size=60)

    @given(ids, st.integers(1, 7))
    def check(found, size):
        shown, whole = "".join(pieces(tokenizer, found, size)), whole_text(tokenizer, found)
        assert whole.startswith(shown)
        assert whole[len(shown) :].strip("�") == ""  # only what may still become a character is held back
        assert "\0" not in whole

    check()
