import json
from dataclasses import replace

import numpy as np
import pytest

from personalization.errors import UserError
from personalization.wire.statistics import StatisticsLayout
from server.planning import FleetKnowledge, PlanningSettings, learn
from strategies.protocol import plan_record

LAYOUT = StatisticsLayout(layers=2, levels=1, groups=4)
GROUP_LAYER = np.array([0, 0, 1, 1])


def reduced(*, precision=(0.5, 0.5), sensitivity=(0.2, 0.4), personalized=(0.0, 0.0), kept=(1.0, 1.0, 1.0, 1.0)):
    vector = np.zeros(LAYOUT.size)
    vector[LAYOUT.field("precision")] = precision
    vector[LAYOUT.field("weighted_sensitivity")] = np.array(precision) * np.array(sensitivity)
    vector[LAYOUT.field("personalized")] = personalized
    vector[LAYOUT.field("group_kept")] = kept
    return vector


def step(knowledge, vector, *, clients=10, round_number=1, **settings):
    return learn(
        knowledge,
        vector,
        LAYOUT,
        GROUP_LAYER,
        clients=clients,
        round_number=round_number,
        settings=PlanningSettings(**{"drop_clients": 10} | settings),
    )


def test_there_is_no_prior_before_anybody_has_measured():
    assert FleetKnowledge.empty(LAYOUT).prior(LAYOUT) is None


def test_rounds_that_agree_keep_the_sensitivity_and_raise_the_precision():
    first = step(FleetKnowledge.empty(LAYOUT), reduced())
    second = step(first, reduced())
    np.testing.assert_allclose(first.prior(LAYOUT).sensitivity, second.prior(LAYOUT).sensitivity)
    assert (second.prior(LAYOUT).precision > first.prior(LAYOUT).precision).all()


def test_a_round_in_which_nobody_measured_changes_no_sensitivity():
    first = step(FleetKnowledge.empty(LAYOUT), reduced())
    second = step(first, reduced(precision=(0.0, 0.0)))
    np.testing.assert_allclose(first.prior(LAYOUT).sensitivity, second.prior(LAYOUT).sensitivity)
    np.testing.assert_allclose(second.precision, 0.5 * first.precision)


def test_without_decay_all_clients_count_alike():
    first = step(FleetKnowledge.empty(LAYOUT), reduced(sensitivity=(0.2, 0.2)), clients=10, decay=1.0)
    second = step(first, reduced(sensitivity=(0.5, 0.5)), clients=30, decay=1.0)
    np.testing.assert_allclose(second.weighted / second.precision, (10 * 0.2 + 30 * 0.5) / 40)


def test_only_groups_that_nobody_keeps_in_generic_layers_are_dropped():
    vector = reduced(personalized=(0.0, 0.9), kept=(0.01, 0.5, 0.0, 0.0))
    assert step(FleetKnowledge.empty(LAYOUT), vector).dropped.tolist() == [True, False, False, False]
    assert not step(FleetKnowledge.empty(LAYOUT), vector, clients=4).dropped.any()


def test_earlier_rounds_count_towards_the_replies_that_dropping_takes():
    vector = reduced(kept=(0.0, 0.01, 1.0, 1.0))
    first = step(FleetKnowledge.empty(LAYOUT), vector, clients=7)
    needed = step(first, reduced(kept=(0.0, 0.5, 1.0, 1.0)), clients=7)
    assert not first.dropped.any()
    assert needed.dropped.tolist() == [True, False, False, False]
    assert step(first, vector, clients=7).dropped.tolist() == [True, True, False, False]


def test_by_default_nothing_is_dropped_before_25_replies():
    """What none of 25 clients keeps, at most 11 % of the fleet need, with 95 % confidence; of 24, 12 %."""
    default = PlanningSettings().drop_clients
    vector = reduced(kept=(0.0, 1.0, 1.0, 1.0))
    before = step(FleetKnowledge.empty(LAYOUT), vector, clients=24, drop_clients=default)
    assert not before.dropped.any()
    assert step(before, vector, clients=1, drop_clients=default).dropped.tolist() == [True, False, False, False]
    assert (1 - 0.113) ** default < 0.05 <= (1 - 0.113) ** (default - 1)


def test_a_restored_group_begins_anew():
    vector = reduced(kept=(0.0, 1.0, 1.0, 1.0))
    dropped = step(FleetKnowledge.empty(LAYOUT), vector, clients=10)
    back = step(dropped, vector, clients=10, round_number=3, restore_every=3)
    assert not step(back, vector, clients=7).dropped.any()
    assert step(step(back, vector, clients=7), vector, clients=7).dropped[0]


def test_a_dropped_group_stays_dropped_until_its_layer_becomes_personal():
    dropped = step(FleetKnowledge.empty(LAYOUT), reduced(kept=(0.0, 1.0, 0.0, 1.0)))
    stays = step(dropped, reduced(kept=(0.0, 1.0, 0.0, 1.0)))
    back = step(stays, reduced(personalized=(0.6, 0.0), kept=(0.0, 1.0, 0.0, 1.0)))
    assert stays.dropped.tolist() == [True, False, True, False]
    assert back.dropped.tolist() == [False, False, True, False]


def test_probation_puts_everything_back():
    dropped = step(FleetKnowledge.empty(LAYOUT), reduced(kept=(0.0, 1.0, 1.0, 1.0)))
    assert not step(dropped, reduced(kept=(0.0, 1.0, 1.0, 1.0)), round_number=3, restore_every=3).dropped.any()
    assert step(dropped, reduced(kept=(0.0, 1.0, 1.0, 1.0)), round_number=2, restore_every=3).dropped[0]


def test_knowledge_survives_json_exactly():
    knowledge = step(FleetKnowledge.empty(LAYOUT), reduced(precision=(0.1, 1 / 3), kept=(0, 1, 1, 1)))
    back = FleetKnowledge.from_json(json.loads(json.dumps(knowledge.to_json())))
    for name in ("precision", "weighted", "kept", "replies", "dropped"):
        assert np.array_equal(getattr(back, name), getattr(knowledge, name))


@pytest.mark.parametrize("bad", [{"decay": 1.5}, {"drop_share": -0.1}, {"drop_clients": 0}, {"restore_every": -1}])
def test_settings_that_make_no_sense_are_refused(bad):
    with pytest.raises(UserError):
        PlanningSettings(**bad)


def test_a_plan_says_the_reduced_prior_the_dropped_groups_and_numbers_and_nothing_of_a_client():
    layout = StatisticsLayout(layers=2, levels=2, groups=5)
    empty = FleetKnowledge.empty(layout)
    known = replace(
        empty, precision=np.full(4, 0.5), weighted=np.full(4, 0.2), kept=np.ones(5), replies=np.full(5, 9.0)
    )
    # Who was asked, how many replied and what they kept is knowledge of the server that no plan carries.
    other = replace(known, kept=np.zeros(5), replies=np.full(5, 2.0))
    records = [
        dict(plan_record(one.plan(layout, version=4, probes=2, budget=0.5), layout, bytes(32)))
        for one in (known, other)
    ]
    assert records[0] == records[1]
    sizes = {key: len(value) for key, value in records[0].items() if isinstance(value, bytes)}
    assert sizes == {"prior-sensitivity": 8, "prior-precision": 8, "dropped": 1, "root": 32}
    assert set(records[0]) - set(sizes) == {"version", "probes", "budget", "layers", "levels", "groups"}
