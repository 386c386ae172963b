import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from personalization.cutting.masked import MaskedPass
from personalization.sensing.measurement import DensePredictions, entropy_increase
from personalization.transformer.layers import find_layers
from personalization.transformer.trace import DenseTrace, trace_dense
from tests.personalization.architectures import build
from tests.personalization.increases import loss_increase

few = settings(max_examples=25)
seeds = st.integers(0, 10**6)


def draw(seed, *shape, scale=3.0):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def bare_trace(logits, *, positions=None, shift=None):
    """A trace of which only what measurements read is filled."""
    shape = logits.shape[:2] if logits.ndim == 3 else (len(logits), 1)
    return DenseTrace(
        torch.nn.Module(),
        (),
        {},
        logits,
        None,
        (),
        (),
        torch.ones(shape, dtype=torch.bool) if positions is None else positions,
        torch.ones(shape, dtype=torch.bool),
        torch.zeros(logits.shape[-1]) if shift is None else shift,
    )


def everything(trace):
    return torch.ones(trace.samples, dtype=torch.bool)


def increase(trace, outputs, *, signal="entropy", labels=None, on=None):
    on = everything(trace) if on is None else on
    return DensePredictions(trace, signal=signal, labels=labels, on=on).increase(MaskedPass(outputs))


def agreement(trace, outputs):
    dense = DensePredictions(trace, signal="entropy", labels=None, on=everything(trace))
    return dense.agreement(MaskedPass(outputs))


@few
@given(seed=seeds, shape=st.sampled_from([(4, 7), (3, 5, 6)]), scale=st.floats(0.01, 20.0))
def test_entropy_increase_is_torch_s_divergence_and_never_negative(seed, shape, scale):
    dense, masked = draw(seed, *shape, scale=scale), draw(seed + 1, *shape, scale=scale)
    found = entropy_increase(dense, masked)
    expected = functional.kl_div(masked.log_softmax(-1), dense.log_softmax(-1), reduction="none", log_target=True)
    assert found.shape == shape[:-1]
    torch.testing.assert_close(found, expected.sum(-1))
    assert (found >= -1e-5).all()


@few
@given(seed=seeds)
def test_equal_predictions_cost_nothing_however_the_logits_are_shifted(seed):
    dense = draw(seed, 5, 4)
    assert not entropy_increase(dense, dense).any()
    torch.testing.assert_close(entropy_increase(dense, dense + 3.0), torch.zeros(5), atol=1e-5, rtol=0)


@few
@given(seed=seeds)
def test_entropy_increases_of_independent_predictions_add_up(seed):
    """The divergence of a product of distributions is the sum of the divergences."""
    dense, masked = draw(seed, 2, 3, 4).double(), draw(seed + 1, 2, 3, 4).double()
    joint = [(p[0, :, :, None] + p[1, :, None, :]).flatten(1) for p in (dense.log_softmax(-1), masked.log_softmax(-1))]
    torch.testing.assert_close(entropy_increase(*joint), entropy_increase(dense, masked).sum(0))


@few
@given(seed=seeds, shape=st.sampled_from([(4, 7), (3, 5, 7)]))
def test_the_loss_signal_is_the_difference_of_cross_entropies(seed, shape):
    dense, masked = draw(seed, *shape), draw(seed + 1, *shape)
    labels = torch.randint(0, 7, shape[:-1], generator=torch.Generator().manual_seed(seed))
    expected = max(float(loss_increase(dense, masked, labels).mean()), 0.0)
    found = increase(bare_trace(dense), masked, signal="loss", labels=labels)
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-5)


@few
@given(seed=seeds)
def test_entropy_increase_is_the_loss_increase_expected_of_labels_that_the_dense_model_draws(seed):
    dense, masked = draw(seed, 3, 4), draw(seed + 1, 3, 4)
    each = torch.stack([loss_increase(dense, masked, torch.full((3,), label)) for label in range(4)], -1)
    torch.testing.assert_close(entropy_increase(dense, masked), (dense.softmax(-1) * each).sum(-1))


@few
@given(seed=seeds)
def test_measure_is_the_mean_over_the_samples_asked_for(seed):
    dense, masked, labels = draw(seed, 6, 4), draw(seed + 1, 6, 4), torch.arange(6) % 4
    trace, on = bare_trace(dense), torch.tensor([True, False, True, True, False, False])
    entropy = increase(trace, masked, on=on)
    loss = increase(trace, masked, signal="loss", labels=labels, on=on)
    assert entropy == pytest.approx(float(entropy_increase(dense[on], masked[on]).mean()), abs=1e-6)
    assert loss == pytest.approx(max(float(loss_increase(dense[on], masked[on], labels[on]).mean()), 0.0), abs=1e-6)


@few
@given(seed=seeds)
def test_padding_counts_neither_for_the_increase_nor_for_agreement(seed):
    positions = torch.tensor([[True, True, False], [True, False, False]])
    dense, masked = draw(seed, 2, 3, 5), draw(seed + 1, 2, 3, 5)
    trace = bare_trace(dense, positions=positions)
    labels = torch.randint(0, 5, (2, 3), generator=torch.Generator().manual_seed(seed))
    other = torch.where(positions[..., None], masked, draw(seed + 2, 2, 3, 5))
    for signal in ("entropy", "loss"):
        values = [increase(trace, m, signal=signal, labels=labels) for m in (masked, other)]
        assert values[0] == values[1]
    expected = entropy_increase(dense, masked)[positions].mean()
    assert increase(trace, masked) == pytest.approx(float(expected))
    same = (dense.argmax(-1) == masked.argmax(-1))[positions].double().mean()
    assert agreement(trace, other) == pytest.approx(float(same))


def test_the_shift_of_the_head_is_in_both_predictions():
    shift = torch.tensor([0.0, 5.0])
    dense, masked = torch.tensor([[1.0, 0.0], [9.0, 0.0]]), torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    plain, shifted = bare_trace(dense), bare_trace(dense, shift=shift)
    assert agreement(plain, masked) == 0.0
    assert agreement(shifted, masked) == 0.5
    expected = float(entropy_increase(dense + shift, masked + shift).mean())
    assert increase(shifted, masked) == pytest.approx(expected)


def test_a_lower_loss_is_worth_no_more_than_an_equal_one():
    trace = bare_trace(torch.tensor([[0.0, 1.0]]))
    better = torch.tensor([[5.0, 0.0]])
    assert increase(trace, better, signal="loss", labels=torch.tensor([0])) == 0.0


@pytest.mark.parametrize("name", ["vit", "llama"])
def test_the_dense_model_agrees_with_itself_at_no_cost(name):
    case = build(name)
    trace = trace_dense(case.model, find_layers(case.model), case.inputs)
    assert increase(trace, trace.outputs) == 0.0
    assert agreement(trace, trace.outputs) == 1.0
