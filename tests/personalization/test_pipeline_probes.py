import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from personalization import personalize
from personalization.sensing.prior import CERTAINTY, Prior
from personalization.sensing.private_trace import fit_split
from personalization.settings import AUTOMATIC
from tests.personalization.increases import loss_increase
from tests.personalization.pipelines import ATOMS, SAMPLES, chosen, either, prior, tiny


@either
def test_the_loss_signal_measures_the_loss_of_the_labels_on_held_out_samples(name):
    model, inputs = tiny(name)
    dense = model(**inputs).logits.detach()
    labels = dense.argmax(-1)
    found = personalize(model, inputs, labels=labels, settings=chosen(signal="loss", adapt_head=False))
    entropy = personalize(model, inputs, settings=chosen(adapt_head=False))
    np.testing.assert_array_equal(found.samples.design, entropy.samples.design)
    assert (found.samples.measurements != entropy.samples.measurements).any()
    held = ~fit_split(SAMPLES, 0.25, np.random.default_rng(0))
    with torch.no_grad():
        masked = found.pruned.last.outputs if name == "vit" else model.lm_head(found.pruned.last.outputs)
    increase = loss_increase(dense[held], masked[held], labels[held])
    counted = increase if increase.ndim == 1 else increase[inputs["attention_mask"][held].bool()]
    assert found.entropy_increase > 0.0
    assert found.entropy_increase == pytest.approx(float(counted.mean()), abs=1e-5)


def test_past_samples_and_the_prior_stand_in_for_probes():
    model, inputs = tiny("vit")
    first = personalize(model, inputs, settings=chosen(probes=5, step_probes=0))
    second = personalize(model, inputs, past=first.samples, settings=chosen(probes=7, step_probes=0, seed=1))
    # Twelve probes of one layer each: every atom once, for what has been seen comes last.
    np.testing.assert_array_equal(second.samples.design.sum(0), np.ones(ATOMS))
    np.testing.assert_array_equal(second.samples.measurements[:5], first.samples.measurements)
    assert second.evaluations == 7 + 1
    certain = Prior(prior().sensitivity, np.full(ATOMS, CERTAINTY))
    alone = personalize(model, inputs, prior=certain, settings=chosen(probes=0, step_probes=0))
    assert alone.evaluations == 1
    # What the prior holds for nearly nothing is raised a little, see `recovery.scaling`.
    np.testing.assert_allclose(alone.sensitivity, prior().sensitivity, rtol=1e-6, atol=2e-3)
    assert not alone.precision.any()


@pytest.mark.parametrize("solver", ["deviation", "lasso", "omp"])
@pytest.mark.parametrize("score", ["variance", "residual"])
def test_every_solver_and_score_with_large_probes(solver, score):
    model, inputs = tiny("vit")
    fields = {"solver": solver, "score": score, "layers_per_probe": 3, "probes": 8}
    found = personalize(model, inputs, prior=prior(), settings=chosen(**fields))
    assert found.weights_kept <= 0.5
    assert found.fit_r2 is not None


@given(samples=st.integers(8, 300), share=st.floats(0.01, 0.99), seed=st.integers(0, 10**6))
def test_samples_are_split_by_share_with_two_or_more_on_each_side(samples, share, seed):
    fit = fit_split(samples, share, np.random.default_rng(seed))
    held = int((~fit).sum())
    assert len(fit) == samples
    assert 2 <= held <= samples - 2
    assert abs(held - share * samples) <= 2


def test_fresh_probes_are_spent_only_where_no_prior_helps():
    model, inputs = tiny("vit")
    settings = chosen(probes=4, step_probes=AUTOMATIC, steps=1)
    alone = personalize(model, inputs, settings=settings)
    helped = personalize(model, inputs, prior=prior(), settings=settings)
    assert helped.evaluations == 4 + 1
    assert alone.evaluations > helped.evaluations
    full = prior()
    thin = Prior(full.sensitivity, np.where(np.arange(len(full.precision)) == 0, 0.0, full.precision))
    assert personalize(model, inputs, prior=thin, settings=settings).evaluations > helped.evaluations
