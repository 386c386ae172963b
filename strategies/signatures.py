"""What the signature of a plan covers: one canonical run of bytes for everything that a request holds.

Every part is preceded by its length and every value by its type, so two requests that differ anywhere differ in these
bytes. Serialized messages would not do: protobuf may write the same record in more than one way.
"""

import hashlib
import struct
from collections.abc import Mapping

from flwr.app import ArrayRecord, RecordDict

from personalization.wire.plan import PlanError
from strategies.protocol import MANIFEST, PIECES, PLAN, SECURE, SIGNATURE

_PURPOSE, _STEP_PURPOSE = b"fedsieve request 1", b"fedsieve step 1"


def signed_bytes(content: RecordDict) -> bytes:
    """Return what a signature covers: the plan but for the signature, and the SHA-256 of all that comes with it.

    Manifest, pieces and the record of a secure sum may; that record may also come alone. Raises PlanError if there is
    neither plan nor such a record, or if the request holds anything else.
    """
    manifest, pieces = content.config_records.get(MANIFEST), content.array_records.get(PIECES)
    secure = content.config_records.get(SECURE)
    if secure is not None and len(content) == 1:
        return _joined(_STEP_PURPOSE, _unsigned_bytes(secure))
    if len(content) != 1 + (manifest is not None) + (pieces is not None) + (secure is not None):
        raise PlanError(
            "a request must hold a plan, at most a manifest, pieces and a secure sum with it, and nothing else"
        )
    return _joined(
        _PURPOSE,
        _plan_bytes(content),
        b"" if manifest is None else hashlib.sha256(_encoded_record(manifest)).digest(),
        b"" if pieces is None else hashlib.sha256(_encoded_arrays(pieces)).digest(),
        *([] if secure is None else [hashlib.sha256(_encoded_record(secure)).digest()]),
    )


def plan_digest(content: RecordDict) -> bytes:
    """Return 32 bytes that tell this plan from others, whatever of the backbone comes with it. Raises PlanError."""
    return hashlib.sha256(_plan_bytes(content)).digest()


def _plan_bytes(content: RecordDict) -> bytes:
    record = content.config_records.get(PLAN)
    if record is None:
        raise PlanError("the request holds no plan")
    return _unsigned_bytes(record)


def _unsigned_bytes(record: Mapping[str, object]) -> bytes:
    return _encoded_record({key: value for key, value in record.items() if key != SIGNATURE})


def _encoded_record(record: Mapping[str, object]) -> bytes:
    return _joined(*(part for key in sorted(record) for part in (key.encode(), _encoded(record[key]))))


def _encoded_arrays(record: ArrayRecord) -> bytes:
    return _joined(
        *(
            _encoded([name, array.dtype, list(array.shape), array.stype, hashlib.sha256(array.data).digest()])
            for name, array in sorted(record.items())
        )
    )


def _encoded(value: object) -> bytes:
    if isinstance(value, bool):
        return b"?" + bytes([value])
    if isinstance(value, int):
        return b"i" + struct.pack("<q", value)
    if isinstance(value, float):
        return b"f" + struct.pack("<d", value)
    if isinstance(value, str):
        return b"s" + value.encode()
    if isinstance(value, bytes):
        return b"y" + value
    if isinstance(value, list):
        return b"l" + _joined(*map(_encoded, value))
    raise PlanError(f"a record holds a {type(value).__name__}, which no plan does")


def _joined(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(8, "little") + part for part in parts)
