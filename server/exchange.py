"""One exchange of messages: a plan to some nodes, their vectors back, and the bytes that both took."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields

import numpy as np
from flwr.app import ConfigRecord, Message, MessageType
from flwr.common.serde import message_to_proto
from flwr.serverapp import Grid
from numpy.typing import NDArray

from personalization.wire.codes import ClientFailure, failure_name
from personalization.wire.plan import Plan
from personalization.wire.statistics import StatisticsError
from server.backbone import GenericBackbone
from server.replies import Asked
from server.signing import PlanSigner
from strategies.private_protocol import read_answer
from strategies.protocol import MANIFEST, SECURE
from strategies.secure_protocol import read_secure_reply

NO_REPLY = "no_reply"
_INVALID = "reply_"


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

    def sent(self, message: Message, *, counted: bool = True) -> None:
        """Count a request. counted: False adds its bytes alone, for what belongs to another message."""
        size = message_bytes(message)
        if not counted:
            self.later_bytes += size
        elif MANIFEST in message.content:
            self.first_contact_bytes += size
            self.first_contacts += 1
        else:
            self.later_bytes += size
            self.later += 1

    def received(self, message: Message, *, counted: bool = True) -> None:
        """Count a reply. counted: False adds its bytes alone, for what belongs to another message."""
        self.uplink_bytes += message_bytes(message)
        self.replies += counted

    def add(self, other: "Traffic") -> None:
        """Count what `other` has counted, too."""
        for counter in fields(self):
            setattr(self, counter.name, getattr(self, counter.name) + getattr(other, counter.name))


@dataclass
class Outcome:
    """What came back. vectors: by node id, integers on the grid where the plan asks for noise.

    messages: by node id, where a step of a secure sum came with the plan.
    lacking: what each node that answered lacks now. errors: its code for each node that failed. failures: how many, by
    the code's name, or by what is wrong with a reply (`reply_length`). dropped: messages that were no replies to what
    was asked, by reason; they count for nobody.
    """

    vectors: dict[int, NDArray[np.float64]] = field(default_factory=dict)
    messages: dict[int, bytes] = field(default_factory=dict)
    errors: dict[int, int] = field(default_factory=dict)
    lacking: dict[int, NDArray[np.bool_]] = field(default_factory=dict)
    failures: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    traffic: Traffic = field(default_factory=Traffic)

    @property
    def replied(self) -> int:
        """How many nodes answered as they were asked to."""
        return len(self.vectors) + len(self.messages)

    def add(self, other: "Outcome") -> None:
        """Take in what came back from other nodes."""
        self.vectors.update(other.vectors)
        self.messages.update(other.messages)
        self.errors.update(other.errors)
        self.lacking.update(other.lacking)
        self.failures.update(other.failures)
        self.dropped.update(other.dropped)
        self.traffic.add(other.traffic)


def invalid(reason: str) -> str:
    """Return the code under which replies are counted that hold something wrong."""
    return f"{_INVALID}{reason}"


def is_invalid(code: str) -> bool:
    """Say whether a failure's code is that of a reply that holds something wrong."""
    return code.startswith(_INVALID)


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
    secure: Mapping[int, ConfigRecord] | None = None,
) -> Outcome:
    """Send `plan` to `nodes` with what each is believed to lack; return what they answer within `deadline` seconds.

    believed: for each node that has the backbone the groups [groups] that it lacks. A node whose cache turns out to
    be something else gets everything in a second message, once. signer: signs every request, if given. secure: for each
    node the record of a secure sum that goes with the plan; then messages come back and no vectors.
    """
    outcome = Outcome()
    nodes = list(nodes)
    plans = _Plans(grid, backbone, plan, message_type, deadline, signer, secure)
    again = plans.ask(nodes, {node: believed.get(node) for node in nodes}, outcome)
    if again:
        failed = plans.ask(again, dict.fromkeys(again), outcome)
        outcome.failures.update({ClientFailure.BACKBONE_MISSING.name.lower(): len(failed)} if failed else {})
    silent = len(nodes) - outcome.replied - sum(outcome.failures.values())
    if silent > 0:
        outcome.failures[NO_REPLY] += silent
    return outcome


@dataclass(frozen=True)
class _Plans:
    """What is sent in an exchange, and to be made of the replies."""

    grid: Grid
    backbone: GenericBackbone
    plan: Plan
    message_type: str
    deadline: float
    signer: PlanSigner | None
    secure: Mapping[int, ConfigRecord] | None

    def ask(self, nodes: list[int], lacking: Mapping[int, NDArray[np.bool_] | None], outcome: Outcome) -> list[int]:
        """Collect replies in `outcome`; return the nodes that have to be sent everything."""
        again = []
        messages = self._messages(nodes, lacking)
        asked = Asked(messages)
        for reply in self.grid.send_and_receive(messages, timeout=self.deadline):
            outcome.traffic.received(reply)
            node = asked.node_of(reply)
            if node is None:
                continue
            if reply.has_error():
                if reply.error.code == ClientFailure.BACKBONE_MISSING:
                    again.append(node)
                else:
                    outcome.failures[failure_name(reply.error.code)] += 1
                    outcome.errors[node] = reply.error.code
                continue
            try:
                self._take(node, reply, outcome)
            except StatisticsError as error:
                outcome.failures[invalid(error.reason)] += 1
                continue
            outcome.lacking[node] = self.backbone.lacking_after(self.plan, lacking[node])
        outcome.dropped.update(asked.dropped)
        for message in messages:
            outcome.traffic.sent(message)  # after the grid has given it an id, which is part of what travels
        return again

    def _take(self, node: int, reply: Message, outcome: Outcome) -> None:
        if self.secure is not None:
            outcome.messages[node] = read_secure_reply(reply.content)
        else:
            outcome.vectors[node] = read_answer(reply.content, self.backbone.layout, self.plan)

    def _messages(self, nodes: list[int], lacking: Mapping[int, NDArray[np.bool_] | None]) -> list[Message]:
        # A list, since Flower's grid of a deployed server goes through it twice.
        messages = []
        for node in nodes:
            content = self.backbone.request(self.plan, lacking[node])
            if self.secure is not None:
                content[SECURE] = self.secure[node]
            if self.signer is not None:
                self.signer.sign(content)
            group = str(self.plan.version)
            messages.append(Message(content, node, self.message_type, ttl=self.deadline, group_id=group))
        return messages
