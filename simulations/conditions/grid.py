"""A Flower grid under a scenario's conditions: requests and replies get lost, some clients come late, some lie."""

from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256

import numpy as np
from flwr.app import Message, MessageType, RecordDict
from flwr.serverapp import Grid

from personalization.wire.statistics import StatisticsError
from server.forwarding_grid import ForwardingGrid
from simulations.attacks.fields import Vector, echo
from simulations.conditions.masked_lies import FORGE_STREAM, MaskedLies
from simulations.conditions.odds import straggler_odds
from simulations.conditions.roles import Roles
from simulations.conditions.settings import Conditions
from strategies.private_protocol import read_answer
from strategies.protocol import PLAN, read_plan, reply_content
from strategies.secure_protocol import Step, read_secure_request, secure_reply

REPLIED, DROPPED, STRAGGLER, ATTACKER, FAILED = "replied", "dropped", "straggler", "attacker", "failed"
_DROPOUT, _STRAGGLER = 1010, 1011  # what a random stream is for, see roles.py
_ALONE = (Step.ADVERTISE, Step.REVEAL)  # steps that come without a plan
Event = dict[str, int | str]


class ConditionedGrid(ForwardingGrid):
    """Stands between a server and any grid, and does to the messages what the conditions say.

    Whatever happens to a client in a round follows from the seed, the round and the client alone: it does not depend
    on who else is asked, and asking again in the same round changes nothing. A round is the version of a plan, which
    travels as Flower's group id.
    """

    def __init__(
        self,
        grid: Grid,
        conditions: Conditions,
        roles: Roles,
        *,
        client_of: Callable[[int], int],
        seed: int,
        lies: MaskedLies | None = None,
    ) -> None:
        """Put the conditions before `grid`. client_of: the client, as in `roles`, behind a node id.

        lies: what attackers put into secure sums, which the client apps have to know as well; none if all are in the
        open.
        """
        super().__init__(grid)
        self._conditions, self._roles, self._client_of, self._seed = conditions, roles, client_of, seed
        self._odds = straggler_odds(conditions, roles.device_class)
        self._attack = None if conditions.attack is None else conditions.attack.attack()
        self._latest, self._lies_in_sums = 0, lies
        self._status: dict[tuple[int, int], str] = {}
        self._waiting: dict[str, Message] = {}

    @property
    def events(self) -> list[Event]:
        """What became of each client that was asked, in each round, by `round` and `client`.

        `status`: `replied`; `dropped`, was away and did nothing; `straggler`, did its work and replied too late;
        `attacker`, sent a forged reply; `failed`, replied with an error, with something invalid, or not at all.
        """
        return [{"round": r, "client": c, "status": status} for (r, c), status in sorted(self._status.items())]

    def get_node_ids(self) -> Iterable[int]:
        """Return the ids of the nodes that are there by now: late joiners only after their round."""
        late = self._conditions.late
        hidden = self._roles.late if late is not None and self._latest < late.after_round else frozenset()
        return [node for node in self._grid.get_node_ids() if self._client_of(node) not in hidden]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Deliver messages and return their ids; the replies wait for `pull_messages`."""
        pushed = list(messages)
        for reply in self.send_and_receive(pushed):
            self._waiting[reply.metadata.reply_to_message_id] = reply
        return [message.metadata.message_id for message in pushed]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies to these messages, once; those that got lost never come."""
        return [self._waiting.pop(i) for i in message_ids if i in self._waiting]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        """Deliver messages and yield the replies that come back: the honest ones first, then those of attackers.

        In the open attackers never run their client app: they forge their replies from the plan that they were sent
        and from the honest vectors of this call. In a secure sum they take part, see MaskedLies.
        """
        exchange = _Exchange()
        honest: list[Vector] = []
        for reply in self._grid.send_and_receive(self._route(messages, exchange), timeout=timeout):
            request = exchange.request_of(reply)
            if request is None:
                yield reply
                continue
            number, client = self._round(request), self._client_of(request.metadata.dst_node_id)
            if self._status[number, client] == STRAGGLER and PLAN in request.content:
                continue
            vector = _vector(request, reply)
            if vector is not None:
                honest.append(vector)
            if self._status[number, client] == FAILED and (vector is not None or _is_masked(request, reply)):
                self._status[number, client] = REPLIED
            yield reply
        yield from self._forged(exchange.attackers, honest)

    def _route(self, messages: Iterable[Message], exchange: "_Exchange") -> Iterator[Message]:
        """Yield the messages that are delivered; note the fate of each, before it is known who replies.

        Attackers in a secure sum come last, when they know what the others send.
        """
        liars = []
        for message in messages:
            number, client = self._round(message), self._client_of(message.metadata.dst_node_id)
            self._latest = max(self._latest, number)
            status = self._note(message, number, client)
            if status == ATTACKER and _step(message) is Step.MASK and self._lies_in_sums is not None:
                liars.append(message)
            elif status in (DROPPED, ATTACKER) and not (status == ATTACKER and _step(message) in _ALONE):
                _identify(message, f"{status}/{self._seed}/{number}/{client}")
                exchange.attackers += [message] if status == ATTACKER else []
            else:
                exchange.delivered.append(message)
                yield message
        if self._lies_in_sums is not None:
            self._lies_in_sums.expect([self._client_of(message.metadata.dst_node_id) for message in liars])
        exchange.delivered += liars
        yield from liars

    def _note(self, message: Message, number: int, client: int) -> str:
        """Return what becomes of a client; a step that follows on its answer in the same round changes nothing."""
        if _step(message) is Step.REVEAL:
            return self._status[number, client]
        trained = message.metadata.message_type == MessageType.TRAIN
        self._status[number, client] = self._fate(number, client, trained=trained)
        return self._status[number, client]

    def _fate(self, number: int, client: int, *, trained: bool) -> str:
        if self._attack is not None and client in self._roles.attackers:
            return ATTACKER
        if trained and self._draw(_DROPOUT, number, client) < self._conditions.dropout:
            return DROPPED
        if trained and self._draw(_STRAGGLER, number, client) < self._odds[client]:
            return STRAGGLER
        return FAILED  # until a valid reply is there

    def _draw(self, stream: int, number: int, client: int) -> float:
        return float(np.random.default_rng([self._seed, stream, number, client]).random())

    def _forged(self, requests: list[Message], honest: list[Vector]) -> Iterator[Message]:
        """Yield a reply to each request; attackers who were sent the same plan act as one."""
        by_plan: dict[str, list[Message]] = {}
        for request in requests:
            if _step(request) is not None:
                yield _reply_to(request, secure_reply(b""))
                continue
            plan, _, _ = read_plan(request.content)
            by_plan.setdefault(str(plan.to_record()), []).append(request)
        for same in by_plan.values():
            for request, content in zip(same, self._lies(same, honest), strict=True):
                yield _reply_to(request, content)

    def _lies(self, requests: list[Message], honest: list[Vector]) -> list[RecordDict]:
        assert self._attack is not None
        plan, layout, _ = read_plan(requests[0].content)
        # Where nobody honest replies, there is nothing to see but the plan.
        seen = np.stack(honest) if honest else echo(plan, layout).join()
        rng = np.random.default_rng(
            [self._seed, FORGE_STREAM, plan.version, self._client_of(requests[0].metadata.dst_node_id)]
        )
        vectors = self._attack.forge(seen, attackers=len(requests), plan=plan, layout=layout, rng=rng)
        return [reply_content(vector, plan.version) for vector in vectors]

    @staticmethod
    def _round(message: Message) -> int:
        return int(message.metadata.group_id)


