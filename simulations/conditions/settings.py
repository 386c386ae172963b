"""The conditions of a simulated fleet as settings, checked where they are made."""

import math
from dataclasses import dataclass

from personalization.errors import UserError
from simulations.attacks.base import Attack
from simulations.attacks.registry import make_attack

STANDARD = "standard"
NO_ATTACK = "none"
_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class DeviceClass:
    """One kind of device. share: of the fleet. budget: its own in place of the fleet's, None keeps the fleet's.

    speed: relative to an ordinary device, whose speed is 1; half the speed doubles the odds of being late.
    """

    name: str
    share: float
    budget: float | None = None
    speed: float = 1.0

    def __post_init__(self) -> None:
        """Refuse values that make no sense. Raises UserError."""
        if not self.name:
            raise UserError("devices.name is empty: give every class of devices a name")
        _check_share(f"devices.{self.name}.share", self.share)
        if self.budget is not None and not 0.0 < self.budget <= 1.0:
            raise UserError(f"devices.{self.name}.budget {self.budget}: expected a share above 0 and at most 1")
        if not 0.0 < self.speed < math.inf:
            raise UserError(f"devices.{self.name}.speed {self.speed}: expected a finite number above 0")


@dataclass(frozen=True, kw_only=True)
class LateJoiners:
    """share: of the fleet that is not there from the start. after_round: the last round without them, 1 or more."""

    share: float = 0.2
    after_round: int = 1

    def __post_init__(self) -> None:
        """Refuse values that make no sense. Raises UserError."""
        _check_share("late.share", self.share)
        if self.after_round < 1:
            raise UserError(f"late.after_round {self.after_round}: expected 1 or more, the last round without them")


@dataclass(frozen=True, kw_only=True)
class Drift:
    """share: of the fleet whose data change. at_round: the first round on the new data, 2 or more."""

    share: float = 0.5
    at_round: int = 2

    def __post_init__(self) -> None:
        """Refuse values that make no sense. Raises UserError."""
        _check_share("drift.share", self.share)
        if self.at_round < 2:
            raise UserError(f"drift.at_round {self.at_round}: expected 2 or more, the first round on the new data")


@dataclass(frozen=True, kw_only=True)
class Attackers:
    """kind: name of an attack, or `none`. share: of the fleet. strength: see the attack; None takes the attack's own.

    With kind `none` the attackers are honest and still count nowhere: what the others lose is seen on the same clients.
    """

    kind: str
    share: float = 0.2
    strength: float | None = None

    def __post_init__(self) -> None:
        """Refuse values that make no sense, and kinds that there are not. Raises UserError."""
        _check_share("attack.share", self.share)
        self.attack()

    def attack(self) -> Attack | None:
        """Return the attack, None if there is none. Raises UserError."""
        if self.kind == NO_ATTACK:
            return None
        return make_attack(self.kind, strength=self.strength)


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """All that a scenario does to a fleet.

    dropout: chance that a client asked in a round is away. stragglers: chance, as a mean over the fleet, that a
    client's reply comes too late. devices: classes of devices; clients in none of them are standard. late, drift and
    attack: None for a fleet without.
    """

    dropout: float = 0.0
    stragglers: float = 0.0
    devices: tuple[DeviceClass, ...] = ()
    late: LateJoiners | None = None
    drift: Drift | None = None
    attack: Attackers | None = None

    def __post_init__(self) -> None:
        """Refuse values that make no sense, and shares that are more than the fleet. Raises UserError."""
        for name in ("dropout", "stragglers"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise UserError(f"conditions.{name} {getattr(self, name)}: expected a share from 0 and below 1")
        names = [device.name for device in self.devices]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise UserError(f"devices.{twice[0]}: stands there twice; give every class of devices a name of its own")
        total = sum(device.share for device in self.devices)
        if total > 1.0 + _ROUNDING:
            raise UserError(f"the shares of the devices add up to {total:g}: expected at most 1")
        if STANDARD in names and total < 1.0 - _ROUNDING:
            raise UserError(
                f"devices.{STANDARD}: is what the remaining share {1.0 - total:g} of the clients is called; "
                "choose another name, or shares that add up to 1"
            )
        absent = self.attack_share + self.late_share
        if absent >= 1.0:
            raise UserError(
                f"attack.share and late.share add up to {absent:g}: expected less than 1, somebody must be there "
                "from the start and honest"
            )

    @property
    def classes(self) -> tuple[DeviceClass, ...]:
        """The classes of devices in their order; what they leave of the fleet is the last, `standard`."""
        left = 1.0 - sum(device.share for device in self.devices)
        if self.devices and left <= _ROUNDING:
            return self.devices
        return (*self.devices, DeviceClass(name=STANDARD, share=left))

    @property
    def attack_share(self) -> float:
        """Share of the fleet that attacks."""
        return 0.0 if self.attack is None else self.attack.share

    @property
    def late_share(self) -> float:
        """Share of the fleet that joins late."""
        return 0.0 if self.late is None else self.late.share

    @property
    def drift_share(self) -> float:
        """Share of the fleet whose data change."""
        return 0.0 if self.drift is None else self.drift.share


def _check_share(name: str, share: float) -> None:
    if not 0.0 <= share <= 1.0:
        raise UserError(f"{name} {share}: expected a share from 0 to 1")
