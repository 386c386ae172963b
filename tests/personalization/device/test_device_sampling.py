import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from personalization.device.sampling import choose_token, likely_tokens
from personalization.errors import UserError
from personalization.prediction.continuation import Generation

LOGITS = st.lists(st.floats(-8, 8, width=32), min_size=2, max_size=12, unique=True)


@given(LOGITS, st.integers(0, 14), st.floats(0.05, 0.95), st.floats(0.2, 3.0))
def test_tokens_that_may_be_drawn_are_those_of_transformers(rows, top_k, top_p, temperature):
    logits = np.array(rows, np.float32)
    settings = Generation(temperature=temperature, top_k=top_k, top_p=top_p)
    scores = TemperatureLogitsWarper(temperature)(None, torch.from_numpy(logits)[None])
    if top_k:
        scores = TopKLogitsWarper(top_k)(None, scores)
    probabilities = np.sort(scores.softmax(-1)[0].numpy())[::-1].cumsum()
    if np.abs(probabilities - top_p).min() < 1e-5:
        return  # on the edge, where rounding decides
    expected = TopPLogitsWarper(top_p)(None, scores)[0].isfinite().nonzero()[:, 0].tolist()
    found = likely_tokens(logits, settings).tolist()
    assert sorted(found) == expected
    assert found == sorted(found, key=lambda token: -logits[token])


@given(LOGITS, st.integers(0, 99))
def test_temperature_zero_takes_the_likeliest(rows, seed):
    logits = np.array(rows, np.float32)
    assert choose_token(logits, Generation(seed=seed), np.random.default_rng(seed)) == logits.argmax()


def test_tokens_are_drawn_as_often_as_they_are_likely():
    logits = np.log(np.array([0.1, 0.6, 0.3], np.float32))
    random, settings = np.random.default_rng(0), Generation(temperature=1.0)
    drawn = np.bincount([choose_token(logits, settings, random) for _ in range(4000)]) / 4000
    np.testing.assert_allclose(drawn, [0.1, 0.6, 0.3], atol=0.03)
    hotter = Generation(temperature=2.0, top_k=2)
    drawn = np.bincount([choose_token(logits, hotter, random) for _ in range(4000)]) / 4000
    share = 1 / (1 + 0.5**0.5)
    np.testing.assert_allclose(drawn, [0.0, share, 1 - share], atol=0.03)


@pytest.mark.parametrize(
    "wrong", [{"tokens": 0}, {"temperature": -1.0}, {"seed": -1}, {"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.5}]
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(UserError, match="expected 1 or more tokens"):
        Generation(**wrong)
