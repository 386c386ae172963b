"""Recordings of one client, made by hand, so that a test can change any byte in them."""

from base64 import b64encode
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP384R1, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flwr.app import Error, Message, MessageType, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import PullMessagesResponse, PushMessagesRequest, PushMessagesResponse
from flwr.proto.message_pb2 import Message as EncodedMessage
from flwr.proto.message_pb2 import PullObjectResponse, PushObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree

from client.recording import Recorder
from personalization.wire.plan import Plan
from personalization.wire.statistics import StatisticsLayout
from simulations.recording import FORM, FleetRecording
from strategies.protocol import PLAN, plan_record, reply_content

LAYOUT = StatisticsLayout(layers=2, levels=2, groups=5)
VECTOR = np.linspace(0, 1, LAYOUT.size)
NODE, SERVER = 7, "edge.example.org:8443"
KEY = generate_private_key(SECP384R1())
PEM = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def ask() -> Message:
    plan = Plan(version=4, prior=None, dropped=np.zeros(5, dtype=bool), probes=2, budget=0.5)
    content = RecordDict({PLAN: plan_record(plan, LAYOUT, bytes(32))})
    message = Message(content, NODE, MessageType.TRAIN, ttl=60.0, group_id="4")
    message.metadata.__dict__["_message_id"] = "ab" * 32
    return message


def answer(request: Message, content: RecordDict | Error | None = None) -> EncodedMessage:
    reply = Message(reply_content(VECTOR, 4) if content is None else content, reply_to=request)
    reply.metadata.__dict__["_message_id"] = "cd" * 32
    return message_to_proto(reply)


def record_messages(path: Path, *replies: bytes, request: Message) -> Path:
    recorder = Recorder(path, form=FORM)
    recording = FleetRecording(recorder)
    recording.down(3, message_to_proto(request).SerializeToString())
    for reply in replies:
        recording.up(3, reply)
    recorder.close()
    return path


def post(call: str, body: bytes, **headers: str) -> bytes:
    """What a SuperNode sends for a call of the Fleet API."""
    stamp = datetime.now(UTC).isoformat()
    lines = {
        "Host": SERVER,
        "Content-Type": "application/protobuf",
        "Content-Length": str(len(body)),
        "flwr-public-key": b64encode(PEM).decode(),
        "flwr-timestamp": stamp,
        "flwr-signature": b64encode(KEY.sign(stamp.encode(), ECDSA(SHA256()))).decode(),
        **headers,
    }
    head = f"POST /v1/fleet/{call} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return head.encode() + b"\r\n" + body


class Device:
    """A device's recording: what it was asked, and each request that it sends, before it is written."""

    def __init__(self, content: RecordDict | Error | None = None) -> None:
        self.request = ask()
        self.request.metadata.__dict__["_message_id"] = self.request.object_id
        reply = Message(reply_content(VECTOR, 4) if content is None else content, reply_to=self.request)
        reply.metadata.__dict__["_message_id"] = reply.object_id
        self.reply, self.node = reply, Node(node_id=NODE)
        self.announcement = PushMessagesRequest(
            node=self.node,
            messages_list=[message_to_proto(remove_content_from_message(reply) if reply.has_content() else reply)],
            message_object_trees=[get_object_tree(reply)],
            clientapp_runtime_list=[1.5],
        )
        self.objects = [
            PushObjectRequest(
                node=self.node,
                run_id=reply.metadata.run_id,
                object_id=name,
                object_content=one.deflate(),
                session_id="s",
            )
            for name, one in get_all_nested_objects(reply).items()
        ]

    def requests(self) -> list[bytes]:
        sent = [post("push-messages", self.announcement.SerializeToString())]
        return sent + [post("push-object", one.SerializeToString()) for one in self.objects]

    def record(self, path: Path, sent: bytes | None = None, *, peer: str = f"{SERVER} verified") -> Path:
        recorder = Recorder(path, form="connections", server=SERVER)
        recorder.connection(9, peer)
        pulled = PullMessagesResponse(
            messages_list=[message_to_proto(remove_content_from_message(self.request))],
            message_object_trees=[get_object_tree(self.request)],
        )
        recorder.down(pulled.SerializeToString(), channel=0, path="/v1/fleet/pull-messages", status=200)
        for one in get_all_nested_objects(self.request).values():
            body = PullObjectResponse(object_found=True, object_available=True, object_content=one.deflate())
            recorder.down(body.SerializeToString(), channel=0, path="/v1/fleet/pull-object", status=200)
        body = PushMessagesResponse(session_id="s").SerializeToString()
        recorder.down(body, channel=0, path="/v1/fleet/push-messages", status=200)
        raw = b"".join(self.requests()) if sent is None else sent
        for start in range(0, len(raw), 500):
            recorder.up(raw[start : start + 500], channel=9)
        recorder.close()
        return path
