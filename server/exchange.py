"""One exchange of messages: a plan to some nodes, their vectors back, and the bytes that both took."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields

import numpy as np
from flwr.app import Message, MessageType
from flwr.common.serde import message_to_proto
from flwr.serverapp import Grid
from numpy.typing import NDArray

from personalization.codes import ClientFailure, failure_name
from personalization.plan import Plan
from personalization.statistics import StatisticsError
from server.backbone import GenericBackbone
from server.signing import PlanSigner
from strategies.protocol import MANIFEST, read_reply

NO_REPLY = "no_reply"
INVALID = "invalid_reply"


@dataclass
class Traffic:
    """Bytes of serialized Flower messages and how many there were, apart for messages that carry the backbone."""

    uplink_bytes: int = 0
    replies: int = 0
    first_contact_bytes: int = 0
    first_contacts: int = 0
    later_bytes: int = 0
    later: int = 0

    @property
    def downlink_bytes(self) -> int:
        """Everything that went down."""
        return self.first_contact_bytes + self.later_bytes

    def sent(self, message: Message) -> None:
        """Count a request."""
        size = message_bytes(message)
        if MANIFEST in message.content:
            self.first_contact_bytes += size
            self.first_contacts += 1
        else:
            self.later_bytes += size
            self.later += 1

    def received(self, message: Message) -> None:
        """Count a reply."""
        self.uplink_bytes += message_bytes(message)
        self.replies += 1

    def add(self, other: "Traffic") -> None:
        """Count what `other` has counted, too."""
        for counter in fields(self):
            setattr(self, counter.name, getattr(self, counter.name) + getattr(other, counter.name))


@dataclass
class Outcome:
    """What came back. vectors: by node id. lacking: what each node that answered lacks now. failures: code: count."""

    vectors: dict[int, NDArray[np.float64]] = field(default_factory=dict)
    lacking: dict[int, NDArray[np.bool_]] = field(default_factory=dict)
    failures: Counter[str] = field(default_factory=Counter)
    traffic: Traffic = field(default_factory=Traffic)

    def add(self, other: "Outcome") -> None:
        """Take in what came back from other nodes."""
        self.vectors.update(other.vectors)
        self.lacking.update(other.lacking)
        self.failures.update(other.failures)
        self.traffic.add(other.traffic)


def message_bytes(message: Message) -> int:
    """Return the size in bytes of a message as Flower serializes it."""
    return int(message_to_proto(message).ByteSize())


def exchange(
    grid: Grid,
    backbone: GenericBackbone,
    plan: Plan,
    nodes: Iterable[int],
    *,
    believed: Mapping[int, NDArray[np.bool_]],
    message_type: str = MessageType.TRAIN,
    deadline: float,
    signer: PlanSigner | None = None,
) -> Outcome:
    """Send `plan` to `nodes` with what each is believed to lack; return what they answer within `deadline` seconds.

    believed: for each node that has the backbone the groups [groups] that it lacks. A node whose cache turns out to
    be something else gets everything in a second message, once. signer: signs every request, if given.
    """
    outcome = Outcome()
    nodes = list(nodes)
    again = _ask(
        grid, backbone, plan, nodes, {n: believed.get(n) for n in nodes}, message_type, deadline, signer, outcome
    )
    if again:
        failed = _ask(grid, backbone, plan, again, dict.fromkeys(again), message_type, deadline, signer, outcome)
        outcome.failures.update({ClientFailure.BACKBONE_MISSING.name.lower(): len(failed)} if failed else {})
    silent = len(nodes) - len(outcome.vectors) - sum(outcome.failures.values())
    if silent > 0:
        outcome.failures[NO_REPLY] += silent
    return outcome


def _ask(
    grid: Grid,
    backbone: GenericBackbone,
    plan: Plan,
    nodes: list[int],
    lacking: Mapping[int, NDArray[np.bool_] | None],
    message_type: str,
    deadline: float,
    signer: PlanSigner | None,
    outcome: Outcome,
) -> list[int]:
    """Collect replies in `outcome`; return the nodes that have to be sent everything."""
    again = []
    messages = _messages(backbone, plan, nodes, lacking, message_type, deadline, signer)
    for reply in grid.send_and_receive(messages, timeout=deadline):
        node = reply.metadata.src_node_id
        outcome.traffic.received(reply)
        if reply.has_error():
            if reply.error.code == ClientFailure.BACKBONE_MISSING and node in lacking:
                again.append(node)
            else:
                outcome.failures[failure_name(reply.error.code)] += 1
            continue
        try:
            vector = read_reply(reply.content, backbone.layout, plan.version)
        except StatisticsError:
            outcome.failures[INVALID] += 1
            continue
        if node in lacking:
            outcome.vectors[node] = vector
            outcome.lacking[node] = backbone.lacking_after(plan, lacking[node])
    for message in messages:
        outcome.traffic.sent(message)  # after the grid has given it an id, which is part of what travels
    return again


def _messages(
    backbone: GenericBackbone,
    plan: Plan,
    nodes: list[int],
    lacking: Mapping[int, NDArray[np.bool_] | None],
    message_type: str,
    deadline: float,
    signer: PlanSigner | None,
) -> list[Message]:
    # A list, since Flower's grid of a deployed server goes through it twice.
    messages = []
    for node in nodes:
        content = backbone.request(plan, lacking[node])
        if signer is not None:
            signer.sign(content)
        messages.append(Message(content, node, message_type, ttl=deadline, group_id=str(plan.version)))
    return messages
