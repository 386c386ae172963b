"""A SuperNode answers in turn, also after it has given a message up.

Flower's loop gives a message up when its run ends, or the connection fails, while it arrives. A ClientApp may have it
already. The loop then takes the reply to that message for the reply to the next, and from there on sends each reply
only when another message has come: too late for its round, every time.
"""

from collections.abc import Callable
from typing import Any


def answer_in_turn(client: Any) -> None:
    """Mend the two steps of the loop in `client`, the module `flwr.supernode.start_client_internal`."""
    client._pull_and_store_message = _pulling(client._pull_and_store_message)
    client._push_messages = _pushing(client._push_messages)


def _pulling(pull: Callable[..., int | None]) -> Callable[..., int | None]:
    def pull_or_forget(*, state: Any, object_store: Any, **others: Any) -> int | None:
        run = pull(state=state, object_store=object_store, **others)
        # Where no message has come there is none: the loop takes the next when the one before is answered.
        for message in _unanswered(state) if run is None else ():
            state.delete_messages(message_ids=[message])
            object_store.delete(message)
        return run

    return pull_or_forget


def _pushing(push: Callable[..., None]) -> Callable[..., None]:
    def push_until_answered(*, state: Any, **others: Any) -> None:
        push(state=state, **others)
        while _unanswered(state):
            push(state=state, **others)

    return push_until_answered


def _unanswered(state: Any) -> list[str]:
    """Return the ids of the messages that are no replies; a message goes from the state with its reply."""
    # What the state offers for this marks them as taken, and the ClientApp would get none.
    with state.lock_msg_store:
        entries = list(state.msg_store.items())
    return [number for number, entry in entries if not entry.message.metadata.reply_to_message_id]
