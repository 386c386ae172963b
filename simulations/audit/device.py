"""What a device has sent, by its recording: the requests on its connections, decoded down to their fields."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from flwr.proto.fleet_pb2 import PullMessagesResponse, PushMessagesResponse
from flwr.proto.message_pb2 import Message as EncodedMessage
from flwr.proto.message_pb2 import Metadata, PullObjectResponse
from google.protobuf.message import DecodeError

from client.recording import Entry, Kind
from simulations.audit.asked import Asked
from simulations.audit.fleet_api import Known, read_body
from simulations.audit.http import read_request, split_requests
from simulations.audit.leaves import Decoded
from simulations.audit.objects import build_request, object_name, read_head

FORM = "connections"
_LOOPBACK = ("127.", "::1")


@dataclass
class Traffic:
    """What a recording holds. streams: by connection, with the time of the first byte of each part.

    peers: by connection. plain: addresses that were connected to, TLS or not.
    """

    server: str = ""
    streams: dict[int, bytearray] = field(default_factory=dict)
    times: dict[int, list[tuple[int, float]]] = field(default_factory=dict)
    peers: dict[int, str] = field(default_factory=dict)
    plain: list[str] = field(default_factory=list)
    known: Known = field(default_factory=Known)


def read_traffic(entries: Iterable[Entry]) -> Traffic:
    """Return what a recording of a device holds."""
    traffic, answers = Traffic(), list[tuple[str, bytes]]()
    for entry in entries:
        if entry.kind is Kind.BEGINNING:
            traffic.server = str(entry.facts().get("server", traffic.server))
        elif entry.kind is Kind.CONNECTION and entry.channel:
            traffic.peers[entry.channel] = entry.data.decode()
        elif entry.kind is Kind.CONNECTION:
            traffic.plain.append(entry.data.decode())
        elif entry.kind is Kind.UP:
            stream = traffic.streams.setdefault(entry.channel, bytearray())
            traffic.times.setdefault(entry.channel, []).append((len(stream), entry.seconds))
            stream += entry.data
        elif entry.kind is Kind.DOWN:
            facts, body = entry.down()
            if facts.get("status") == 200:
                answers.append((str(facts.get("path")), body))
    _learn(answers, traffic.known)
    return traffic


def connection_problems(traffic: Traffic) -> list[str]:
    """Return what is wrong with where the device connected to."""
    problems = [f"a connection to {peer}" for peer in traffic.peers.values() if not peer.endswith(" verified")]
    peers = {peer.split(" ")[0] for peer in traffic.peers.values()}
    port = traffic.server.rpartition(":")[2]
    for address in sorted({*traffic.plain} - peers):
        if not address.startswith(_LOOPBACK) and address.rpartition(":")[2] != port:
            problems.append(f"a connection to {address}, which is not the server")
    return problems


def read_device(traffic: Traffic, client: str) -> Iterator[Decoded]:
    """Yield what each request of a device amounts to, in the order in which they began."""
    requests = []
    for channel, stream in traffic.streams.items():
        raw = bytes(stream)
        for start, end, cut_off in split_requests(raw):
            requests.append((_time(traffic.times[channel], start), raw[start:end], cut_off))
    requests.sort(key=lambda request: request[0])
    for number, (seconds, raw, cut_off) in enumerate(requests, start=1):
        request = read_request(raw, seconds=seconds, cut_off=cut_off, server=traffic.server)
        decoded = Decoded(client, number, "unreadable", raw, request.leaves, request.problems)
        read_body(request, traffic.known, decoded)
        yield decoded.finish()


def _time(times: list[tuple[int, float]], place: int) -> float:
    return max((seconds for start, seconds in times if start <= place), default=0.0)


def _learn(answers: list[tuple[str, bytes]], known: Known) -> None:
    """Note what the server sent: messages with their objects, and the sessions that it opened."""
    objects: dict[str, bytes] = {}
    for path, body in answers:
        try:
            if path.endswith("/pull-object"):
                content = PullObjectResponse.FromString(body).object_content
                objects[object_name(content)] = content
            elif path.endswith("/push-messages"):
                known.sessions.add(PushMessagesResponse.FromString(body).session_id)
        except DecodeError:
            continue  # an answer that nobody can read asks for nothing
    for path, body in answers:
        if path.endswith("/pull-messages") and body:
            for asked in _pulled(body, objects):
                known.asked[asked.metadata.message_id] = asked


def _pulled(body: bytes, objects: dict[str, bytes]) -> Iterator[Asked]:
    """Yield the messages that came down with an answer; after what nobody can read there are none."""
    try:
        pulled = PullMessagesResponse.FromString(body)
        for message, tree in zip(pulled.messages_list, pulled.message_object_trees, strict=False):
            yield Asked(_envelope(message.metadata, objects), build_request(tree, objects))
    except (DecodeError, ValueError, TypeError, AttributeError, KeyError, RecursionError):
        return


def _envelope(metadata: Metadata, objects: dict[str, bytes]) -> Metadata:
    """Return the envelope of a message that came down, whole: its object has what the list of messages leaves out."""
    content = objects.get(metadata.message_id, b"")
    head = read_head(content)
    if head is None or head.kind != "Message":
        return metadata
    whole: Metadata = EncodedMessage.FromString(content[head.size :]).metadata
    whole.message_id = metadata.message_id
    return whole
