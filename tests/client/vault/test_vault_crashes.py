"""Processes that are killed while they write: what stood there before or what was to stand there is found."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from vaults import Place

from client.vault.lock import StateLock
from personalization.errors import UserError

ROOT = Path(__file__).parents[3]
# Kills itself at the n-th time that it opens, renames, removes or makes something in the state or with the key.
KILLED_AT = """
import os, signal, sys
from client.vault.vault import Vault
from client.vault.access import find_access
from client.vault.lock import StateLock
from pathlib import Path
state, key, verb, at = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
vault = Vault(state / "vault", find_access({"vault-key-file": key}, {}), lock=StateLock(state), report=print)
places, seen = (str(state), key), 0
def hook(event, arguments):
    global seen
    if event in ("open", "os.rename", "os.remove", "os.mkdir") and str(arguments[0]).startswith(places):
        seen += 1
        if seen > at:
            os.kill(os.getpid(), signal.SIGKILL)
def run():
    vault.reseal() if verb == "reseal" else vault.change({"a": b"new", "b": b"new", "c": None})
while True:
    child = os.fork()
    if child == 0:
        sys.addaudithook(hook)
        run()
        os._exit(0)
    print(os.waitpid(child, 0)[1], flush=True)
    if not sys.stdin.readline():
        break
    at += 1
"""
WRITER = """
import sys
from client.vault.vault import Vault
from client.vault.access import find_access
from client.vault.lock import StateLock
from pathlib import Path
state, key = Path(sys.argv[1]), sys.argv[2]
vault = Vault(state / "vault", find_access({"vault-key-file": key}, {}), lock=StateLock(state), report=print)
if not vault.generation:  # on a slow machine this one alone may take longer than the writer lives
    vault.change({"a": b"1", "b": b"1" * 1000})
print("ready", flush=True)
number = vault.generation
while True:
    number += 1
    vault.change({"a": b"%d" % number, "b": b"%d" % number * 1000})
    if number % 7 == 0:
        vault.reseal()
"""
HOLDER = """
import sys, time
from client.vault.lock import StateLock
from pathlib import Path
with StateLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("verb", ["change", "reseal"])
def test_killed_at_any_step_the_vault_is_the_old_or_the_new_one(place, verb):
    old, new = {"a": b"old", "b": b"old", "c": b"old"}, {"a": b"new", "b": b"new"}
    allowed = [old, new] if verb == "change" else [old]
    place.open().change(old)
    place.copy("then")
    keys = {path.name: path.read_bytes() for path in place.keys.iterdir()}
    killed, outcomes = 0, set()
    with start(KILLED_AT, place.state, place.key_file, verb, 0) as process:
        while True:
            status = int(process.stdout.readline())
            found = place.contents()
            assert found in allowed
            assert place.lines == []
            outcomes.add((found == new, place.key_file.read_bytes() == keys["key"]))
            vault = place.open()
            if verb == "reseal":
                vault.reseal()
            else:
                vault.change({"d": found["a"]})
                found["d"] = found["a"]
            assert place.contents() == found
            assert len(place.files()) == len(vault.names()) + 2
            if status == 0:
                break
            assert status == signal.SIGKILL
            killed += 1
            place.put_back("then")
            for path in place.keys.iterdir():
                path.unlink()
            for name, data in keys.items():
                (place.keys / name).write_bytes(data)
                (place.keys / name).chmod(0o600)
            process.stdin.write("next\n")
            process.stdin.flush()
        process.stdin.close()
    assert killed > 15
    assert len(outcomes) == 2


def test_killed_at_random_moments_entries_of_one_change_stay_together(place):
    rng, last = random.Random(0), 0
    for _ in range(6):
        with start(WRITER, place.state, place.key_file) as process:
            assert process.stdout.readline() == "ready\n"
            time.sleep(rng.uniform(0.005, 0.1))
            process.kill()
        found = place.contents()
        number = int(found.get("a", 0))
        assert found.get("b", b"") == (b"%d" % number * 1000 if number else b"")
        assert number >= last
        last = number
    assert place.lines == []
    assert last > 0


def test_a_second_process_may_not_write_until_the_first_is_dead(place):
    vault = place.open()
    vault.change({"a": b"1"})
    with start(HOLDER, place.state) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="another process is writing here"):
            vault.change({"a": b"2"})
        with pytest.raises(UserError, match="another process is writing here"):
            vault.reseal()
        assert place.contents() == {"a": b"1"}
        os.kill(process.pid, signal.SIGKILL)
    vault.change({"a": b"2"})
    assert place.contents() == {"a": b"2"}


def test_a_lock_is_entered_again_by_its_holder_and_by_nobody_else(tmp_path):
    lock, other = StateLock(tmp_path), StateLock(tmp_path)
    with lock, lock:
        with pytest.raises(UserError), other:
            pass
        with lock:
            pass
        with pytest.raises(UserError), other:
            pass
    with other:
        pass


def test_writers_of_different_processes_add_up(tmp_path):
    place = Place(tmp_path)
    first, second = place.open(), place.open()
    first.change({"a": b"1"})
    second.change({"b": b"2"})
    first.change({"c": b"3"})
    assert place.contents() == {"a": b"1", "b": b"2", "c": b"3"}
