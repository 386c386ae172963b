"""`fedsieve join`: check, start the SuperNode, watch it, start it again, until told to end."""

import os
import queue
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from client.node_file import EPSILON_BUDGET, SMALLEST, SUMS_ONLY, NodeFile, read_node_file
from client.recording import Recorder
from client.vault.keys import ENVIRONMENT_KEY
from deployment.join.backoff import Backoff
from deployment.join.checks import Owner, claim_state, joined
from deployment.join.connection import Answer, ask_server, own_flower
from deployment.join.data import DataFound, check_data
from deployment.join.ending import READMISSION_SECONDS, Admission, explain_end, has_left
from deployment.join.flower_log import Said, Sign
from deployment.join.places import Places, Remembered, remembered_vault
from deployment.join.process import SuperNode, SuperNodeSettings, remove_credentials
from deployment.join.recording import FORM, record_connections, recording_file
from deployment.join.report import Reporter
from deployment.join.settings import JoinSettings
from deployment.join.vault_choice import VaultChoice, make_missing_key, open_state
from deployment.join.watch import StateWatcher
from personalization.errors import UserError
from personalization.system.extras import check_adapters
from personalization.wire.codes import ClientFailure, failure_name

_TICK_SECONDS = 1.0
_STOP = object()
_UNUSABLE = failure_name(ClientFailure.DATA_UNUSABLE)


@dataclass(frozen=True, kw_only=True)
class Ready:
    """A device that passed every check. environment: of the SuperNode's processes."""

    node: NodeFile
    state: Path
    vault: VaultChoice
    owner: Owner
    supernode: SuperNodeSettings


def join(settings: JoinSettings, report: Reporter, *, environment: Mapping[str, str], backoff: Backoff) -> None:
    """Take part in the fleet until SIGTERM or SIGINT. Raises UserError for what somebody has to mend, OSError."""
    node = read_node_file(settings.node_file)
    places = Places.of(environment)
    state = (settings.state or places.state(node)).absolute()
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.chmod(state, 0o700)
    with joined(state):
        ready = _prepare(settings, node, state, places, report, environment)
        if ready.supernode.recording is not None:
            record_connections(Recorder(ready.supernode.recording, form=FORM, server=node.server))
            report.tell("recording", f"all that is sent is kept in {ready.supernode.recording}")
        reachable = _ask(node, report)
        try:
            _Loop(ready, report, backoff, lost=not reachable).run()
        finally:
            remove_credentials(state)


def _prepare(
    settings: JoinSettings,
    node: NodeFile,
    state: Path,
    places: Places,
    report: Reporter,
    environment: Mapping[str, str],
) -> Ready:
    """Check everything that is on the device, and make what is missing. Raises UserError, OSError."""
    data, found = settings.data.absolute(), check_data(settings.data)
    settings.check_data(found, data)
    if settings.adapters:
        check_adapters()
    owner = claim_state(state, node)
    vault = settings.vault or remembered_vault(state, places) or _default_vault(node, places, environment)
    if make_missing_key(state, vault):
        report.tell("key", f"new vault key in {vault.name}: keep a copy of it elsewhere", file=vault.name)
    open_state(state, vault, environment)
    Remembered(state=str(state.resolve()), vault=vault).save(places.settings_file(node))
    _tell_ready(report, node, found, data)
    report.tell("state", f"state {state}: {vault.describe()}", state=str(state), vault=vault.source)
    report.tell("privacy", settings.privacy, sums_only=settings.sums_only, smallest_cohort=settings.smallest_cohort)
    supernode = SuperNodeSettings(
        node=node,
        state=state,
        home=places.flower(node),
        node_config=node_config(settings, node, state, vault),
        environment=vault.environment(environment),
        recording=None if settings.record is None else recording_file(settings.record, node.name),
    )
    return Ready(node=node, state=state, vault=vault, owner=owner, supernode=supernode)


def node_config(settings: JoinSettings, node: NodeFile, state: Path, vault: VaultChoice) -> dict[str, str | float]:
    """Return what the ClientApp of a device that joined is told: Flower's node configuration."""
    return {
        "data-dir": str(settings.data.absolute()),
        "state-dir": str(state),
        "node-file": str(settings.node_file.absolute()),
        "client-name": node.name,
        SMALLEST: settings.smallest_cohort,
        **vault.node_config(),
        **({SUMS_ONLY: "true"} if settings.sums_only else {}),
        **settings.own(),
        **({} if settings.epsilon_budget is None else {EPSILON_BUDGET: settings.epsilon_budget}),
    }


def _tell_ready(report: Reporter, node: NodeFile, found: DataFound, data: Path) -> None:
    line = f"{node.name} of fleet {node.fleet}: {found.describe()} in {data}"
    report.tell("ready", line, data=str(data), **{"images" if found.task == "image" else "files": found.count})


def _default_vault(node: NodeFile, places: Places, environment: Mapping[str, str]) -> VaultChoice:
    if environment.get(ENVIRONMENT_KEY):
        return VaultChoice(source="environment")
    return VaultChoice(source="file", name=str(places.key_file(node)))


def _ask(node: NodeFile, report: Reporter) -> bool:
    """Look at the server, say what is the matter, and return whether it answers. Raises UserError if it stays so."""
    found = ask_server(node)
    if not isinstance(found, Answer):
        report.tell(
            "unreachable", f"{node.server} cannot be reached yet ({found.reason}); trying on", server=node.server
        )
        return False
    found.check_flower(own_flower())
    line = found.clock_line()
    if line is not None:
        report.tell("clock", f"warning: {line}", ahead=found.clock_ahead)
    return True


