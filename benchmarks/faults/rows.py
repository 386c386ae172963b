"""The faults of the table: what is hit, when, and how."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from benchmarks.faults.fleet import (
    CLIENT_APP,
    DEVICES,
    PROXY,
    SERVER,
    SERVER_APP,
    SUPERLINK,
    SUPERNODE,
    FaultError,
    FaultFleet,
)
from benchmarks.faults.watch import Watch
from client.entries import BACKBONE
from client.state import ClientState
from personalization.wire.codes import ClientError

PROCESSES = {
    "SuperLink": SUPERLINK,
    "proxy": PROXY,
    "ServerApp": SERVER_APP,
    "SuperNode": SUPERNODE,
    "ClientApp": CLIENT_APP,
}
SIGNALS = {"kill -9": signal.SIGKILL, "SIGTERM": signal.SIGTERM}
PHASES = ("enrolment", "download", "probing", "pruning", "upload", "aggregation")
# Combinations that there are not: the process does not run then.
ABSENT = {("ClientApp", "enrolment"), ("ClientApp", "aggregation")}
HIT = DEVICES[0]
CUT_SECONDS, CLOCK_SECONDS, FULL_SECONDS = 90.0, 600.0, 30.0
Seconds = tuple[float, float]


@dataclass(frozen=True)
class Fault:
    """A row. run: does it, and returns the seconds to the next round and to the next one with every device."""

    name: str
    title: str
    run: Callable[[FaultFleet, Watch], Seconds]
    needs_small_disks: bool = False


def crash(fleet: FaultFleet, watch: Watch, *, process: str, number: signal.Signals, phase: str) -> Seconds:
    """Send a signal to a process while the fleet is in a phase. Raises FaultError."""
    name, point = _point(process, phase)
    fleet.arm(name, point)
    if phase in ("enrolment", "download"):
        # A SuperNode that has run for long may still hold the weights of an earlier message, and downloads none.
        fleet.end(HIT)
        if phase == "download":
            change_when_free(fleet.opened(HIT))
        fleet.join(HIT)
    caught = fleet.caught(name, point)
    victim = caught if _is_kind(fleet, caught, process) else _find(fleet, process)
    watch.restart_clock()
    os.kill(victim, number)
    if victim != caught or number != signal.SIGKILL:
        os.kill(caught, signal.SIGCONT)
    fleet.wait(lambda: not _lives(victim), f"the end of {process}", patience=60)
    return watch.recovered()


def full_device(fleet: FaultFleet, watch: Watch) -> Seconds:
    """Fill the disk that holds a device's state, let rounds come, and make room again."""
    filler = fleet.state(HIT) / "filler"
    fill(filler)
    fleet.wait(lambda: any(event["event"] == "disk" for event in watch.events(HIT)), "the device to notice")
    time.sleep(FULL_SECONDS)
    filler.unlink()
    watch.restart_clock()
    return watch.recovered()


def full_server(fleet: FaultFleet, watch: Watch) -> Seconds:
    """Fill the disk that holds the server's state, wait, and make room again."""
    filler = fleet.server_state / "filler"
    fill(filler)
    time.sleep(FULL_SECONDS)
    filler.unlink()
    watch.restart_clock()
    return watch.recovered()


def cut_network(fleet: FaultFleet, watch: Watch) -> Seconds:
    """Cut the network for 90 seconds while a device probes."""
    fleet.arm(HIT, "probing")
    caught = fleet.caught(HIT, "probing")
    with fleet.network.cut():
        os.kill(caught, signal.SIGCONT)
        time.sleep(CUT_SECONDS)
    watch.restart_clock()
    return watch.recovered()


def clock_at_start(fleet: FaultFleet, watch: Watch) -> Seconds:
    """Start a device with its clock 10 minutes ahead, wait until it says so, and set the clock."""
    fleet.end(HIT)
    fleet.set_clock(HIT, CLOCK_SECONDS)
    fleet.join(HIT, clock=True)
    fleet.wait(lambda: any(event["event"] == "clock" for event in watch.events(HIT)), "the device to notice")
    return _set_clock(fleet, watch)


def clock_jumps(fleet: FaultFleet, watch: Watch) -> Seconds:
    """Move the clock of a running device 10 minutes back, wait until it says so, and set it."""
    fleet.end(HIT)
    fleet.set_clock(HIT, 0.0)
    fleet.join(HIT, clock=True)
    watch.restart_clock()
    watch.recovered()
    fleet.set_clock(HIT, -CLOCK_SECONDS)
    told = ("clock", "disconnected", "restarting")
    fleet.wait(lambda: any(event["event"] in told for event in watch.events(HIT)), "the device to notice")
    return _set_clock(fleet, watch)


