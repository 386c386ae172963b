"""What the server tells its clients in every round: about half a kilobyte for the bundled model."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from personalization.sensing.prior import Prior
from personalization.wire.privacy_terms import PrivacyTerms
from personalization.wire.statistics import StatisticsLayout, from_wire, to_wire

_WIRE = np.dtype("<f2")
_Scalar = TypeVar("_Scalar", int, float, bytes)

Record = dict[str, int | float | str | bytes]


class PlanError(ValueError):
    """A plan that does not fit the backbone or carries values outside their range."""


@dataclass(frozen=True)
class Plan:
    """version: rises with every plan. prior: None until the fleet has measured something. dropped [groups]: what the
    fleet's backbone no longer holds. probes: how many each client may measure. budget: target share that is kept.
    privacy: the noise that answers are summed with, None for none.
    """

    version: int
    prior: Prior | None
    dropped: NDArray[np.bool_]
    probes: int
    budget: float
    privacy: PrivacyTerms | None = None

    def to_record(self) -> Record:
        """Return the plan as a flat record of integers, numbers and bytes."""
        record: Record = {
            "version": self.version,
            "dropped": np.packbits(self.dropped).tobytes(),
            "probes": self.probes,
            "budget": float(self.budget),
        }
        if self.prior is not None:
            record["prior-sensitivity"] = to_wire(self.prior.sensitivity).astype(_WIRE).tobytes()
            record["prior-precision"] = np.minimum(self.prior.precision, np.finfo(_WIRE).max).astype(_WIRE).tobytes()
        return record if self.privacy is None else {**record, **self.privacy.to_record()}

    @staticmethod
    def from_record(record: Mapping[str, object], layout: StatisticsLayout) -> "Plan":
        """Return the plan in `record`; keys that are not a plan's are ignored. Raises PlanError."""
        version, probes = _value(record, "version", int), _value(record, "probes", int)
        budget = float(_value(record, "budget", float))
        if version < 0 or probes < 0 or not math.isfinite(budget) or not 0.0 < budget <= 1.0:
            raise PlanError("version, probes or budget of the plan is out of range")
        packed = _value(record, "dropped", bytes)
        if len(packed) != (layout.groups + 7) // 8:
            raise PlanError(f"{len(packed)} bytes of dropped groups, expected {(layout.groups + 7) // 8}")
        dropped = np.unpackbits(np.frombuffer(packed, dtype=np.uint8), count=layout.groups).astype(np.bool_)
        prior = None
        if "prior-sensitivity" in record:
            scaled = _array(record, "prior-sensitivity", layout.atoms)
            if (scaled > 1.0).any():
                raise PlanError("a sensitivity of the prior is out of range")
            prior = Prior(from_wire(scaled), _array(record, "prior-precision", layout.atoms))
        try:
            privacy = PrivacyTerms.from_record(record)
        except ValueError as error:
            raise PlanError(str(error)) from error
        return Plan(version=version, prior=prior, dropped=dropped, probes=probes, budget=budget, privacy=privacy)


def _value(record: Mapping[str, object], key: str, kind: type[_Scalar]) -> _Scalar:
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, kind):
        raise PlanError(f"the plan's {key} is missing or of the wrong type")
    return value


def _array(record: Mapping[str, object], key: str, size: int) -> NDArray[np.float64]:
    raw = _value(record, key, bytes)
    if len(raw) != size * _WIRE.itemsize:
        raise PlanError(f"{len(raw)} bytes of {key}, expected {size * _WIRE.itemsize}")
    values = np.frombuffer(raw, dtype=_WIRE).astype(np.float64)
    if not np.isfinite(values).all() or (values < 0).any():
        raise PlanError(f"an entry of {key} is not finite or negative")
    return values
