"""The guard on what leaves the device: a statistics vector in range, or a bare code."""

import json
import traceback
from collections.abc import Callable

from flwr.app import Context, Error, Message

from client.state import ClientState
from personalization.codes import ClientError, ClientFailure
from personalization.errors import UserError
from personalization.pieces import PieceError
from personalization.plan import PlanError
from personalization.statistics import StatisticsError
from strategies.protocol import read_plan, read_reply, reply_content

_CODES: tuple[tuple[type[Exception], ClientFailure], ...] = (
    (PlanError, ClientFailure.REQUEST_INVALID),
    (PieceError, ClientFailure.REQUEST_INVALID),
    (UserError, ClientFailure.DATA_UNUSABLE),
    (OSError, ClientFailure.STATE_UNWRITABLE),
)


def egress_guard(message: Message, context: Context, call_next: Callable[[Message, Context], Message]) -> Message:
    """Let a reply pass only if it holds exactly what was asked for; this is a Flower client mod.

    What passes is built anew from the checked vector, so nothing can ride along. Every exception becomes a code
    without text; what happened is written to the device's own `last_error.json`.
    """
    try:
        plan, layout, _ = read_plan(message.content)
        reply = call_next(message, context)
        if reply.has_error():
            return bare_error(_known(reply.error.code), message)
        try:
            vector = read_reply(reply.content, layout, plan.version)
        except StatisticsError as error:
            raise ClientError(ClientFailure.EGRESS_REFUSED, str(error)) from error
        return Message(reply_content(vector, plan.version), reply_to=message)
    except Exception as error:
        code = failure_code(error)
        _remember(error, code, context)
        return bare_error(code, message)


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
