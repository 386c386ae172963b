"""The loop of `fedsieve serve`: processes up, devices as the record says, runs when they are due, until a signal."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

from deployment.certificates import read_certificate, utc_now
from deployment.fleet import AUTHORITY, SERVER, Fleet, format_address, read_fleet
from deployment.serve.bundle import build_bundle
from deployment.serve.checks import check_model, check_ports, check_start
from deployment.serve.children import PROXY, STATUS, SUPERLINK, proxy, status_page, superlink
from deployment.serve.control import Control, ControlError
from deployment.serve.privacy import Sums
from deployment.serve.processes import end_marked
from deployment.serve.record import ServeRecord, earlier_runs, time_text
from deployment.serve.registration import NodeCounts, reconcile
from deployment.serve.runs import Runs, StuckError, is_unfinished
from deployment.serve.schedule import Schedule
from deployment.serve.settings import ServeSettings
from deployment.serve.state import StateFolder, open_state
from personalization.errors import UserError

_TICK_SECONDS = 0.5
_NODES_SECONDS = 3.0
_RECORD_SECONDS = 4.0
_START_SECONDS = 60.0
_STOP_RUN_SECONDS = 10.0
_EXPIRY_WARNING = timedelta(days=30)

Say = Callable[[str], None]


def serve(settings: ServeSettings, say: Say) -> int:
    """Serve a fleet until SIGTERM or SIGINT, or the end of a single run; return the exit code.

    say: takes a line for everything worth a log. Raises UserError if it can't start; then nothing of it runs.
    """
    fleet = check_start(settings)
    with open_state(settings.state) as state, _stop_signals() as stop:
        left = end_marked(state.marker)
        if left:
            say(f"ended {left} processes that an earlier server has left")
        check_ports(settings)
        check_model(settings, fleet)
        say(f"fleet {fleet.fleet} at {fleet.server}; state in {state.path}")
        sums = Sums(settings, len(fleet.active))
        for line in sums.lines():
            say(line)
        with contextlib.ExitStack() as cleanup:
            service = Service(sums.resolved(), state, fleet, say, stop)
            cleanup.callback(service.close)
            return service.run()


class Service:
    """A server that is up. See `serve`."""

    def __init__(
        self, settings: ServeSettings, state: StateFolder, fleet: Fleet, say: Say, stop: threading.Event
    ) -> None:
        """Prepare everything and start nothing. Raises UserError, OSError."""
        self._settings, self._state, self._fleet, self._say, self._stop = settings, state, fleet, say, stop
        now = utc_now()
        records = earlier_runs(state.record)
        last = datetime.fromisoformat(records[-1].started) if records else None
        schedule = Schedule.begin(settings.every, now=now, last_start=last, unfinished=is_unfinished(state.run))
        self._runs = Runs(build_bundle(settings.run_config()), state.run, schedule, records, say)
        state.write_connection(settings.superlink_port, settings.fleet / AUTHORITY)
        page = status_page(settings, state)
        self._children = {
            SUPERLINK: superlink(settings, state),
            PROXY: proxy(settings, state),
            **({} if page is None else {STATUS: page}),
        }
        self._control = Control(settings.superlink_port, settings.fleet / AUTHORITY)
        self._record = ServeRecord(
            fleet=fleet.fleet,
            server=fleet.server,
            started=time_text(now),
            settings=settings.public(),
            nodes=NodeCounts(len(fleet.active), len(fleet.revoked), 0),
            runs=records,
        )
        self._complaint = ""
        self._nodes_at = self._record_at = 0.0

    def run(self) -> int:
        """Start the processes and keep the fleet going; return the exit code. Raises UserError if one can't start."""
        self._warn_of_expiry()
        self._write("starting")
        for name in (SUPERLINK, STATUS):
            if name in self._children:
                self._children[name].start()
        self._await_superlink()
        if not self._stop.is_set():
            # Only now: a device that is refused because it is not registered yet takes that for final.
            self._children[PROXY].start()
            self._await_proxy()
        if not self._stop.is_set():
            host = format_address(self._settings.host, self._settings.port)
            self._say(f"ready: devices may connect at {host}" + self._status_text())
        while not self._stop.is_set():
            if (code := self._tick()) is not None:
                return code
            self._stop.wait(_TICK_SECONDS)
        return 0

    def close(self) -> None:
        """End the run under way and all processes; what is stopped here goes on with the next start."""
        self._say("stopping")
        self._write("stopping")
        with contextlib.suppress(ControlError):
            self._end_run()
        if self._runs.current is not None:
            self._runs.end(utc_now(), "stopped", "the server was stopped")
        self._control.close()
        self._children[PROXY].stop(patience=5.0)
        self._children[SUPERLINK].stop()
        self._write("stopping")
        if STATUS in self._children:
            self._children[STATUS].stop(patience=5.0)
        end_marked(self._state.marker)
        self._write("stopping")
        self._say("stopped")

    def _tick(self) -> int | None:
        """Do what is due now; return an exit code if that was all."""
        changed = False
        for child in self._children.values():
            if line := child.tick():
                self._say(line)
                changed = True
        if self._children[SUPERLINK].state == "up":
            try:
                self._update_nodes()
                changed |= self._runs.tick(self._control, utc_now())
                self._complaint = ""
            except ControlError as error:
                self._complain(f"the SuperLink does not answer: {error}")
            except StuckError:
                self._restart_superlink()
        self._write("idle" if self._runs.current is None else "running", always=changed)
        return self._exit_code() if self._settings.once and self._runs.current is None else None

    def _restart_superlink(self) -> None:
        self._say("superlink: carries out no runs; starting it again")
        with contextlib.suppress(ControlError):
            self._end_run()
        self._runs.end(utc_now(), "failed", "no process has taken it on")
        self._children[SUPERLINK].stop()  # what it has started ends when it does

    def _exit_code(self) -> int | None:
        schedule = self._runs.schedule
        if schedule.hopeless:
            self._say(f"given up after {schedule.failures} runs without a round done")
            return 1
        if schedule.due is not None:
            return None
        return 0 if self._runs.records[-1].state == "completed" else 1

    def _update_nodes(self) -> None:
        now = time.monotonic()
        if now < self._nodes_at:
            return
        self._nodes_at = now + _NODES_SECONDS
        try:
            self._fleet = read_fleet(self._settings.fleet)
        except (UserError, OSError) as error:
            self._complain(f"the fleet stays as it was: {error}")
        self._record.nodes = reconcile(self._fleet, self._control, self._say)

    def _await_superlink(self) -> None:
        """Return as soon as the SuperLink answers. Raises UserError if it ends or takes too long."""
        child, end = self._children[SUPERLINK], time.monotonic() + _START_SECONDS
        while not self._stop.is_set():
            try:
                self._update_nodes()
                for run in self._control.unfinished_runs():
                    # Left by a server that was killed: taken up now, it would write the journal beside the next run.
                    self._control.stop_run(run)
                return
            except ControlError:
                self._nodes_at = 0.0
            if child.state != "up" or time.monotonic() > end:
                raise UserError(f"the SuperLink does not start: {child.last_line()}; its log is {child.log}")
            self._stop.wait(0.1)

    def _await_proxy(self) -> None:
        child, path = self._children[PROXY], self._state.proxy / "nginx.pid"
        while not self._stop.is_set() and not (path.exists() and path.read_text().strip() == str(child.process_id)):
            if child.state != "up":
                raise UserError(f"nginx does not start: {child.last_line()}; its log is {child.log}")
            self._stop.wait(0.05)

    def _end_run(self) -> None:
        run = self._runs.current
        if run is None or self._children[SUPERLINK].state != "up":
            return
        self._control.stop_run(int(run.run_id))
        end = time.monotonic() + _STOP_RUN_SECONDS
        while time.monotonic() < end:
            status = self._control.run_status(int(run.run_id))
            if status is None or status.finished:
                return
            time.sleep(0.1)

    def _write(self, phase: str, *, always: bool = True) -> None:
        now = time.monotonic()
        if not always and phase == self._record.phase and now < self._record_at:
            return
        self._record_at = now + _RECORD_SECONDS
        self._record.phase, self._record.runs = phase, self._runs.records
        self._record.processes = {n: {"state": c.state, "restarts": c.restarts} for n, c in self._children.items()}
        due = self._runs.schedule.due
        self._record.next_run = None if due is None or phase == "stopping" else time_text(due)
        try:
            self._record.write(self._state.record, utc_now())
        except OSError as error:
            self._complain(f"{self._state.record}: {error.strerror}")

    def _complain(self, text: str) -> None:
        """Say what goes wrong once, not every time that it is tried."""
        if text != self._complaint:
            self._say(text)
        self._complaint = text

    def _status_text(self) -> str:
        page = self._settings.status
        return "" if page is None else f"; status page at http://{format_address(*page)}"

    def _warn_of_expiry(self) -> None:
        left = read_certificate(self._settings.fleet / SERVER).not_valid_after_utc - utc_now()
        if left < _EXPIRY_WARNING:
            self._say(
                f"warning: the server's certificate is valid for {left.days} more days; "
                f"fedsieve enroll {self._settings.fleet} --renew server, then start this server again"
            )


@contextlib.contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """Return what SIGTERM and SIGINT set, instead of ending the process."""
    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
