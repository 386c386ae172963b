"""The guard on what leaves the device: a statistics vector in range, a part of a secure sum, or a bare code."""

import json
import traceback
from collections.abc import Callable

from flwr.app import Context, Error, Message, RecordDict

from client.state import ClientState
from personalization.errors import UserError
from personalization.model_files.pieces import PieceError
from personalization.wire.codes import ClientError, ClientFailure
from personalization.wire.plan import Plan, PlanError
from personalization.wire.statistics import StatisticsError, StatisticsLayout
from strategies.private_protocol import answer_content, check_sum_part
from strategies.protocol import PLAN, read_plan
from strategies.secure_aggregation.errors import MessageError, PeersUnknownError, RefusalError
from strategies.secure_protocol import SecureRequest, read_secure_reply, read_secure_request, secure_reply

_CODES: tuple[tuple[type[Exception], ClientFailure], ...] = (
    (PlanError, ClientFailure.REQUEST_INVALID),
    (PieceError, ClientFailure.REQUEST_INVALID),
    (MessageError, ClientFailure.REQUEST_INVALID),
    (PeersUnknownError, ClientFailure.PEERS_UNKNOWN),
    (RefusalError, ClientFailure.SUM_REFUSED),
    (UserError, ClientFailure.DATA_UNUSABLE),
    (OSError, ClientFailure.STATE_UNWRITABLE),
)


def egress_guard(message: Message, context: Context, call_next: Callable[[Message, Context], Message]) -> Message:
    """Let a reply pass only if it holds exactly what was asked for; this is a Flower client mod.

    What passes is built anew from the checked vector or message, so nothing can ride along. Where the request is about
    a secure sum, no vector passes, in range or not. Every exception becomes a code without text; what happened is
    written to the device's own `last_error.json`.
    """
    try:
        rebuild = _what_may_leave(message.content)
        reply = call_next(message, context)
        if reply.has_error():
            return bare_error(_known(reply.error.code), message)
        try:
            content = rebuild(reply.content)
        except StatisticsError as error:
            raise ClientError(ClientFailure.EGRESS_REFUSED, str(error)) from error
        return Message(content, reply_to=message)
    except Exception as error:
        code = failure_code(error)
        _remember(error, code, context)
        return bare_error(code, message)


def _what_may_leave(request: RecordDict) -> Callable[[RecordDict], RecordDict]:
    """Return what makes, out of a reply's content, the one that may leave, or raises StatisticsError.

    Raises PlanError for requests that can't be read.
    """
    asked = read_secure_request(request)
    if asked is not None and PLAN not in request:
        return lambda content: _checked_step(asked, content)
    plan, layout, _ = read_plan(request)
    if asked is not None:
        return lambda content: _checked_step(asked, content, plan, layout)
    return lambda content: answer_content(content, layout, plan)


def _checked_step(
    asked: SecureRequest, content: RecordDict, plan: Plan | None = None, layout: StatisticsLayout | None = None
) -> RecordDict:
    raw = read_secure_reply(content)
    check_sum_part(asked, raw, plan, layout)
    return secure_reply(raw)


def failure_code(error: Exception) -> ClientFailure:
    """Return the code that stands for an exception."""
    if isinstance(error, ClientError):
        return error.code
    return next((code for kind, code in _CODES if isinstance(error, kind)), ClientFailure.FAILED)


def bare_error(code: ClientFailure, message: Message) -> Message:
    """Return an error reply that holds a code and an empty text."""
    return Message(Error(int(code), ""), reply_to=message)


def _known(code: int) -> ClientFailure:
    return ClientFailure(code) if code in set(ClientFailure) else ClientFailure.FAILED


def _remember(error: Exception, code: ClientFailure, context: Context) -> None:
    text = "".join(traceback.format_exception(error))
    record = {"code": code.name.lower(), "message": str(error), "traceback": text}
    try:
        ClientState.of(context).write_error(json.dumps(record, indent=1).encode())
    except (OSError, ClientError):
        return  # there is no place left to tell; the code still reaches the server
