import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from personalization.data.texts import TextPreprocessing
from personalization.vocabulary.cut import choose_tokens
from personalization.vocabulary.spelling import spelling
from tests.tiny_text import VOCABULARY, WORDS, tiny_tokenizer

few = settings(max_examples=25)


def preprocessing():
    return TextPreprocessing(tiny_tokenizer().to_str(), 0, 64)


def cut_to(full, most, private=()):
    return choose_tokens(full, np.array(private, dtype=np.int64), np.zeros(VOCABULARY), most=most)


@few
@given(words=st.lists(st.sampled_from(WORDS), max_size=8), most=st.sampled_from([257, 270, 300, VOCABULARY]))
def test_text_that_is_spelled_out_says_the_same_in_as_many_tokens_or_more(words, most):
    full, text = preprocessing(), " ".join(words)
    cut = cut_to(full, most, full.encode("the river"))
    found = spelling(full, cut.preprocessing)
    tokens = full.encode(text)
    spelled = found.spell(tokens)
    assert cut.preprocessing.decode(spelled) == text
    assert len(spelled) >= len(tokens)
    if most == VOCABULARY:
        np.testing.assert_array_equal(cut.kept[spelled], tokens)


def test_tokens_that_are_kept_are_spelled_by_themselves_and_so_is_the_end_of_a_text():
    full = preprocessing()
    cut = cut_to(full, 290)
    found = spelling(full, cut.preprocessing)
    assert [pieces.tolist() for pieces in found.pieces if len(pieces) == 1] == [[n] for n in range(len(cut.kept))]
    np.testing.assert_array_equal(found.pieces[0], [0])
    assert len(found.pieces) == full.vocabulary
    np.testing.assert_array_equal(found.whole, cut.kept)


def test_windows_stay_as_long_as_they_were():
    full = preprocessing()
    cut = cut_to(full, 257)
    found = spelling(full, cut.preprocessing)
    windows = full.encode(" ".join(WORDS * 3))[:30].reshape(3, 10)
    spelled = found.spell_windows(windows)
    assert spelled.shape == windows.shape
    np.testing.assert_array_equal(spelled[1], found.spell(windows[1])[:10])
    assert found.spell_windows(windows[:0]).shape == (0, 10)
    assert found.spell([]).shape == (0,)
