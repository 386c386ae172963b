"""The reference arms by name: a new one is one line here."""

import difflib

from personalization.errors import UserError
from simulations.arms.base import Arm, ArmResult, World
from simulations.arms.dense import Dense
from simulations.arms.depth_linear import DepthLinear
from simulations.arms.fedavg import FedAvgArm
from simulations.arms.fedavg_finetune import FedAvgFinetune
from simulations.arms.local_only import LocalOnly
from simulations.arms.magnitude import Magnitude
from simulations.arms.one_cut import OneCut
from simulations.arms.uniform import Uniform
from simulations.arms.wanda import Wanda
from simulations.fleet_settings import FleetSettings

ARMS: dict[str, Arm] = {
    arm.name: arm
    for arm in (
        Dense(),
        LocalOnly(),
        OneCut(),
        Uniform(),
        DepthLinear(),
        Wanda(),
        Magnitude(),
        FedAvgArm(),
        FedAvgFinetune(),
    )
}


def find_arm(name: str) -> Arm:
    """Return the arm called `name`. Raises UserError that names the nearest one there is."""
    if name not in ARMS:
        nearest = difflib.get_close_matches(name, ARMS, n=1, cutoff=0.0)
        raise UserError(f"arm {name!r}: unknown; did you mean {nearest[0]}? There are: {', '.join(ARMS)}")
    return ARMS[name]


def run_arm(name: str, world: World, settings: FleetSettings) -> ArmResult:
    """Run the arm called `name` on the honest clients of `world`; torch's threads are the caller's to set.

    Raises UserError for an unknown name, and where clients can't do what the arm asks of them.
    """
    return find_arm(name).run(world, settings)
