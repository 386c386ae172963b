from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from personalization.cutting.refit import ELIMINATION_ROUNDS, fold, moments, refit, ridge_for, select_units
from personalization.transformer.layers import Layer, LayerKind

few = settings(max_examples=25)
seeds = st.integers(0, 10**6)


def make_layer(units, columns_per_unit):
    return Layer(
        index=0,
        block=0,
        kind=LayerKind.MLP if columns_per_unit == 1 else LayerKind.ATTENTION,
        block_path="block",
        core="block.core",
        readers=(),
        writer="block.writer",
        units=units,
        columns_per_unit=columns_per_unit,
        weights_per_unit=1,
    )


def problem(seed, columns, width=3, rows=40):
    """Correlated inputs x, a dense writer and its outputs y with noise, in double precision."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    x = normal(rows, columns) @ normal(columns, columns) + normal(columns)
    weight, bias = normal(width, columns), normal(width)
    return x, weight, x @ weight.t() + bias + 0.3 * normal(rows, width)


def strength(x, columns, ridge):
    return ridge * x[:, columns].var(0, unbiased=False).mean().item()


def test_moments_are_covariances_in_blocks_of_columns_as_in_one():
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(50, 1000, generator=generator, dtype=torch.float64) + 2.0
    y = x[:, :7] + torch.randn(50, 7, generator=generator, dtype=torch.float64)
    found, expected = moments(x, y), np.cov(x.t().numpy(), y.t().numpy(), bias=True)
    np.testing.assert_allclose(found.covariance, expected[:1000, :1000], atol=1e-12)
    np.testing.assert_allclose(found.cross, expected[1000:, :1000], atol=1e-12)
    torch.testing.assert_close(found.covariance, found.covariance.t())


@few
@given(seed=seeds, kept=st.integers(1, 6), ridge=st.floats(1e-3, 10.0))
def test_refit_is_ridge_regression_towards_the_dense_weights(seed, kept, ridge):
    x, weight, y = problem(seed, 6)
    columns = torch.randperm(6, generator=torch.Generator().manual_seed(seed))[:kept].sort().values
    found = refit(weight, moments(x, y), columns, ridge)
    # min ||y - W x - b||^2 + n s ||W - W0||^2 as one least-squares system: a row sqrt(n s) e_j for each weight.
    rows, root = len(x), np.sqrt(len(x) * strength(x, columns, ridge))
    system = np.block([[x[:, columns].numpy(), np.ones((rows, 1))], [root * np.eye(kept), np.zeros((kept, 1))]])
    target = np.vstack([y.numpy(), root * weight[:, columns].t().numpy()])
    solution = np.linalg.lstsq(system, target, rcond=None)[0]
    np.testing.assert_allclose(found.weight.t(), solution[:-1], atol=1e-7, rtol=1e-6)
    np.testing.assert_allclose(found.bias, solution[-1], atol=1e-7, rtol=1e-6)


def test_few_rows_for_many_columns_need_a_stronger_ridge():
    assert ridge_for(100, 10_000, 0.1) == 0.1
    assert ridge_for(1_500, 2_000, 0.1) == 1.5
    errors = {}
    for rows in (60, 6_000):
        for name in ("least", "for these rows"):
            errors[rows, name] = np.mean([lost_by_refit(seed, rows, name) for seed in range(20)])
    assert errors[60, "for these rows"] < 0.8 * errors[60, "least"]
    assert errors[6_000, "for these rows"] == pytest.approx(errors[6_000, "least"])


def lost_by_refit(seed, rows, ridge):
    """Mean squared error on new rows of a layer of 80 columns that keeps 40, some of what it loses can be foreseen."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.eye(80) + 0.05 * torch.randn(80, 80, generator=generator)
    seen, new = (torch.randn(count, 80, generator=generator) @ mixing for count in (rows, 2_000))
    weight, columns = torch.randn(30, 80, generator=generator), torch.arange(40)
    strength = 0.1 if ridge == "least" else ridge_for(40, rows, 0.1)
    found = refit(weight, moments(seen, seen @ weight.t()), columns, strength)
    return float((new[:, columns] @ found.weight.t() + found.bias - new @ weight.t()).square().mean())


@few
@given(seed=seeds, ridge=st.floats(1e-3, 100.0))
def test_with_all_columns_of_the_dense_layer_refit_gives_it_back(seed, ridge):
    x, weight, _ = problem(seed, 5)
    bias = torch.arange(3, dtype=torch.float64)
    found = refit(weight, moments(x, x @ weight.t() + bias), torch.arange(5), ridge)
    torch.testing.assert_close(found.weight, weight)
    torch.testing.assert_close(found.bias, bias)


