"""One round's secure sums over Flower's messages: keys where they are missing, masked vectors, then what unmasks sums.

Whoever does not answer in time has vanished, at whatever stage. Nothing here is written down or logged: the round's
record gets counts.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid

from personalization.errors import UserError
from personalization.wire.codes import ClientFailure, failure_name
from personalization.wire.statistics import StatisticsError
from server.exchange import NO_REPLY, Outcome, invalid
from server.replies import Asked
from server.secure_members import SecureMembers
from server.signing import PlanSigner
from strategies.protocol import SECURE
from strategies.secure_aggregation.encoding import Encoding
from strategies.secure_aggregation.errors import MessageError, RoundFailedError
from strategies.secure_aggregation.messages import Invitation
from strategies.secure_aggregation.server import SecureSum, SecureTotal
from strategies.secure_aggregation.settings import RoundName, SecureAggregationSettings
from strategies.secure_protocol import SecureRequest, Step, read_secure_reply

# What a step takes that needs no work on the device: it polls, and starts a process. Who takes longer has vanished.
STEP_SECONDS = 600.0
# Sends plans with a record each, by node, and returns what came back.
AskPlans = Callable[[Mapping[int, ConfigRecord]], Outcome]
# Puts handles into cohorts. Raises UserError if there are too few.
Draw = Callable[[Sequence[int]], list[tuple[int, ...]]]


@dataclass
class SecureOutcome:
    """What a round came to. totals: of the cohorts whose sum came out. members: how many clients were to be summed.

    rejected: dropped replies by the code of the reason (`reply_length`). reasons: why sums failed. outcome: as of a
    round in the open, without vectors.
    """

    totals: list[SecureTotal] = field(default_factory=list)
    cohorts: int = 0
    members: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    reasons: list[str] = field(default_factory=list)
    outcome: Outcome = field(default_factory=Outcome)

    @property
    def clients(self) -> int:
        """How many clients are in the sums."""
        return sum(len(total.clients) for total in self.totals)

    def record(self) -> dict[str, object]:
        """Return the counts for the round's record."""
        vanished = self.members - self.clients
        rejected = dict(sorted(self.rejected.items()))
        return {"clients": self.clients, "cohorts": self.cohorts, "vanished": vanished, "rejected": rejected}


@dataclass(frozen=True, kw_only=True)
class SecureRound:
    """One round. number: of the sum, rising within the run of `series`. group: Flower's group id, the plan's version.

    deadline: seconds that a step may take at most. encode: how a cohort of this size sums, see `mask_input`.
    """

    grid: Grid
    members: SecureMembers
    series: int
    number: int
    group: str
    deadline: float
    settings: SecureAggregationSettings
    encode: Callable[[int], Encoding]
    signer: PlanSigner | None

    def run(self, nodes: Sequence[int], *, plan: bytes, entries: int, draw: Draw, ask: AskPlans) -> SecureOutcome:
        """Sum the vectors of `nodes`. plan: digest of the plan that `ask` sends. entries: length of a vector."""
        found = SecureOutcome()
        self._enlist(nodes, found)
        by_handle = self.members.handles(nodes)
        name = self.request(Step.MASK).name(plan, entries)
        sums = self._sums(by_handle, name, draw, found)
        if not sums:
            return found
        invitations = {handle: raw for one in sums for handle, raw in one.invitations(self.members.introduced).items()}
        records = {by_handle[handle]: self.request(Step.MASK, raw).to_record() for handle, raw in invitations.items()}
        answered = ask(records)
        found.outcome.add(answered)
        for node, code in answered.errors.items():
            if code == ClientFailure.PEERS_UNKNOWN:
                self.members.forget(node)
        replies = {handle: answered.messages[node] for handle, node in by_handle.items() if node in answered.messages}
        for handle in replies:
            self.members.met(handle, Invitation.decode(invitations[handle]).peers.tolist())
        while requests := self._advance(sums, replies, found):
            told = self._tell(Step.REVEAL, {by_handle[handle]: raw for handle, raw in requests.items()}, found)
            replies = {handle: told[by_handle[handle]] for handle in requests if by_handle[handle] in told}
        return found

    def request(self, step: Step, message: bytes = b"") -> SecureRequest:
        """Return a request of this round."""
        fleet = self.members.enrolment.fleet
        return SecureRequest(step=step, fleet=fleet, series=self.series, round=self.number, message=message)

    def _enlist(self, nodes: Sequence[int], found: SecureOutcome) -> None:
        """Get the keys of clients that have told none in this run."""
        strangers = self.members.strangers(nodes)
        told = self._tell(Step.ADVERTISE, dict.fromkeys(strangers, b""), found)
        silent = len(strangers) - len(told) - sum(found.outcome.failures.values()) - sum(found.rejected.values())
        if silent > 0:
            found.outcome.failures[NO_REPLY] += silent
        for node, advert in told.items():
            try:
                self.members.enlist(node, advert)
            except MessageError as error:
                found.rejected[invalid(error.reason)] += 1

    def _sums(self, by_handle: Mapping[int, int], name: RoundName, draw: Draw, found: SecureOutcome) -> list[SecureSum]:
        try:
            cohorts = draw(list(by_handle))
            sums = [
                SecureSum(self.members.adverts(one), name=name, settings=self.settings, encode=self.encode)
                for one in cohorts
            ]
        except UserError as error:
            found.reasons.append(str(error))
            return []
        found.cohorts, found.members = len(sums), len(by_handle)
        return sums

    def _advance(self, sums: list[SecureSum], replies: Mapping[int, bytes], found: SecureOutcome) -> dict[int, bytes]:
        """Give every sum its replies; take those that are done, or failed, out of `sums`; return what is next."""
        requests: dict[int, bytes] = {}
        for one in list(sums):
            try:
                asked = one.advance(replies)
            except RoundFailedError as error:
                found.reasons.append(str(error))
                asked = {}
            requests |= asked
            if not asked:
                sums.remove(one)
                found.rejected.update({invalid(reason): count for reason, count in one.rejected.items()})
                found.totals += [one.total] if one.total is not None else []
        return requests

    def _tell(self, step: Step, messages: Mapping[int, bytes], found: SecureOutcome) -> dict[int, bytes]:
        """Send a step that comes without a plan to each node; return what came back."""
        deadline, traffic = min(self.deadline, STEP_SECONDS), found.outcome.traffic
        sent = []
        for node, raw in messages.items():
            content = RecordDict({SECURE: self.request(step, raw).to_record()})
            if self.signer is not None:
                self.signer.sign(content)
            sent.append(Message(content, node, MessageType.TRAIN, ttl=deadline, group_id=self.group))
        told, asked = {}, Asked(sent)
        for reply in self.grid.send_and_receive(sent, timeout=deadline) if sent else ():
            traffic.received(reply, counted=False)
            sender = asked.node_of(reply)
            if sender is None:
                continue
            if reply.has_error():
                found.outcome.failures[failure_name(reply.error.code)] += 1
                continue
            try:
                told[sender] = read_secure_reply(reply.content)
            except StatisticsError as error:
                found.rejected[invalid(error.reason)] += 1
        found.outcome.dropped.update(asked.dropped)
        for message in sent:
            traffic.sent(message, counted=False)
        return told
