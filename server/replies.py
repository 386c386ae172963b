"""Which of the messages that come in are replies to what was asked; the others are dropped, with a count by reason."""

from collections import Counter
from collections.abc import Iterable

from flwr.app import Message
from flwr.common.constant import SUPERLINK_NODE_ID

NOT_ASKED, TWICE, OTHER_MESSAGE, LATE = "reply_not_asked", "reply_twice", "reply_other_message", "reply_late"
# A reply says itself when it was made, by its device's clock; Flower's node signatures bear with as much.
_CLOCK_SECONDS = 300.0


class Asked:
    """The messages of one exchange, one a node. dropped: how many messages were no replies to them, by reason."""

    def __init__(self, messages: Iterable[Message]) -> None:
        """Take the messages; they need not have ids yet, since a grid may give them as it sends."""
        self._messages = {message.metadata.dst_node_id: message for message in messages}
        self._answered: set[int] = set()
        self.dropped: Counter[str] = Counter()

    def node_of(self, reply: Message) -> int | None:
        """Return the node that has answered with this, None for what is to be dropped, and is counted."""
        found = self._judge(reply)
        if isinstance(found, str):
            self.dropped[found] += 1
            return None
        self._answered.add(found)
        return found

    def _judge(self, reply: Message) -> int | str:
        node, answers = reply.metadata.src_node_id, reply.metadata.reply_to_message_id
        if node == SUPERLINK_NODE_ID and node not in self._messages and reply.has_error():
            # What Flower says in the place of a node that is lost.
            ids = {message.metadata.message_id: lost for lost, message in self._messages.items()}
            node = ids.get(answers, node)
        if node not in self._messages:
            return NOT_ASKED
        request = self._messages[node].metadata
        if answers != request.message_id:
            return OTHER_MESSAGE
        if node in self._answered:
            return TWICE
        late = reply.metadata.created_at > request.created_at + request.ttl + _CLOCK_SECONDS
        return LATE if late else node
