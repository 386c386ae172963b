"""The attacks by name: a new one is one line here."""

import difflib

from personalization.errors import UserError
from simulations.attacks.a_little_is_enough import ALittleIsEnough
from simulations.attacks.base import Attack, AttackWithStrength
from simulations.attacks.drop_what_others_need import DropWhatOthersNeed
from simulations.attacks.free_rider import FreeRider
from simulations.attacks.inflation import Inflation
from simulations.attacks.inner_product_manipulation import InnerProductManipulation
from simulations.attacks.invalid import Invalid
from simulations.attacks.keep_everything import KeepEverything
from simulations.attacks.mimic import Mimic
from simulations.attacks.random import Random
from simulations.attacks.sign_flip import SignFlip

ATTACKS: dict[str, type[Attack]] = {
    attack.kind: attack
    for attack in (
        SignFlip,
        Inflation,
        Random,
        ALittleIsEnough,
        InnerProductManipulation,
        Mimic,
        FreeRider,
        KeepEverything,
        DropWhatOthersNeed,
        Invalid,
    )
}


def make_attack(kind: str, *, strength: float | None = None) -> Attack:
    """Return the attack of this kind; `strength` None takes its own.

    Raises UserError for a kind that there is not, with the nearest, and for a strength that it can't have.
    """
    if kind not in ATTACKS:
        nearest = difflib.get_close_matches(kind, ATTACKS, n=1, cutoff=0.0)[0]
        there = ", ".join([*ATTACKS, "none"])
        raise UserError(f"attack.kind {kind!r}: unknown; did you mean {nearest}? There are: {there}")
    attack = ATTACKS[kind]
    if strength is None:
        return attack()
    if not issubclass(attack, AttackWithStrength):
        raise UserError(f"attack.strength {strength:g}: {kind} has no strength; leave it out")
    return attack(strength=strength)
