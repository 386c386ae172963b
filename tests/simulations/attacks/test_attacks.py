import numpy as np
import pytest

from personalization.errors import UserError
from personalization.sensing.prior import Prior
from personalization.wire.plan import Plan
from personalization.wire.statistics import (
    StatisticsError,
    StatisticsLayout,
    check,
    decode,
    encode,
    fleet_prior,
    from_wire,
    to_wire,
)
from simulations.attacks.fields import average, believed, echo, split
from simulations.attacks.registry import ATTACKS, make_attack

LAYOUT = StatisticsLayout(layers=6, levels=2, groups=20)
HONEST, ATTACKERS = 9, 3
VALID = [kind for kind in ATTACKS if kind != "invalid"]


def honest_vectors(seed=0, clients=HONEST, measured=0.5):
    """Valid vectors of clients who agree roughly; each has measured some atoms. Exact in the wire's half precision."""
    rng = np.random.default_rng(seed)
    needs = np.linspace(0.2, 0.7, LAYOUT.atoms)
    precision = rng.uniform(0.2, 0.9, (clients, LAYOUT.atoms)) * (rng.random((clients, LAYOUT.atoms)) < measured)
    parts = [
        precision,
        precision * np.clip(needs + rng.normal(0, 0.05, precision.shape), 0, 1),
        rng.random((clients, LAYOUT.layers)),
        rng.random((clients, LAYOUT.layers)) < np.linspace(0, 1, LAYOUT.layers),
        np.clip(np.linspace(0, 1, LAYOUT.groups) + rng.normal(0, 0.1, (clients, LAYOUT.groups)), 0, 1),
        rng.random((clients, 5)),
    ]
    return np.concatenate(parts, axis=1).astype("<f2").astype(np.float64)


def make_plan(prior=True):
    sensitivity = from_wire(np.linspace(0.3, 0.6, LAYOUT.atoms))
    known = Prior(sensitivity, np.linspace(0.1, 3.0, LAYOUT.atoms)) if prior else None
    return Plan(version=2, prior=known, dropped=np.arange(LAYOUT.groups) < 4, probes=6, budget=0.3)


def forge(kind, honest, *, attackers=ATTACKERS, prior=True, strength=None, seed=1):
    return make_attack(kind, strength=strength).forge(
        honest, attackers=attackers, plan=make_plan(prior), layout=LAYOUT, rng=np.random.default_rng(seed)
    )


@pytest.mark.parametrize("kind", VALID)
@pytest.mark.parametrize("prior", [True, False])
@pytest.mark.parametrize(("clients", "measured"), [(HONEST, 0.5), (1, 0.3), (4, 0.0), (5, 1.0)])
def test_forged_vectors_pass_for_valid_ones_on_the_wire(kind, prior, clients, measured):
    honest = honest_vectors(clients=clients, measured=measured)
    before = honest.copy()
    forged = forge(kind, honest, prior=prior)
    assert forged.shape == (ATTACKERS, LAYOUT.size)
    for vector in forged:
        check(vector, LAYOUT)
        decode(encode(vector), LAYOUT)
    np.testing.assert_array_equal(honest, before)


@pytest.mark.parametrize("kind", ATTACKS)
def test_a_forgery_is_a_function_of_what_is_seen_and_of_the_seed(kind):
    np.testing.assert_array_equal(forge(kind, honest_vectors()), forge(kind, honest_vectors()))


@pytest.mark.parametrize("kind", ["sign-flip", "random"])
def test_where_attackers_draw_another_seed_gives_another_lie(kind):
    assert (forge(kind, honest_vectors(), seed=1) != forge(kind, honest_vectors(), seed=2)).any()


def test_invalid_vectors_are_refused_each_for_its_own_reason():
    for vector in forge("invalid", honest_vectors()):
        with pytest.raises(StatisticsError, match=r"NaN|outside"):
            decode(encode(vector), LAYOUT)


def test_sign_flip_turns_the_order_of_sensitivities_around_and_keeps_their_range():
    honest = honest_vectors(clients=1, measured=1.0)
    (own,), forged = split(honest, LAYOUT).sensitivity, split(forge("sign-flip", honest), LAYOUT)
    assert (forged.precision == 1.0).all()
    for lie in forged.sensitivity:
        np.testing.assert_array_equal(np.argsort(lie), np.argsort(own)[::-1])
        np.testing.assert_allclose([lie.min(), lie.max()], [own.min(), own.max()], atol=1e-12)
    np.testing.assert_allclose(forged.group_kept, np.repeat(1 - split(honest, LAYOUT).group_kept, ATTACKERS, axis=0))