def _set_clock(fleet: FaultFleet, watch: Watch) -> Seconds:
    time.sleep(FULL_SECONDS)
    fleet.set_clock(HIT, 0.0)
    watch.restart_clock()
    return watch.recovered()


def slow_client(fleet: FaultFleet, watch: Watch) -> Seconds:
    """Let a device stand still while it probes, until its round has ended without it and a little longer."""
    before = len(fleet.rounds())
    fleet.arm(HIT, "probing")
    caught = fleet.caught(HIT, "probing")
    fleet.wait(lambda: any(r["clients_replied"] < len(DEVICES) for r in fleet.rounds()[before:]), "the deadline")
    time.sleep(5.0)
    os.kill(caught, signal.SIGCONT)
    watch.restart_clock()
    return watch.recovered()


def lost_cache(fleet: FaultFleet, watch: Watch) -> Seconds:
    """Take away the generic layers that the server believes a device has."""
    before = len(fleet.rounds())
    change_when_free(fleet.opened(HIT))
    watch.restart_clock()
    return _sent_again(fleet, watch, before)


def altered_cache(fleet: FaultFleet, watch: Watch) -> Seconds:
    """Change a byte of the generic layers that the server believes a device has."""
    before = len(fleet.rounds())
    path = max((fleet.state(HIT) / "vault").glob("*.sealed"), key=lambda file: file.stat().st_size)
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    watch.restart_clock()
    return _sent_again(fleet, watch, before)


def _sent_again(fleet: FaultFleet, watch: Watch, before: int) -> Seconds:
    fleet.wait(lambda: any(r["first_contacts"] for r in fleet.rounds()[before:]), "the layers to be sent again")
    return watch.recovered(after=before)


def change_when_free(state: ClientState) -> None:
    """Remove the cached layers from a device's state as soon as no client works on it. Raises FaultError."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            state.change({BACKBONE: None})
            return
        except ClientError:
            time.sleep(0.05)
    raise FaultError(f"{state.folder} is always being written")


def fill(path: os.PathLike[str]) -> None:
    """Write to a file until the disk is full."""
    with open(path, "wb", buffering=0) as file:
        for size in (1 << 16, 1 << 10, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


def _point(process: str, phase: str) -> tuple[str, str]:
    """Return whose process is caught where. A ClientApp of its own is in download and upload only later or earlier."""
    if phase == "aggregation":
        return SERVER, phase
    own = {"download": "storing", "upload": "answering"} if process == "ClientApp" else {}
    return HIT, own.get(phase, phase)


def _find(fleet: FaultFleet, process: str) -> int:
    name = HIT if process in ("SuperNode", "ClientApp") else SERVER
    found = fleet.running(PROCESSES[process], name)
    if len(found) != 1:
        raise FaultError(f"{len(found)} processes of {process}, expected 1")
    return found[0][0]


def _is_kind(fleet: FaultFleet, pid: int, process: str) -> bool:
    return pid in (found for found, _ in fleet.running(PROCESSES[process]))


def _lives(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def _crashes() -> list[Fault]:
    return [
        Fault(
            f"{'kill' if number == signal.SIGKILL else 'term'}-{process.lower()}-{phase}",
            f"{word} {process} | {phase}",
            partial(crash, process=process, number=number, phase=phase),
        )
        for phase in ("probing", "upload", "download", "aggregation", "pruning", "enrolment")
        for word, number in SIGNALS.items()
        for process in PROCESSES
        if (process, phase) not in ABSENT
    ]


FAULTS: tuple[Fault, ...] = (
    Fault("lost-cache", "a client lies: its cached layers are gone | idle", lost_cache),
    Fault("altered-cache", "a client lies: a byte of its cached layers changed | idle", altered_cache),
    Fault("full-device", "full disk of a device | 30 s and more", full_device, needs_small_disks=True),
    Fault("full-server", "full disk of the server | 30 s", full_server, needs_small_disks=True),
    Fault("cut-network", "network cut for 90 s | probing", cut_network),
    Fault("slow-client", "a client slower than the deadline | probing", slow_client),
    Fault("clock-at-start", "a device's clock 10 minutes ahead | enrolment", clock_at_start),
    Fault("clock-jumps", "a device's clock goes 10 minutes back | running", clock_jumps),
    *_crashes(),
)
