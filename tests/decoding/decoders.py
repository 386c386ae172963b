"""Every place where bytes from elsewhere are decoded, in one table. To add one: an entry here or in a file beside."""

import json
from pathlib import Path

from device_decoders import device_decoders
from fleet_decoders import fleet_decoders
from simulation_decoders import simulation_decoders

from benchmarks.fuzz.wire import Decoder, wire_decoders

DEEP = b'{"format":1,"a":' + b"[" * 20_000
HUGE = json.dumps({"format": 2**70}).encode()


def all_decoders(folder: Path) -> dict[str, Decoder]:
    """Return them by name; those that read files use `folder`."""
    return {
        **wire_decoders(),
        **device_decoders(folder),
        **fleet_decoders(folder),
        **simulation_decoders(folder),
    }