@few
@given(seed=seeds, kept=st.integers(0, 5))
def test_fold_replaces_what_was_removed_by_its_mean(seed, kept):
    x, weight, _ = problem(seed, 5)
    bias = torch.arange(3, dtype=torch.float64)
    columns = torch.arange(kept)
    found = fold(weight, moments(x, x @ weight.t() + bias), columns)
    replaced = x.clone()
    replaced[:, kept:] = x[:, kept:].mean(0)
    torch.testing.assert_close(x[:, columns] @ found.weight.t() + found.bias, replaced @ weight.t() + bias)


@few
@given(seed=seeds, ridge=st.floats(1e-3, 10.0))
def test_both_writers_have_the_right_mean_and_refit_errs_no_more_than_fold(seed, ridge):
    x, weight, y = problem(seed, 6)
    moment, columns = moments(x, y), torch.tensor([0, 2, 3])
    errors = []
    for writer in (refit(weight, moment, columns, ridge), fold(weight, moment, columns)):
        output = x[:, columns] @ writer.weight.t() + writer.bias
        torch.testing.assert_close(output.mean(0), y.mean(0))
        errors.append(float((y - output).square().mean()))
    assert errors[0] <= errors[1] * (1 + 1e-12)


def test_a_large_ridge_is_a_fold_and_no_columns_are_the_mean():
    x, weight, y = problem(0, 6)
    moment, columns = moments(x, y), torch.tensor([1, 4])
    torch.testing.assert_close(refit(weight, moment, columns, 1e9).weight, fold(weight, moment, columns).weight)
    nothing = refit(weight, moment, torch.arange(0), 0.1)
    assert nothing.weight.shape == (3, 0)
    torch.testing.assert_close(nothing.bias, y.mean(0))


@pytest.mark.parametrize("ridge", [0.1, 1e-3, 1e-6, 1e-9, 1e-15])
def test_fewer_samples_than_columns_and_dead_columns_are_no_trouble(ridge):
    """Single precision, 16 samples that span 15 of 200 directions; the fit must be finite and reproduce them."""
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(16, 200, generator=generator), torch.randn(8, 200, generator=generator)
    x[:, :20] = 0.0
    y = x @ weight.t()
    columns = torch.arange(0, 200, 2)
    found = refit(weight, moments(x, y), columns, ridge)
    folded = fold(weight, moments(x, y), columns)
    errors = [float((y - x[:, columns] @ w.weight.t() - w.bias).square().mean()) for w in (found, folded)]
    assert errors[0] < 0.5 * errors[1]


def test_layers_that_never_change_are_folded():
    weight = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    x = torch.ones(5, 4)
    found = refit(weight, moments(x, x @ weight.t()), torch.tensor([0, 1]), 0.1)
    torch.testing.assert_close(found.weight, weight[:, :2])
    torch.testing.assert_close(found.weight.sum(1) + found.bias, weight.sum(1))


def ridge_cost(x, y, columns, load):
    """Return min over W, b of E||y - W x - b||^2 + load ||W||^2 by the slow way."""
    x, y = (x - x.mean(0)).numpy(), (y - y.mean(0)).numpy()
    root = np.sqrt(len(x) * load)
    system = np.vstack([x[:, columns], root * np.eye(len(columns))])
    target = np.vstack([y, np.zeros((len(columns), y.shape[1]))])
    residual = target - system @ np.linalg.lstsq(system, target, rcond=None)[0]
    return float((residual**2).sum() / len(x))


@few
@given(seed=seeds, width=st.integers(1, 3), count=st.integers(1, 11), ridge=st.floats(1e-3, 10.0))
def test_units_are_eliminated_as_if_all_were_refitted_anew_in_every_round(seed, width, count, ridge):
    layer = make_layer(12, width)
    x, weight, y = problem(seed, 12 * width, rows=80)
    moment, left = moments(x, y), np.arange(12)
    loading = strength(x, list(range(12 * width)), ridge) * torch.eye(12 * width, dtype=torch.float64)
    loaded = moment.covariance + loading
    for target in sorted({round(12 + (count - 12) * step / ELIMINATION_ROUNDS) for step in range(1, 5)}, reverse=True):
        columns = torch.from_numpy(layer.columns(left))
        inverse = torch.linalg.inv(loaded[columns][:, columns])
        solution = (moment.cross[:, columns] @ inverse).t()
        costs = []
        for unit in range(len(left)):
            own = slice(unit * width, (unit + 1) * width)
            costs.append(float((solution[own] * torch.linalg.solve(inverse[own, own], solution[own])).sum()))
        left = np.sort(left[np.argsort(-np.array(costs), kind="stable")[:target]])
    found = select_units(layer, weight, moment, np.arange(12), count, score="residual", ridge=ridge)
    np.testing.assert_array_equal(found, left)


