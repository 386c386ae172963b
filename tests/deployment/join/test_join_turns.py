"""Flower's own two steps on its own state, with a server whose run ends while a message arrives."""

import threading
from types import SimpleNamespace

import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.run import Run, RunNotRunningException, RunStatus
from flwr.supernode import start_client_internal
from flwr.supernode.nodestate import NodeStateFactory

from deployment.join.turns import answer_in_turn

RUN = 7
pytestmark = pytest.mark.usefixtures("task_identity")


def numbered(number: int) -> RecordDict:
    return RecordDict({"record": ConfigRecord({"number": number})})


class Device:
    """A SuperNode's loop, a step at a time; what its ClientApp answers comes when the test says so."""

    def __init__(self, *, mended: bool) -> None:
        stores = ObjectStoreFactory()
        self.store, self.state = stores.store(), NodeStateFactory(stores).state()
        status = RunStatus("running", "", "")
        self.state.store_run(Run(RUN, "", "", "", {}, "", "", "", "", status, "", "", None, 0, 0, 0.0))
        self.client = SimpleNamespace(**vars(start_client_internal))
        if mended:
            answer_in_turn(self.client)
        self.sent: list[int] = []

    def pull(self, number: int, failure: BaseException | None = None) -> Message:
        """Let a message arrive, and fail when it is confirmed."""
        message = Message(numbered(number), dst_node_id=1, message_type="train")
        message.metadata._run_id = RUN
        message.metadata.__dict__["_message_id"] = message.object_id
        contents = {name: part.deflate() for name, part in get_all_nested_objects(message).items()}

        def confirm(_run: int, _message: str) -> None:
            if failure is not None:
                raise failure

        taken = self.client._pull_and_store_message(
            state=self.state,
            object_store=self.store,
            node_config={},
            receive=lambda: (message, get_object_tree(message)),
            get_run=None,
            get_fab=None,
            pull_object=lambda _run, name: contents[name],
            confirm_message_received=confirm,
            trusted_entities=None,
        )
        assert (taken == RUN) == (failure is None)
        return message

    def pull_nothing(self) -> None:
        self.client._pull_and_store_message(
            state=self.state,
            object_store=self.store,
            **dict.fromkeys(
                ("node_config", "get_run", "get_fab", "pull_object", "confirm_message_received", "trusted_entities")
            ),
            receive=lambda: None,
        )

    def answer(self, message: Message, number: int) -> None:
        reply = Message(numbered(number), reply_to=message)
        start_client_internal._insert_message(reply, self.state, self.store)

    def push(self) -> threading.Thread:
        def send(message: Message, _tree: object, _seconds: float) -> tuple[set[str], str]:
            self.sent.append(int(message.content["record"]["number"]))
            return set(), ""

        def run() -> None:
            self.client._push_messages(
                state=self.state, object_store=self.store, send=send, push_object=lambda *_: None
            )

        pushing = threading.Thread(target=run, daemon=True)
        pushing.start()
        return pushing


@pytest.mark.parametrize("failure", [RunNotRunningException(), ConnectionError("gone")])
@pytest.mark.parametrize("mended", [True, False])
def test_after_a_message_that_was_given_up_the_next_is_answered_in_its_turn(failure, mended):
    device = Device(mended=mended)
    given_up = device.pull(1, failure)
    device.answer(given_up, 10)  # the ClientApp had it already
    wanted = device.pull(2)
    pushing = device.push()
    pushing.join(1.0)
    # Flower itself goes to wait for a third message now: once that is no longer so, `turns` is not needed.
    assert pushing.is_alive() == mended
    assert device.sent == [10]
    device.answer(wanted, 20)
    pushing.join(10.0)
    assert device.sent == ([10, 20] if mended else [10])


def test_what_a_message_that_was_given_up_brought_is_gone():
    device = Device(mended=True)
    given_up = device.pull(1, RunNotRunningException())
    assert not device.state.get_messages_legacy(is_reply=False)
    assert device.store.get(given_up.object_id) is None


def test_nothing_else_changes():
    device = Device(mended=True)
    for number in (1, 2):
        message = device.pull(number)
        assert [m.object_id for m in device.state.get_messages_legacy(is_reply=False)] == [message.object_id]
        device.answer(message, 10 * number)
        device.push().join(10.0)
        device.pull_nothing()
    assert device.sent == [10, 20]