class _Exchange:
    """The messages of one call. delivered: not yet filed by id, because the grid below sets ids as it sends."""

    def __init__(self) -> None:
        self.delivered: list[Message] = []
        self.attackers: list[Message] = []
        self._requests: dict[str, Message] = {}

    def request_of(self, reply: Message) -> Message | None:
        """Return the message that `reply` answers, once; None if none of this call is left that it does."""
        self._requests.update((message.metadata.message_id, message) for message in self.delivered)
        self.delivered.clear()
        return self._requests.pop(reply.metadata.reply_to_message_id, None)


def _step(message: Message) -> Step | None:
    request = read_secure_request(message.content)
    return None if request is None else request.step


def _is_masked(request: Message, reply: Message) -> bool:
    return not reply.has_error() and _step(request) in (Step.MASK, Step.WITHHOLD)


def _reply_to(request: Message, content: RecordDict) -> Message:
    reply = Message(content, reply_to=request)
    _identify(reply, f"reply to {request.metadata.message_id}")
    return reply


def _vector(request: Message, reply: Message) -> Vector | None:
    if reply.has_error() or _step(request) is not None:
        return None
    plan, layout, _ = read_plan(request.content)
    try:
        return read_answer(reply.content, layout, plan)
    except StatisticsError:
        return None


def _identify(message: Message, what: str) -> None:
    """Give a message that no grid sends an id, which is part of what the server counts."""
    message.metadata.__dict__["_message_id"] = sha256(what.encode()).hexdigest()
