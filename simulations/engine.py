"""A fleet in one process: Flower's messages, encoded and decoded as on a network, without its processes and waits."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as EncodedMessage
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

ConfigValue = bool | int | float | str
NodeConfig = Callable[[int, int], Mapping[str, ConfigValue]]
_RUN, _TASK = 1, 1


@dataclass
class EncodedBytes:
    """Bytes that crossed between the server and one client or all of them, as encoded."""

    down: int = 0
    up: int = 0


class Tap(Protocol):
    """Is shown every encoded message on its way."""

    def down(self, client: int, raw: bytes) -> None:
        """See a message to a client."""

    def up(self, client: int, raw: bytes) -> None:
        """See a message from a client."""


class InProcessGrid(Grid):
    """Flower's Grid over clients that live in this process, one at a time.

    Every message is encoded to bytes and decoded again, so that nothing is shared by reference and what is counted
    is what would travel. A client's Context is made for each message and dropped after it: memory does not grow with
    the fleet, and what a client is to remember it has to store itself.
    """

    def __init__(
        self,
        client_app: ClientApp,
        *,
        clients: int,
        run_config: Mapping[str, ConfigValue],
        node_config: NodeConfig | None = None,
        on_answer: Callable[[], None] | None = None,
        tap: Tap | None = None,
    ) -> None:
        """Connect `clients` nodes that run `client_app`; node ids depend on their number alone.

        node_config: what a client's own configuration holds beside its `partition-id`, for a client and a plan's
        version. on_answer: called whenever a client has answered, to show progress. tap: is shown all that travels.
        """
        self._app, self._run_config, self._on_answer, self._tap = client_app, dict(run_config), on_answer, tap
        self._node_config = node_config or (lambda client, version: {})
        self._partitions = {node_id(client): client for client in range(clients)}
        self._run = Run.create_empty(_RUN)
        self._waiting: dict[str, Message] = {}
        self._sent = 0
        self.bytes: dict[int, EncodedBytes] = {client: EncodedBytes() for client in range(clients)}

    def set_run(self, run: Run) -> None:
        """Take the run that this grid belongs to."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run that this grid belongs to."""
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Return a message to a node, as Flower's own (deprecated) method of this name does."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Return the ids of all nodes."""
        return list(self._partitions)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Deliver messages and return their ids; the replies wait for `pull_messages`."""
        ids = []
        for message in messages:
            reply = self._deliver(message)
            self._waiting[reply.metadata.reply_to_message_id] = reply
            ids.append(reply.metadata.reply_to_message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies to these messages, once."""
        return [self._waiting.pop(i) for i in message_ids if i in self._waiting]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        """Deliver one message after the other and yield each reply before the next message is even made."""
        for message in messages:
            yield self._deliver(message)

    def _deliver(self, message: Message) -> Message:
        self._sent += 1
        message.metadata.__dict__["_message_id"] = hashlib.sha256(b"%d" % self._sent).hexdigest()
        request, raw = _over_the_wire(message)
        client = self._partitions.get(message.metadata.dst_node_id)
        crossed = EncodedBytes() if client is None else self.bytes[client]
        crossed.down += len(raw)
        if self._tap is not None and client is not None:
            self._tap.down(client, raw)
        del raw  # a whole model, which nobody needs while the client works
        reply = self._answer(request)
        reply.metadata.__dict__["_message_id"] = hashlib.sha256(b"reply %d" % self._sent).hexdigest()
        received, raw = _over_the_wire(reply)
        crossed.up += len(raw)
        if self._tap is not None and client is not None:
            self._tap.up(client, raw)
        if self._on_answer is not None:
            self._on_answer()
        return received

    def _answer(self, request: Message) -> Message:
        node = request.metadata.dst_node_id
        if node not in self._partitions:
            return Message(Error(ErrorCode.NODE_UNAVAILABLE, ""), reply_to=request)
        client, group = self._partitions[node], request.metadata.group_id
        own = self._node_config(client, int(group) if group.isdecimal() else 0)
        context = Context(
            run_id=_RUN,
            node_id=node,
            node_config={**own, "partition-id": client, "num-partitions": len(self._partitions)},
            state=RecordDict(),
            run_config=dict(self._run_config),
        )
        return self._app(request, context)


def run_in_process(
    server_app: ServerApp,
    client_app: ClientApp,
    *,
    clients: int,
    run_config: Mapping[str, ConfigValue],
    node_config: NodeConfig | None = None,
    wrap_grid: Callable[[Grid], Grid] | None = None,
    on_answer: Callable[[], None] | None = None,
    tap: Tap | None = None,
) -> dict[int, EncodedBytes]:
    """Run both apps to the end and return the bytes that crossed, by client. Whatever the server raises comes through.

    node_config, on_answer, tap: see InProcessGrid. wrap_grid: puts something between the server and the clients.
    """
    # Message() reads its sender from here. Not public: a test stands guard for when Flower changes it.
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = _TASK, _RUN, SUPERLINK_NODE_ID
    grid = InProcessGrid(
        client_app, clients=clients, run_config=run_config, node_config=node_config, on_answer=on_answer, tap=tap
    )
    context = Context(
        run_id=_RUN, node_id=SUPERLINK_NODE_ID, node_config={}, state=RecordDict(), run_config=dict(run_config)
    )
    server_app(grid=grid if wrap_grid is None else wrap_grid(grid), context=context)
    return grid.bytes


def node_id(client: int) -> int:
    """Return the id of a simulated node: like Flower's a number of 63 bits, but the same in every run."""
    digest = hashlib.sha256(b"node %d" % client).digest()
    return int.from_bytes(digest[:8], "little") >> 1 | 1 << 62


def _over_the_wire(message: Message) -> tuple[Message, bytes]:
    raw = message_to_proto(message).SerializeToString()
    return message_from_proto(EncodedMessage.FromString(raw)), raw
