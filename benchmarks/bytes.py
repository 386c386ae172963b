"""Bytes on the wire for the bundled ViT: `python -m benchmarks.bytes [--json]`.

Counted on serialized Flower messages, metadata included: what the server sends on first contact and later, what a
client answers, and beside them what FedAvg sends for the same model. Fails if a limit is not met.
"""

import argparse
import json
from dataclasses import asdict, dataclass

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.common.serde import config_record_to_proto
from flwr.supercore.task_identity import TaskIdentity
from rich.console import Console
from rich.table import Table

from personalization.model_files.backbone import load_backbone
from personalization.sensing.prior import Prior
from personalization.settings import PersonalizationSettings
from personalization.wire.plan import Plan
from server.backbone import GenericBackbone
from server.exchange import message_bytes
from simulations.engine import node_id
from simulations.pretrain import MODEL_FOLDER
from strategies.protocol import reply_content

_ID = "0" * 64  # as long as the hashes that Flower uses as message ids


@dataclass(frozen=True)
class Row:
    """One message. limit: largest size in bytes that is accepted, None for what is only compared."""

    message: str
    bytes: int
    limit: int | None = None


def rows() -> list[Row]:
    """Return the sizes of all messages, fedsieve's first."""
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 2**62 + 1, 2**62 + 1, SUPERLINK_NODE_ID
    loaded = load_backbone(str(MODEL_FOLDER))
    levels = len(PersonalizationSettings().levels)
    preprocessing = None if loaded.preprocessing is None else loaded.preprocessing.to_dict()
    description = {"identifier": loaded.identifier, "labels": list(loaded.labels), "preprocessing": preprocessing}
    backbone = GenericBackbone(loaded.model, description, levels)
    layout = backbone.layout
    rng = np.random.default_rng(0)
    prior = Prior(10 * rng.random(layout.atoms), 100 * rng.random(layout.atoms))
    plan = Plan(version=1000, prior=prior, dropped=np.zeros(layout.groups, dtype=np.bool_), probes=6, budget=0.5)
    first, later = _request(backbone.request(plan, None)), _request(backbone.request(plan, plan.dropped))
    vector = rng.random(layout.size)
    content = reply_content(vector, plan.version)
    checkpoint = (MODEL_FOLDER / "model.safetensors").stat().st_size
    own = [
        Row("uplink statistics", 2 * layout.size, 1000),
        Row("uplink reply", message_bytes(_reply(content, later)), 2000),
        Row("downlink plan, later rounds", _record_bytes(later.content.config_records["plan"]), 1500),
        Row("downlink message, later rounds", message_bytes(later), 2500),
        Row("downlink message, first contact", message_bytes(first), int(1.02 * checkpoint)),
        Row("dense checkpoint (safetensors, fp16)", checkpoint),
    ]
    state = {name: tensor.numpy() for name, tensor in loaded.model.state_dict().items()}
    for name, dtype in (("fp32", np.float32), ("fp16", np.float16)):
        arrays = ArrayRecord({key: Array(value.astype(dtype)) for key, value in state.items()})
        down = _request(RecordDict({"arrays": arrays, "config": ConfigRecord({"server-round": 1})}))
        up = _reply(RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 200, "loss": 0.5})}), down)
        own += [Row(f"FedAvg {name}, downlink, every round", message_bytes(down))]
        own += [Row(f"FedAvg {name}, uplink, every round", message_bytes(up))]
    return own


def main() -> None:
    """Print the table; end with 1 if a limit is not met."""
    parser = argparse.ArgumentParser(description="Bytes of messages for the bundled ViT, beside FedAvg's.")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    found = rows()
    if parser.parse_args().json:
        print(json.dumps([asdict(row) for row in found], indent=1))
    else:
        table = Table("message", "bytes", "limit", "of limit", title="Bundled ViT: bytes of serialized Flower messages")
        for row in found:
            share = "" if row.limit is None else f"{row.bytes / row.limit:.1%}"
            table.add_row(row.message, f"{row.bytes:,}", "" if row.limit is None else f"{row.limit:,}", share)
        Console().print(table)
    raise SystemExit(any(row.limit is not None and row.bytes > row.limit for row in found))


def _request(content: RecordDict) -> Message:
    message = Message(content, node_id(0), MessageType.TRAIN, group_id="1000")
    message.metadata.__dict__["_message_id"] = _ID
    return message


def _reply(content: RecordDict, request: Message) -> Message:
    message = Message(content, reply_to=request)
    message.metadata.__dict__["_message_id"] = _ID
    return message


def _record_bytes(record: ConfigRecord) -> int:
    return int(config_record_to_proto(record).ByteSize())


if __name__ == "__main__":
    main()