@few
@given(seed=seeds, width=st.integers(1, 3), ridge=st.sampled_from([0.01, 0.1, 1.0]))
def test_the_residual_score_removes_the_unit_whose_loss_costs_least_after_a_refit(seed, width, ridge):
    layer = make_layer(5, width)
    x, weight, y = problem(seed, 5 * width)
    allowed = np.array([0, 1, 3, 4])
    load = strength(x, torch.from_numpy(layer.columns(allowed)), ridge)
    kept = select_units(layer, weight, moments(x, y), allowed, 3, score="residual", ridge=ridge)
    costs = {rest: ridge_cost(x, y, layer.columns(rest), load) for rest in combinations(allowed.tolist(), 3)}
    assert tuple(kept) == min(costs, key=costs.__getitem__)


@few
@given(seed=seeds, width=st.integers(1, 2), count=st.integers(0, 6))
def test_both_scores_keep_the_count_that_was_asked_for_of_the_allowed_units(seed, width, count):
    layer = make_layer(8, width)
    x, weight, y = problem(seed, 8 * width)
    allowed = np.sort(np.random.default_rng(seed).choice(8, 6, replace=False))
    for score in ("variance", "residual"):
        kept = select_units(layer, weight, moments(x, y), allowed, count, score=score, ridge=0.1)
        assert len(kept) == count
        assert set(kept) <= set(allowed)
        assert (np.diff(kept) > 0).all()


def test_the_residual_score_drops_a_copy_that_variance_keeps():
    """Units 0 and 1 are the same loud signal; 2 is a quiet one of its own that nothing else can stand in for."""
    generator = torch.Generator().manual_seed(1)
    loud, quiet = torch.randn(200, 2, generator=generator).t()
    x = torch.stack([loud, loud, 0.5 * quiet], 1)
    weight = torch.eye(3)
    moment = moments(x, x @ weight.t())
    chosen = {
        score: select_units(make_layer(3, 1), weight, moment, np.arange(3), 2, score=score, ridge=0.01).tolist()
        for score in ("variance", "residual")
    }
    assert chosen["variance"] == [0, 1]
    assert 2 in chosen["residual"]


def test_the_variance_score_by_hand():
    """Heads of two columns; variances 4, 0, 1, 1, 9, 0 and squared outgoing norms 1, 9, 2, 1, 0.25, 100."""
    x = torch.tensor([[2.0, 5.0, 1.0, 1.0, 3.0, 7.0], [-2.0, 5.0, -1.0, -1.0, -3.0, 7.0]])
    weight = torch.tensor([[1.0, 3.0, 1.0, 0.0, 0.5, 10.0], [0.0, 0.0, 1.0, 1.0, 0.0, 0.0]])
    # Unit 0: 4 * 1 + 0 * 9 = 4; unit 1: 1 * 2 + 1 * 1 = 3; unit 2: 9 * 0.25 + 0 * 100 = 2.25.
    moment = moments(x, x @ weight.t())
    layer = make_layer(3, 2)
    kept = [select_units(layer, weight, moment, np.arange(3), n, score="variance", ridge=0.1).tolist() for n in (1, 2)]
    assert kept == [[0], [0, 1]]


def test_wide_units_are_scored_on_several_threads_as_on_one():
    """Three key-value groups with three heads of 64 columns each: what SmolLM2's attention writes from."""
    layer = make_layer(3, 192)
    x, weight, y = (tensor.float() for tensor in problem(0, 3 * 192, width=576, rows=700))
    found, threads = [], torch.get_num_threads()
    try:
        for count in (1, 2, 4):
            torch.set_num_threads(count)
            kept = select_units(layer, weight, moments(x, y), np.arange(3), 2, score="residual", ridge=0.1)
            found.append(kept.tolist())
    finally:
        torch.set_num_threads(threads)
    load = strength(x, torch.arange(3 * 192), 0.1)
    pairs = list(combinations(range(3), 2))
    assert found == [list(min(pairs, key=lambda rest: ridge_cost(x, y, layer.columns(rest), load)))] * 3
