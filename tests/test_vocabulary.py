"""Vocabularies of characters and of words: there and back, what they lack, in JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrnn.data import Ragged, Vocabulary, WordVocabulary

# --- Characters ---------------------------------------------------------------------------------


@given(st.text(min_size=1))
def test_a_text_comes_back_from_its_ids(text: str) -> None:
    vocabulary = Vocabulary.of(text)
    ids = vocabulary.encode(text)
    assert vocabulary.decode(ids) == text
    assert ids.shape == (len(text),)
    assert Vocabulary(json.loads(json.dumps(vocabulary.characters))) == vocabulary


def test_ids_are_the_places_of_sorted_characters() -> None:
    vocabulary = Vocabulary.of("banana\n")
    assert vocabulary.characters == "\nabn"
    assert len(vocabulary) == 4
    assert vocabulary.encode("nab\n").tolist() == [3, 1, 2, 0]
    assert vocabulary.encode("").shape == (0,)
    assert vocabulary.decode(np.array([], int)) == ""


@pytest.mark.parametrize("text", ["abé", "ab\U0001f600", "ab\udce9"])
def test_an_unknown_character_is_named(text: str) -> None:
    with pytest.raises(ValueError, match=rf"\(U\+{ord(text[2]):04X}, at 2\) is not one of the 2"):
        Vocabulary("ab").encode(text + "c")


def test_an_unknown_id_is_named() -> None:
    with pytest.raises(ValueError, match="expected 0 to 1, got 0 to 2"):
        Vocabulary("ab").decode(np.array([0, 2]))
    with pytest.raises(ValueError, match="expected 0 to 1, got -1 to 0"):
        Vocabulary("ab").decode(np.array([0, -1]))


@pytest.mark.parametrize("characters", ["", "ba", "aab"])
def test_vocabularies_are_sorted_and_different(characters: str) -> None:
    with pytest.raises(ValueError, match="characters: expected sorted, different characters"):
        Vocabulary(characters)


def test_vocabulary_refuses_what_is_not_a_string() -> None:
    with pytest.raises(TypeError, match="characters: expected a string, got list"):
        Vocabulary(["a", "b"])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="text: expected at least one character"):
        Vocabulary.of("")


@pytest.mark.parametrize("ids", [[0.0, 1.0], [[0, 1]], 1])
def test_ids_that_are_no_vector_of_integers_are_refused(ids: object) -> None:
    with pytest.raises(ValueError, match="ids: expected a vector of integers, got"):
        Vocabulary("ab").decode(ids)  # type: ignore[arg-type]


@given(st.text(min_size=1), st.text())
def test_with_oov_every_text_has_ids(known: str, text: str) -> None:
    vocabulary = Vocabulary.of(known, oov=True)
    ids = vocabulary.encode(text)
    assert ids.dtype == np.int64 and ids.shape == (len(text),)
    there = set(known)
    assert vocabulary.decode(ids) == "".join(c if c in there else "\ufffd" for c in text)
    last = len(vocabulary) - 1
    assert (ids == last).tolist() == [c not in there for c in text]
    # The ids of the characters are those without it.
    assert np.array_equal(vocabulary.encode(known), Vocabulary.of(known).encode(known))
    assert last == len(Vocabulary.of(known))


def test_oov_is_part_of_a_vocabulary() -> None:
    vocabulary = Vocabulary.of("ab", oov=True)
    assert repr(vocabulary) == "Vocabulary('ab', oov=True)"
    characters, oov = json.loads(json.dumps([vocabulary.characters, vocabulary.oov]))
    assert Vocabulary(characters, oov=oov) == vocabulary
    assert hash(Vocabulary(characters, oov=oov)) == hash(vocabulary)
    assert Vocabulary("ab") != vocabulary
    with pytest.raises(ValueError, match="expected 0 to 2, got 3 to 3"):
        vocabulary.decode([3])


# --- Words --------------------------------------------------------------------------------------


def test_words_and_punctuation_marks_have_ids_by_frequency() -> None:
    texts = ["The cat, the DOG.", "Don't stop: 2 dogs_x!", "the cat"]
    vocabulary = WordVocabulary.of(iter(texts))
    assert vocabulary.words[:4] == ["", "[UNK]", "the", "cat"]
    assert vocabulary.words[4:] == sorted("! ' , . 2 : dog dogs_x don stop t".split())
    assert len(vocabulary) == len(vocabulary.words) == 15
    assert vocabulary.encode("CAT  the\n?").tolist() == [3, 2, 1]
    assert vocabulary.decode([3, 2, 1, 0, 0]) == "cat the [UNK]"
    assert vocabulary.decode([]) == ""


def test_a_word_of_another_case_is_another_word_without_lower() -> None:
    vocabulary = WordVocabulary.of(["The the cat"], lower=False)
    assert vocabulary.words[2:] == ["The", "cat", "the"]
    assert vocabulary.encode("THE The the").tolist() == [1, 2, 4]


def test_rare_words_are_left_out() -> None:
    texts = ["a a a b b c d d"]
    assert WordVocabulary.of(texts, min_count=2).words[2:] == ["a", "b", "d"]
    assert WordVocabulary.of(texts, max_size=4).words == ["", "[UNK]", "a", "b"]
    assert WordVocabulary.of(texts, max_size=99, min_count=3).words[2:] == ["a"]


@given(st.lists(st.text(), min_size=1), st.text(), st.booleans())
def test_a_word_is_found_again(texts: list[str], other: str, lower: bool) -> None:
    try:
        vocabulary = WordVocabulary.of(texts, lower=lower)
    except ValueError:
        assert not "".join(texts).split()  # white space alone
        return
    for text, ids in zip(texts, vocabulary.encode_all(texts), strict=True):
        assert ids.dtype == np.int64 and np.all(ids > 1)
        # Nothing is lost but white space.
        whole = text.lower() if lower else text
        assert vocabulary.decode(ids).split() == " ".join(vocabulary.words[i] for i in ids).split()
        assert "".join(vocabulary.decode(ids).split()) == "".join(whole.split())
        assert np.array_equal(vocabulary.encode(vocabulary.decode(ids)), ids)
    assert np.all(vocabulary.encode(other) >= 1)
    words, kept = json.loads(json.dumps([vocabulary.words, vocabulary.lower]))
    again = WordVocabulary(words, lower=kept)
    assert again == vocabulary and hash(again) == hash(vocabulary)
    assert np.array_equal(again.encode(other), vocabulary.encode(other))


def test_word_vocabularies_differ_in_words_and_in_case() -> None:
    vocabulary = WordVocabulary(["", "[UNK]", "a", "b"])
    assert WordVocabulary(["", "[UNK]", "a", "b"], lower=True) == vocabulary
    assert WordVocabulary(["", "[UNK]", "a", "b"], lower=False) != vocabulary
    assert WordVocabulary(["", "[UNK]", "b", "a"]) != vocabulary
    assert vocabulary != Vocabulary("ab")
    assert repr(WordVocabulary.of(map(str, range(10_000)))) == "<WordVocabulary of 10,002 ids>"


def test_encoded_texts_are_ragged_rows() -> None:
    vocabulary = WordVocabulary.of(["a b c"])
    x, lengths = Ragged(vocabulary.encode_all(["c a", "", "a b c"]))[:]
    assert lengths.tolist() == [2, 0, 3]
    assert x.tolist() == [[4, 2, 0], [0, 0, 0], [2, 3, 4]]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["a", "b", "c"], r"words: expected '', '\[UNK\]' and at least one word, got \['a', 'b',"),
        (["", "[UNK]"], r"at least one word, got \['', '\[UNK\]'\]"),
        (["", "[UNK]", "a", "Bee"], r"words\[3\]: expected one word in lower case, got 'Bee'"),
        (["", "[UNK]", "a b"], r"words\[2\]: expected one word in lower case, got 'a b'"),
        (["", "[UNK]", "", "b"], r"words\[2\]: expected one word in lower case, got ''"),
        (["", "[UNK]", "a", "b", "a"], r"words\[4\]: expected different words, got 'a' again"),
    ],
)
def test_words_that_no_text_can_hold_are_named(words: list[str], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        WordVocabulary(words)


def test_word_vocabularies_name_wrong_arguments() -> None:
    for words in ("abc", ["", "[UNK]", 3]):
        with pytest.raises(TypeError, match="words: expected a list of strings"):
            WordVocabulary(words)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"texts: expected several, got a string; write \[text\]"):
        WordVocabulary.of("abc")
    with pytest.raises(ValueError, match="texts: expected at least one word, got none"):
        WordVocabulary.of([" ", "\n"])
    with pytest.raises(ValueError, match="at least one word that occurs 2 times, got none"):
        WordVocabulary.of(["a b"], min_count=2)
    with pytest.raises(ValueError, match="max_size: expected 3 or more, for at least one word"):
        WordVocabulary.of(["a b"], max_size=2)
    with pytest.raises(ValueError, match="min_count: expected an integer from 1"):
        WordVocabulary.of(["a b"], min_count=0)
    vocabulary = WordVocabulary.of(["a"])
    with pytest.raises(TypeError, match="texts: expected several, got a string"):
        vocabulary.encode_all("a b")
    with pytest.raises(ValueError, match="ids: expected 0 to 2, got 0 to 3"):
        vocabulary.decode([0, 3])
