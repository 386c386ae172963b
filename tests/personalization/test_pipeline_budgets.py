import pytest
import torch

from personalization import UserError, personalize
from personalization.allocation import costs
from personalization.allocation.footprint import count_macs
from personalization.model_files.storage import stored_bytes
from personalization.transformer.layers import find_layers
from tests.personalization.pipelines import chosen, either, tiny


@either
@pytest.mark.parametrize("kind", ["weights", "bytes", "macs"])
def test_every_kind_of_budget_is_met_in_its_own_measure(name, kind):
    model, inputs = tiny(name)
    budget = {"weights": 0.4, "bytes": 0.75, "macs": 0.6}[kind]
    found = personalize(model, inputs, settings=chosen(budget=budget, budget_kind=kind))
    one = {key: value[:1] for key, value in inputs.items()}
    share = {
        "weights": lambda: found.weights_kept,
        "bytes": lambda: stored_bytes(found.model) / stored_bytes(model),
        "macs": lambda: count_macs(found.model, one, found.layers) / count_macs(model, one, found.layers),
    }[kind]()
    assert share <= budget + 1e-9
    assert share > budget - 0.2


@either
def test_a_latency_budget_is_met_where_latency_follows_the_work(name, monkeypatch):
    """Clocks of a busy machine decide nothing here: each multiply-accumulate is said to take a nanosecond."""
    model, inputs = tiny(name)
    layers = find_layers(model)

    def latency(measured, sample):
        return 1e-6 * count_macs(measured, sample, layers)

    monkeypatch.setattr(costs, "measure_latency", latency)
    found = personalize(model, inputs, settings=chosen(budget=0.8, budget_kind="latency"))
    one = {key: value[:1] for key, value in inputs.items()}
    assert latency(found.model, one) <= 0.8 * latency(model, one) * (1 + 1e-9)


@either
def test_a_whole_budget_gives_the_dense_model_back(name):
    model, inputs = tiny(name)
    found = personalize(model, inputs, settings=chosen(budget=1.0, step_probes=0, adapt_head=False))
    assert found.weights_kept == 1.0
    ours, theirs = found.model.state_dict(), model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@either
def test_what_no_step_could_commit_is_not_cut(name):
    model, inputs = tiny(name)
    found = personalize(model, inputs, settings=chosen(tolerance=1e-9))
    assert (found.weights_kept, found.agreement, found.entropy_increase) == (1.0, 1.0, 0.0)
    assert not found.levels.any()


def test_a_budget_that_the_limits_do_not_allow():
    model, inputs = tiny("vit")
    with pytest.raises(UserError, match=r"budget 0\.1: the limits allow at least"):
        personalize(model, inputs, settings=chosen(budget=0.1, layer_limit=0.5))


@either
def test_without_a_limit_whole_layers_go_and_the_model_still_answers(name):
    """So small a budget leaves no room for a unit of every layer."""
    model, inputs = tiny(name)
    found = personalize(model, inputs, settings=chosen(budget=0.1, layer_limit=1.0, step_probes=0))
    assert found.weights_kept <= 0.1
    gone = [len(kept) == 0 for kept in found.kept]
    assert any(gone)
    assert [level == 1.0 for level in found.levels] == gone
    assert torch.isfinite(found.model(**inputs).logits).all()
