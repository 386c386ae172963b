import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalization.errors import UserError
from simulations.conditions.odds import straggler_odds
from simulations.conditions.roles import assign_roles
from simulations.conditions.settings import Attackers, Conditions, DeviceClass, Drift, LateJoiners


def make_conditions(attack=0.2, late=0.2, drift=0.5, **others):
    return Conditions(
        attack=Attackers(kind="random", share=attack),
        late=LateJoiners(share=late),
        drift=Drift(share=drift),
        **others,
    )


@given(
    clients=st.integers(10, 60),
    attack=st.floats(0.1, 0.4),
    late=st.floats(0.1, 0.4),
    drift=st.floats(0.1, 1.0),
    seed=st.integers(0, 2**31),
)
def test_every_role_has_its_share_and_attackers_have_no_other(clients, attack, late, drift, seed):
    roles = assign_roles(make_conditions(attack, late, drift), clients, seed)
    assert len(roles.attackers) == round(attack * clients)
    assert len(roles.late) == round(late * clients)
    assert len(roles.drifting) == min(round(drift * clients), clients - len(roles.attackers))
    assert not roles.attackers & (roles.late | roles.drifting)
    assert roles.attackers | roles.late | roles.drifting <= set(range(clients))


def test_roles_follow_from_the_seed():
    assert assign_roles(make_conditions(), 20, 1) == assign_roles(make_conditions(), 20, 1)
    assert assign_roles(make_conditions(), 20, 1) != assign_roles(make_conditions(), 20, 2)


def test_more_attackers_are_the_same_ones_and_others_and_move_no_other_role():
    few, many = (assign_roles(make_conditions(attack=share), 20, 4) for share in (0.1, 0.3))
    assert few.attackers < many.attackers
    assert few.late == many.late
    assert few.device_class == many.device_class


def test_a_fleet_without_conditions_has_no_roles():
    roles = assign_roles(Conditions(), 5, 0)
    assert not roles.attackers | roles.late | roles.drifting
    assert roles.device_class == (0,) * 5
    assert [device.name for device in Conditions().classes] == ["standard"]


def test_classes_of_devices_share_out_the_whole_fleet():
    devices = (DeviceClass(name="phone", share=0.5), DeviceClass(name="laptop", share=0.15))
    conditions = Conditions(devices=devices)
    assert [device.name for device in conditions.classes] == ["phone", "laptop", "standard"]
    np.testing.assert_array_equal(np.bincount(assign_roles(conditions, 20, 0).device_class), [10, 3, 7])
    thirds = Conditions(devices=tuple(DeviceClass(name=name, share=1 / 3) for name in "abc"))
    assert thirds.classes == thirds.devices
    np.testing.assert_array_equal(np.bincount(assign_roles(thirds, 7, 0).device_class, minlength=3), [3, 2, 2])


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        (make_conditions(attack=0.04), "attack.share 0.04 of 10 clients is none"),
        (make_conditions(late=0.04), "late.share"),
        (make_conditions(drift=0.04), "drift.share"),
        (make_conditions(attack=0.46, late=0.53), "5 attackers and 5 late joiners of 10 clients"),
    ],
)
def test_shares_that_a_fleet_cannot_have_are_refused(conditions, message):
    with pytest.raises(UserError, match=message):
        assign_roles(conditions, 10, 0)


@given(
    stragglers=st.just(0.0) | st.floats(1e-6, 0.99),
    speeds=st.lists(st.floats(0.01, 100.0), min_size=1, max_size=4),
    clients=st.integers(4, 40),
)
def test_odds_of_being_late_have_the_mean_that_was_asked_for_and_rise_as_speed_falls(stragglers, speeds, clients):
    devices = tuple(DeviceClass(name=str(i), share=1 / len(speeds), speed=speed) for i, speed in enumerate(speeds))
    conditions = Conditions(stragglers=stragglers, devices=devices)
    classes = assign_roles(conditions, clients, 0).device_class
    odds = straggler_odds(conditions, classes)
    assert odds.mean() == pytest.approx(stragglers)
    assert (odds >= 0.0).all()
    assert (odds <= 1.0 + 1e-12).all()
    own = np.array([speeds[index] for index in classes])
    assert (np.diff(odds[np.argsort(own)]) <= 1e-12).all()
    if odds.max() < 1.0:
        np.testing.assert_allclose(odds * own, (odds * own)[0], rtol=1e-9)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Conditions(dropout=1.0), "conditions.dropout"),
        (lambda: Conditions(stragglers=float("nan")), "conditions.stragglers"),
        (lambda: Conditions(devices=(DeviceClass(name="a", share=0.7), DeviceClass(name="b", share=0.4))), "1.1"),
        (lambda: Conditions(devices=(DeviceClass(name="a", share=0.1),) * 2), "stands there twice"),
        (lambda: Conditions(devices=(DeviceClass(name="standard", share=0.1),)), "choose another name"),
        (lambda: DeviceClass(name="a", share=0.1, budget=0.0), "devices.a.budget"),
        (lambda: DeviceClass(name="a", share=0.1, speed=0.0), "devices.a.speed"),
        (lambda: DeviceClass(name="a", share=-0.1), "devices.a.share"),
        (lambda: DeviceClass(name="", share=0.1), "devices.name"),
        (lambda: make_conditions(attack=0.5, late=0.5), "add up to 1"),
        (lambda: LateJoiners(after_round=0), "late.after_round"),
        (lambda: Drift(at_round=1), "drift.at_round"),
        (lambda: Attackers(kind="mimick"), "did you mean mimic"),
        (lambda: Attackers(kind="random", strength=1.0), "has no strength"),
    ],
)
def test_conditions_that_make_no_sense_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()