class _Loop:
    """Starts SuperNodes one after the other and passes on what they and the state say."""

    def __init__(self, ready: Ready, report: Reporter, backoff: Backoff, *, lost: bool) -> None:
        self._ready, self._report, self._backoff = ready, report, backoff
        self._owner = ready.owner
        self._admission = Admission()
        self._queue: queue.SimpleQueue[Said | object] = queue.SimpleQueue()
        self._watcher = StateWatcher(
            ready.state, lambda: open_state(ready.state, ready.vault, ready.supernode.environment)
        )
        self._stopping, self._lost = False, lost
        self._personalized, self._answering, self._useless = False, False, ""

    def run(self) -> None:
        """Go on until told to end.

        Raises UserError when the server does not take this device, or its data are of no use for a plan, OSError.
        """
        with _stop_signals(self._queue):
            while not self._stopping:
                wait = self._once()
                if wait is not None:
                    self._pause(wait)
        self._note_online(False)
        self._report.tell("ended", "ended")

    def _once(self) -> float | None:
        """Run one SuperNode to its end; return the seconds to wait before the next, None if there is to be none."""
        try:
            node = SuperNode(self._ready.supernode, self._queue.put)
        except OSError as error:  # a full disk is not full for ever
            wait = self._backoff.next()
            self._report.tell("restarting", f"cannot start ({error}); again in {wait:.0f} s", seconds=round(wait, 1))
            return wait
        self._answering = False
        try:
            code = self._accompany(node)
        finally:
            last = node.stop()
        self._drain()
        if self._stopping:
            return None
        return self._ended(node, last if code is None else code)

    def _accompany(self, node: SuperNode) -> int | None:
        """Pass on what happens until the process ends, whose exit code is returned, or this one is told to end."""
        while not self._stopping and node.poll() is None:
            self._take(_TICK_SECONDS)
            self._look()
            self._end_if_useless()
        return node.poll()

    def _end_if_useless(self) -> None:
        """Raise UserError once the server was told that the data cannot be used, unless they have been before.

        Data that were good once may be so again, and nobody may be near to start this device anew.
        """
        if self._useless and not self._personalized and not self._answering:
            raise UserError(self._useless)

    def _ended(self, node: SuperNode, code: int) -> float:
        """Say why a SuperNode ended on its own; return the seconds to wait before the next. Raises UserError."""
        online, words = self._owner.online, node.last_words()
        if has_left(code, self._ready.node):
            self._note_online(False)
        end = explain_end(words, code, node=self._ready.node, online=online and code != 0, admission=self._admission)
        wait = self._backoff.next(longest=READMISSION_SECONDS if words.refused else None)
        self._report.tell("restarting", f"{end}; again in {wait:.0f} s", exit_code=code, seconds=round(wait, 1))
        return wait

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._stopping and (left := end - time.monotonic()) > 0:
            self._take(min(left, _TICK_SECONDS))

    def _drain(self) -> None:
        while not self._queue.empty():
            self._take(0.0)
        self._look()

    def _take(self, seconds: float) -> None:
        try:
            found = self._queue.get(timeout=seconds) if seconds else self._queue.get_nowait()
        except queue.Empty:
            return
        if isinstance(found, Said):
            self._hear(found)
        else:
            self._stopping = True

    def _hear(self, said: Said) -> None:
        server = self._ready.node.server
        match said.sign:
            case Sign.CONNECTED:
                self._note_online(True)
                self._admission.reset()
                self._backoff.reset()
                self._back("connected", f"connected to {server}")
            case Sign.RECONNECTED:
                if self._lost and self._owner.online:
                    self._back("reconnected", f"connected to {server} again")
            case Sign.LOST:
                if not self._lost:
                    self._lost = True
                    self._report.tell("disconnected", f"{server} cannot be reached; trying on", server=server)
            case Sign.RECEIVED:
                self._answering = True
                self._report.tell("received", "a message of the server's arrived; working on it")
            case Sign.SENT:
                self._answering = False
                self._report.tell("sent", "answered: sparsity statistics, or a failure's code")

    def _back(self, name: str, line: str) -> None:
        self._lost = False
        self._report.tell(name, line, server=self._ready.node.server)

    def _look(self) -> None:
        try:
            for event in self._watcher.news():
                self._report.show(event)
                self._personalized |= event.name == "personalized"
                if event.name == "failed":
                    self._useless = event.line if event.facts["code"] == _UNUSABLE else ""
        except UserError as error:
            self._report.tell("state", f"warning: {error}")

    def _note_online(self, online: bool) -> None:
        try:
            self._owner = self._owner.with_online(online, self._ready.state)
        except OSError as error:
            self._report.tell("state", f"warning: {self._ready.state} cannot be written ({error.strerror})")


@contextmanager
def _stop_signals(events: "queue.SimpleQueue[Said | object]") -> Iterator[None]:
    """Put the word to stop into `events` at SIGTERM and SIGINT; a second one does no more than the first."""

    def stop(number: int, frame: FrameType | None) -> None:
        events.put(_STOP)

    before: dict[int, Callable[..., object] | int | None] = {
        number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