def test_sign_flip_knows_what_clients_did_not_measure_themselves():
    honest = honest_vectors(measured=0.4)
    lies = split(forge("sign-flip", honest), LAYOUT).sensitivity
    assert np.corrcoef(lies.mean(0), believed(honest, LAYOUT, make_plan()))[0, 1] < -0.9


def test_inflation_multiplies_what_honest_clients_found():
    honest = honest_vectors(measured=1.0)
    forged = split(forge("inflation", honest, strength=3.0), LAYOUT)
    found = from_wire(believed(honest, LAYOUT, make_plan()))
    np.testing.assert_allclose(from_wire(forged.sensitivity[0]), np.minimum(3.0 * found, 20.0), rtol=1e-9)
    assert (forged.group_kept >= split(honest, LAYOUT).group_kept.mean(0) - 1e-12).all()


def test_random_attackers_fill_the_range_and_do_not_agree():
    forged = split(forge("random", honest_vectors(), attackers=200), LAYOUT)
    assert abs(forged.sensitivity.mean() - 0.5) < 0.02
    assert abs(forged.group_kept.std() - 12**-0.5) < 0.02
    assert abs(np.corrcoef(forged.sensitivity)[np.triu_indices(200, 1)].mean()) < 0.05


@pytest.mark.parametrize("strength", [None, 0.5, 2.0])
def test_a_little_is_enough_stays_within_the_deviation_of_honest_clients(strength):
    honest = honest_vectors(measured=0.6)
    z = 1.0 if strength is None else strength
    fields, lie = split(honest, LAYOUT), split(forge("a-little-is-enough", honest, strength=strength), LAYOUT)
    for name in ("precision", "level", "personalized", "group_kept"):
        own = getattr(fields, name)
        low, high = own.mean(0) - z * own.std(0), own.mean(0) + z * own.std(0)
        assert (getattr(lie, name) >= low - 1e-12).all()
        assert (getattr(lie, name) <= high + 1e-12).all()
    for atom in range(LAYOUT.atoms):
        weights = fields.precision[:, atom]
        mean = np.average(fields.sensitivity[:, atom], weights=weights)
        std = np.sqrt(np.average((fields.sensitivity[:, atom] - mean) ** 2, weights=weights))
        np.testing.assert_allclose(np.abs(lie.sensitivity[:, atom] - mean), z * std, atol=1e-9)


def test_a_little_is_enough_moves_against_what_the_fleet_says():
    honest = honest_vectors(measured=1.0)
    truth = believed(honest, LAYOUT, make_plan())
    lie = split(forge("a-little-is-enough", honest), LAYOUT).sensitivity[0]
    assert ((lie < truth) == (truth > truth.mean())).all()


@pytest.mark.parametrize("strength", [0.1, 0.5])
def test_inner_product_manipulation_is_the_negative_of_what_tells_layers_apart(strength):
    honest = honest_vectors(measured=1.0)
    truth = average(honest, LAYOUT, make_plan())
    lie = split(forge("inner-product-manipulation", honest, strength=strength), LAYOUT)
    for name in ("sensitivity", "level", "personalized", "group_kept"):
        true, false = getattr(truth, name)[0], getattr(lie, name)[0]
        np.testing.assert_allclose(false - false.mean(), -strength * (true - true.mean()), atol=1e-9)
        assert np.dot(false - true.mean(), true - true.mean()) < 0


def test_mimics_all_repeat_the_same_honest_client_far_from_the_mean():
    honest = honest_vectors()
    forged = forge("mimic", honest)
    (chosen,) = {int(np.flatnonzero((honest == vector).all(1))[0]) for vector in forged}
    distances = np.linalg.norm(honest - honest.mean(0), axis=1)
    assert distances[chosen] >= np.median(distances)


def test_a_mimic_finds_the_client_that_stands_apart():
    honest = np.repeat(honest_vectors(clients=1), 6, axis=0)
    honest[4, LAYOUT.field("level")] = 1.0 - honest[4, LAYOUT.field("level")]
    np.testing.assert_array_equal(forge("mimic", honest)[0], honest[4])


