"""Who in a fleet attacks, comes late, sees its data change, and on which device it runs: drawn once, from the seed."""

from dataclasses import dataclass

import numpy as np

from personalization.errors import UserError
from simulations.conditions.settings import Conditions
from simulations.partition import largest_remainder

# What a random stream is for. Far from the small numbers with which the server samples rounds and partitions are drawn:
# the same stream would tie who attacks to who is asked.
_ROLES, _DRIFT, _DEVICES = range(1000, 1003)


@dataclass(frozen=True)
class Roles:
    """attackers and late have no client in common, nor have attackers and drifting.

    device_class [clients]: index into `Conditions.classes`.
    """

    attackers: frozenset[int]
    late: frozenset[int]
    drifting: frozenset[int]
    device_class: tuple[int, ...]


def assign_roles(conditions: Conditions, clients: int, seed: int) -> Roles:
    """Return the roles of `clients` clients, numbered from 0; nothing but the arguments decides.

    Each role goes to round(share * clients) clients, drifting to no more than there are honest ones. Of fleets that
    differ in a share alone, the one with the larger share has the other's clients in that role and more. Raises
    UserError where a share above 0 is less than a client, or where nobody honest is there from the start.
    """
    attackers = _count("attack", conditions.attack_share, clients)
    late = _count("late", conditions.late_share, clients)
    drifting = _count("drift", conditions.drift_share, clients)
    if attackers + late >= clients:
        raise UserError(
            f"{attackers} attackers and {late} late joiners of {clients} clients: expected fewer, somebody must be "
            "there from the start and honest"
        )
    # Attackers come from one end of the order and latecomers from the other, so that neither moves the other.
    order = np.random.default_rng([seed, _ROLES]).permutation(clients).tolist()
    attacking = frozenset(order[:attackers])
    candidates = [c for c in np.random.default_rng([seed, _DRIFT]).permutation(clients).tolist() if c not in attacking]
    return Roles(
        attackers=attacking,
        late=frozenset(order[clients - late :]),
        drifting=frozenset(candidates[:drifting]),
        device_class=_device_classes(conditions, clients, seed),
    )


def _count(role: str, share: float, clients: int) -> int:
    count = round(share * clients)
    if share > 0.0 and count == 0:
        raise UserError(
            f"{role}.share {share:g} of {clients} clients is none: expected 0, or a share of at least one client"
        )
    return count


def _device_classes(conditions: Conditions, clients: int, seed: int) -> tuple[int, ...]:
    counts = largest_remainder(np.array([device.share for device in conditions.classes]), clients)
    order = np.random.default_rng([seed, _DEVICES]).permutation(clients)
    classes = np.empty(clients, dtype=np.int64)
    classes[order] = np.repeat(np.arange(len(counts)), counts)
    return tuple(classes.tolist())
