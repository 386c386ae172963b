import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from deployment.serve.processes import Supervised, end_marked, marked_processes

PATIENCE = 20.0


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def child(tmp_path):
    # It writes its own id and that of a child in a session of its own, and sleeps.
    code = (
        "import os, subprocess, sys, time; "
        "deep = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True); "
        f"open({str(tmp_path / 'ids')!r} + '.new', 'w').write(f'{{os.getpid()}} {{deep.pid}}'); "
        f"os.rename({str(tmp_path / 'ids')!r} + '.new', {str(tmp_path / 'ids')!r}); time.sleep(600)"
    )
    marked = {"FEDSIEVE_TEST": str(tmp_path)}
    child = Supervised("sleeper", [sys.executable, "-c", code], tmp_path / "sleeper.log", marked)
    yield child
    child.stop(patience=1.0)
    end_marked(f"FEDSIEVE_TEST={tmp_path}")


def started(child: Supervised, folder: Path) -> tuple[int, int]:
    (folder / "ids").unlink(missing_ok=True)
    child.start()
    wait_for((folder / "ids").exists)
    process, deep = map(int, (folder / "ids").read_text().split())
    return process, deep


def test_one_that_dies_is_started_again_after_a_wait(child, tmp_path):
    process, _ = started(child, tmp_path)
    assert (child.state, child.process_id, child.tick()) == ("up", process, None)
    os.kill(process, signal.SIGKILL)
    wait_for(lambda: child.state == "down")
    assert "ended by itself (signal 9)" in child.tick()
    assert child.state == "restarting"
    wait_for(child.tick)
    assert (child.state, child.restarts) == ("up", 1)
    assert child.process_id != process


def test_one_that_dies_at_once_waits_longer_each_time(tmp_path):
    child = Supervised(
        "broken", [sys.executable, "-c", "print('no such thing'); raise SystemExit(3)"], tmp_path / "log"
    )
    child.start()
    waits = []
    for _ in range(2):
        wait_for(lambda: child.state == "down")
        line = child.tick()
        assert "exit code 3" in line
        waits.append(float(line.split(" in ")[1].split()[0]))
        wait_for(child.tick)
    assert waits[1] > waits[0]
    wait_for(lambda: child.state == "down")
    assert child.last_line() == "no such thing"
    child.stop()
    assert child.state == "down"


def test_what_hides_in_a_session_of_its_own_is_found_by_its_mark(child, tmp_path):
    process, deep = started(child, tmp_path)
    marker = f"FEDSIEVE_TEST={tmp_path}"
    assert set(marked_processes(marker)) == {process, deep}
    child.stop(patience=1.0)
    assert marked_processes(marker) == [deep]
    assert end_marked(marker) == 1
    assert marked_processes(marker) == []


def test_a_log_does_not_grow_for_ever(child, tmp_path):
    started(child, tmp_path)
    child.log.write_bytes(b"x" * ((16 << 20) + 1))
    child.tick()
    assert child.log.stat().st_size == 0
    assert (tmp_path / "sleeper.log.1").stat().st_size == (16 << 20) + 1
