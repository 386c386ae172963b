"""The messages that server and clients exchange: names of records and keys, and how a reply is checked.

Both ends import this. Down: a plan and, for a device that lacks them, a manifest and pieces of the backbone. Up: one
statistics vector with the version of the plan that it answers.
"""

from collections.abc import Mapping

import numpy as np
import safetensors.torch
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor

from personalization.model_files.pieces import BackboneManifest, PieceError
from personalization.wire.plan import Plan, PlanError
from personalization.wire.statistics import StatisticsError, StatisticsLayout, decode, encode

PLAN, MANIFEST, PIECES, STATISTICS = "plan", "manifest", "pieces", "statistics"
# A server with a signing key adds these to the plan; see strategies/signatures.py.
FLEET, SERIES, SIGNATURE = "fleet", "series", "signature"
# A request about a secure sum has this record, beside the plan or alone; see strategies/secure_protocol.py.
SECURE = "secure"
REPLY_KEYS = frozenset({"vector", "version"})
_LAYOUT_KEYS = ("layers", "levels", "groups")
_LARGEST_VECTOR = 1 << 20


def plan_record(plan: Plan, layout: StatisticsLayout, root: bytes) -> ConfigRecord:
    """Return the record that carries a plan, the layout of the vector that is asked for and the backbone's root."""
    sizes = dict(zip(_LAYOUT_KEYS, (layout.layers, layout.levels, layout.groups), strict=True))
    return ConfigRecord({**plan.to_record(), **sizes, "root": root})


def requested_layout(content: RecordDict) -> StatisticsLayout:
    """Return the layout that a request asks for. Raises PlanError if it is missing or absurd."""
    record = content.config_records.get(PLAN)
    sizes = [] if record is None else [record.get(key) for key in _LAYOUT_KEYS]
    numbers = [size for size in sizes if isinstance(size, int) and not isinstance(size, bool) and size > 0]
    if len(numbers) != len(_LAYOUT_KEYS):
        raise PlanError("the plan does not say which layout it asks for")
    layout = StatisticsLayout(*numbers)
    if layout.size > _LARGEST_VECTOR:
        raise PlanError("the plan asks for a vector of absurd size")
    return layout


def read_plan(content: RecordDict) -> tuple[Plan, StatisticsLayout, bytes]:
    """Return plan, layout and root of a request. Raises PlanError."""
    layout = requested_layout(content)
    record = content.config_records[PLAN]
    root = record.get("root")
    if not isinstance(root, bytes) or len(root) != 32:
        raise PlanError("the plan's root hash is missing or of the wrong length")
    return Plan.from_record(record, layout), layout, root


def pieces_record(tensors: Mapping[str, Tensor]) -> ArrayRecord:
    """Return named tensors as one array in the safetensors format, which costs less than an array for each."""
    raw = safetensors.torch.save(dict(tensors))
    return ArrayRecord({PIECES: Array("uint8", (len(raw),), "safetensors", raw)})


def read_pieces(content: RecordDict) -> dict[str, Tensor]:
    """Return the tensors that a request carries, none if it carries no such record. Raises PieceError."""
    record = content.array_records.get(PIECES)
    if record is None:
        return {}
    try:
        return dict(safetensors.torch.load(record[PIECES].data))
    except (KeyError, SafetensorError, ValueError) as error:
        raise PieceError("the pieces are not in the safetensors format") from error


def read_manifest(content: RecordDict) -> BackboneManifest | None:
    """Return the manifest that a request carries, or None. Raises PieceError."""
    record = content.config_records.get(MANIFEST)
    return None if record is None else BackboneManifest.from_record(record)


def reply_content(vector: NDArray[np.float64], version: int) -> RecordDict:
    """Return the whole content of a reply."""
    return RecordDict({STATISTICS: ConfigRecord({"vector": encode(vector), "version": version})})


def read_reply(content: RecordDict, layout: StatisticsLayout, version: int) -> NDArray[np.float64]:
    """Return the vector of a reply that holds exactly what may leave. Raises StatisticsError on anything else."""
    if set(content) != {STATISTICS} or set(content.config_records) != {STATISTICS}:
        raise StatisticsError("a reply must hold one record of statistics and nothing else", reason="records")
    record = content.config_records[STATISTICS]
    if set(record) != REPLY_KEYS:
        raise StatisticsError("a record of statistics must hold a vector and a version and nothing else", reason="keys")
    raw, answered = record["vector"], record["version"]
    if type(raw) is not bytes or type(answered) is not int:
        raise StatisticsError("the vector must be bytes and the version a whole number", reason="types")
    if answered != version:
        raise StatisticsError("the version must be the plan's", reason="version")
    return decode(raw, layout)
