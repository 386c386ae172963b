"""Keep what simulated clients send and are sent, as bytes, in the folder of the run."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flwr.proto.message_pb2 import Message as EncodedMessage

from client.recording import SUFFIX, Recorder
from strategies.protocol import PLAN, SECURE

FOLDER = "recording"
FILE = f"fleet{SUFFIX}"
FORM = "messages"
_KEPT = frozenset({PLAN, SECURE})


class FleetRecording:
    """Records a fleet; what goes down is kept without the backbone, which is the same for all."""

    def __init__(self, recorder: Recorder) -> None:
        """Take the open recording."""
        self._recorder = recorder

    def down(self, client: int, raw: bytes) -> None:
        """Keep what a message asks a client for. Raises OSError."""
        message = EncodedMessage.FromString(raw)
        kept = [item for item in message.content.items if item.key in _KEPT]
        del message.content.items[:]
        message.content.items.extend(kept)
        self._recorder.down(message.SerializeToString(), channel=client, whole=len(raw))

    def up(self, client: int, raw: bytes) -> None:
        """Keep a message from a client. Raises OSError."""
        self._recorder.up(raw, channel=client)


@contextmanager
def recorded(out: Path | None) -> Iterator[FleetRecording | None]:
    """Record into the folder of a run while the context lasts; None records nothing. Raises OSError."""
    if out is None:
        yield None
        return
    recorder = Recorder(out / FOLDER / FILE, form=FORM)
    try:
        yield FleetRecording(recorder)
    finally:
        recorder.close()