def test_a_free_rider_repeats_the_plan_and_never_moves_the_prior():
    plan = make_plan()
    (vector,) = forge("free-rider", honest_vectors(), attackers=1)
    repeated = fleet_prior(vector, LAYOUT)
    np.testing.assert_allclose(repeated.sensitivity, plan.prior.sensitivity, rtol=1e-9)
    np.testing.assert_allclose(repeated.precision, np.minimum(plan.prior.precision, 1.0))
    np.testing.assert_array_equal(vector[LAYOUT.field("group_kept")], ~plan.dropped)
    np.testing.assert_array_equal(vector, forge("free-rider", honest_vectors(seed=5), attackers=1)[0])


def test_a_free_rider_without_a_prior_claims_nothing():
    (vector,) = forge("free-rider", honest_vectors(), attackers=1, prior=False)
    assert not vector[LAYOUT.field("precision")].any()
    assert not vector[LAYOUT.field("weighted_sensitivity")].any()


def test_keep_everything_asks_for_everything():
    forged = split(forge("keep-everything", honest_vectors()), LAYOUT)
    for name in ("precision", "sensitivity", "personalized", "group_kept"):
        assert (getattr(forged, name) == 1.0).all()
    assert (forged.level == 0.0).all()


@pytest.mark.parametrize(("strength", "layers", "groups"), [(None, 3, 10), (0.3, 2, 6), (1.0, 6, 20)])
def test_drop_what_others_need_gives_away_the_layers_and_groups_that_honest_clients_need_most(strength, layers, groups):
    honest = honest_vectors()
    truth = average(honest, LAYOUT, make_plan())
    forged = forge("drop-what-others-need", honest, strength=strength)
    per_layer = truth.sensitivity.reshape(LAYOUT.layers, LAYOUT.levels).mean(1)
    needed = np.isin(np.arange(LAYOUT.layers), np.argsort(per_layer)[-layers:])
    kept_most = np.isin(np.arange(LAYOUT.groups), np.argsort(truth.group_kept[0])[-groups:])
    lie = split(forged, LAYOUT)
    atoms = np.repeat(needed, LAYOUT.levels)
    assert (lie.precision[:, atoms] == 1.0).all()
    assert (forged[:, LAYOUT.field("weighted_sensitivity")] == 0.0).all()
    assert (lie.precision[:, ~atoms] == 0.0).all()
    assert (lie.personalized[:, needed] == 0.0).all()
    assert (lie.group_kept[:, kept_most] == 0.0).all()
    np.testing.assert_allclose(lie.group_kept[0, ~kept_most], truth.group_kept[0, ~kept_most])


def test_what_nobody_measured_is_believed_from_the_prior_and_then_from_the_mean():
    honest = honest_vectors(measured=1.0)
    honest[:, LAYOUT.field("precision")][:, 3] = honest[:, LAYOUT.field("weighted_sensitivity")][:, 3] = 0.0
    with_prior = believed(honest, LAYOUT, make_plan())
    assert with_prior[3] == pytest.approx(to_wire(make_plan().prior.sensitivity)[3])
    without = believed(honest, LAYOUT, make_plan(prior=False))
    assert without[3] == pytest.approx(np.delete(without, 3).mean())


def test_vectors_taken_apart_and_joined_are_the_same():
    honest = honest_vectors()
    np.testing.assert_allclose(split(honest, LAYOUT).join(), honest, atol=1e-12)
    check(echo(make_plan(), LAYOUT).join()[0], LAYOUT)


def test_an_unknown_attack_gets_the_nearest_name():
    with pytest.raises(UserError, match="did you mean sign-flip"):
        make_attack("signflip")


@pytest.mark.parametrize("kind", ["random", "mimic", "free-rider", "keep-everything", "invalid"])
def test_an_attack_without_strength_takes_none(kind):
    with pytest.raises(UserError, match=f"{kind} has no strength"):
        make_attack(kind, strength=2.0)


@pytest.mark.parametrize(
    ("kind", "strength"), [("sign-flip", 0.0), ("inflation", float("nan")), ("drop-what-others-need", 1.5)]
)
def test_a_strength_that_makes_no_sense_is_refused(kind, strength):
    with pytest.raises(UserError, match=r"attack\.strength"):
        make_attack(kind, strength=strength)
