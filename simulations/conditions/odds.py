"""How likely each client is to be late, from the speed of its device."""

import numpy as np
from numpy.typing import NDArray

from simulations.conditions.settings import Conditions


def straggler_odds(conditions: Conditions, device_class: tuple[int, ...]) -> NDArray[np.float64]:
    """Return each client's chance of replying too late, [clients]: in proportion to 1 / speed, `stragglers` as mean.

    device_class [clients]: index into `Conditions.classes`. What a chance of 1 can't take goes to the others.
    """
    slowness = np.array([1.0 / conditions.classes[index].speed for index in device_class])
    wanted = conditions.stragglers * len(slowness)
    odds = np.zeros(len(slowness))
    certain = np.zeros(len(slowness), dtype=np.bool_)
    while not certain.all():
        odds = np.where(certain, 1.0, slowness * (wanted - certain.sum()) / slowness[~certain].sum())
        over = (odds > 1.0) & ~certain
        if not over.any():
            break
        certain |= over
    return odds
