"""What a secure sum adds to a round on the wire: whole Flower messages, signed as `fedsieve serve` signs them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.supercore.task_identity import TaskIdentity

from personalization.sensing.prior import Prior
from personalization.wire.plan import Plan
from personalization.wire.statistics import StatisticsLayout
from server.exchange import message_bytes
from server.signing import PlanSigner
from server.signing_key import SigningKey
from simulations.engine import node_id
from strategies.protocol import PLAN, SECURE, plan_record, reply_content
from strategies.secure_protocol import SecureRequest, Step, secure_reply

# A ViT-S: 12 blocks of attention (6 heads) and MLP (16 groups), 413 numbers; and one that is cut to 380 of them.
VIT_SMALL = StatisticsLayout(layers=24, levels=2, groups=12 * (6 + 16))
_FLEET, _SERIES, _ID = "0" * 16, 1_795_389_805_017, "0" * 64


@dataclass(frozen=True)
class Envelope:
    """One client, one round, nobody vanishes. plan: bytes of the request that carries the plan, in the open. plain,
    secure: bytes of all messages of a round in the open, and of one of sums. extra_messages: how many more the second
    takes. entries: of the vector.
    """

    entries: int
    plan: int
    plain: int
    secure: int
    extra_messages: int

    @property
    def own(self) -> int:
        """Bytes of the sum: its messages but for the plan, which both kinds of round send alike."""
        return self.secure - self.plan


def measure_envelope(exchanged: Sequence[bytes], *, entries: int) -> Envelope:
    """Return what travels in a round. exchanged: invitation, masked vector [`entries`], share request and reply."""
    invitation, masked, share_request, share_reply = exchanged
    layout = replace(VIT_SMALL, groups=VIT_SMALL.groups - VIT_SMALL.size + entries)
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 2**62 + 1, 2**62 + 1, SUPERLINK_NODE_ID
    signer = PlanSigner(SigningKey(_FLEET, Ed25519PrivateKey.generate()), _SERIES)
    ask, vector = _request(signer, _plan(layout)), np.random.default_rng(0).random(entries)
    plain = [ask, _reply(reply_content(vector, 1000), ask)]
    first = _request(signer, RecordDict({**_plan(layout), SECURE: _step(Step.MASK, invitation)}))
    second = _request(signer, RecordDict({SECURE: _step(Step.REVEAL, share_request)}))
    secure = [first, _reply(secure_reply(masked), first), second, _reply(secure_reply(share_reply), second)]
    return Envelope(
        entries=entries,
        plan=message_bytes(ask),
        plain=sum(map(message_bytes, plain)),
        secure=sum(map(message_bytes, secure)),
        extra_messages=len(secure) - len(plain),
    )


def _plan(layout: StatisticsLayout) -> RecordDict:
    rng = np.random.default_rng(0)
    prior = Prior(10 * rng.random(layout.atoms), 100 * rng.random(layout.atoms))
    nothing = np.zeros(layout.groups, dtype=np.bool_)
    plan = Plan(version=1000, prior=prior, dropped=nothing, probes=6, budget=0.5)
    return RecordDict({PLAN: plan_record(plan, layout, bytes(32))})


def _step(step: Step, message: bytes) -> ConfigRecord:
    return SecureRequest(step=step, fleet=_FLEET, series=_SERIES, round=1000, message=message).to_record()


def _request(signer: PlanSigner, content: RecordDict) -> Message:
    signer.sign(content)
    message = Message(content, node_id(0), MessageType.TRAIN, group_id="1000")
    message.metadata.__dict__["_message_id"] = _ID
    return message


def _reply(content: RecordDict, request: Message) -> Message:
    message = Message(content, reply_to=request)
    message.metadata.__dict__["_message_id"] = _ID
    return message
