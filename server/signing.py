"""Signs what a server sends, so that a device takes plans from its own fleet's server only."""

from flwr.app import RecordDict

from server.signing_key import SigningKey
from strategies.protocol import FLEET, PLAN, SECURE, SERIES, SIGNATURE
from strategies.signatures import signed_bytes


class PlanSigner:
    """Signs the requests of one run.

    series: the run's number, see `next_series`. Versions rise within a run and begin again with the next one; series
    and version together rise through the whole life of a fleet.
    """

    def __init__(self, key: SigningKey, series: int) -> None:
        """Take the fleet's key and the run's number."""
        self._key, self._series = key, series

    @property
    def fleet(self) -> str:
        """The id of the fleet that is signed for."""
        return self._key.fleet

    def sign(self, content: RecordDict) -> None:
        """Add fleet, series and an Ed25519 signature (64 bytes) over the whole request to its plan.

        Without a plan it is a step of a secure sum, whose own record takes them.
        """
        record = content.config_records[PLAN if PLAN in content else SECURE]
        record[FLEET], record[SERIES] = self._key.fleet, self._series
        record[SIGNATURE] = self._key.private_key.sign(signed_bytes(content))
