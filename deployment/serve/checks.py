"""What is wrong is said before anything is started."""

import contextlib
import errno
import importlib.metadata
import importlib.util
import json
import socket
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

from deployment.certificates import check_server, read_certificate, utc_now
from deployment.command import ModelFacts
from deployment.enrolment import check_keys
from deployment.fleet import AUTHORITY, SERVER, Fleet, parse_address, read_fleet
from deployment.serve.settings import ServeSettings
from personalization.errors import UserError
from personalization.settings import AUTOMATIC
from server.journal import JOURNAL, check_extension, load_journal
from strategies.registry import make_strategy

# The versions that pyproject.toml asks for: from the first to before the second.
FLOWER = ((1, 41), (1, 43))
_PORT_PATIENCE = 5.0


def check_start(settings: ServeSettings, *, now: datetime | None = None) -> Fleet:
    """Return the fleet of a server that can start. Raises UserError with what is in the way."""
    check_flower(importlib.metadata.version("flwr"))
    make_strategy(settings.strategy)
    fleet = read_fleet(settings.fleet)
    check_keys(fleet)
    authority, certificate = (read_certificate(fleet.path(name)) for name in (AUTHORITY, SERVER))
    for name in (parse_address(fleet.server)[0], "localhost"):
        check_server(certificate, authority, name, now=now or utc_now())
    if settings.status is not None and importlib.util.find_spec("deployment.status") is None:
        raise UserError("the status page is not installed; leave it out with --no-status")
    return fleet


def check_model(settings: ServeSettings, fleet: Fleet) -> None:
    """Raise UserError unless the model can be read, is the fleet's, and is that of the journal that there is.

    Also for settings that say nothing to a model of its kind.
    """
    facts = _facts(settings.model)
    root = bytes.fromhex(facts.root)
    _check_windows(settings, facts)
    _check_vocabulary(settings, facts)
    if fleet.model is not None and root.hex() != fleet.model:
        raise UserError(
            f"{settings.model}: not the model that this fleet's devices take; give that one, or pin this one: "
            f"fedsieve enroll {fleet.folder} --model {settings.model}, and carry the node files again"
        )
    folder = settings.journal_dir
    if (folder / JOURNAL).exists():
        check_extension(load_journal(folder), folder, settings=settings.run_config(), root=root)


def check_flower(version: str) -> None:
    """Raise UserError for a version of Flower that this fedsieve does not fit."""
    first, end = (".".join(map(str, bound)) for bound in FLOWER)
    parts = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    if not FLOWER[0] <= parts < FLOWER[1]:
        raise UserError(f"flwr {version}: expected {first} or newer, before {end}; pip install 'flwr>={first},<{end}'")


def check_ports(settings: ServeSettings, *, patience: float = _PORT_PATIENCE) -> None:
    """Raise UserError if a port can't be listened on. A port that is about to be free is waited for, in seconds."""
    wanted = [
        ("public address (--host, --port)", settings.host, settings.port),
        ("SuperLink (--superlink-port)", "127.0.0.1", settings.superlink_port),
    ]
    if settings.status is not None:
        wanted.append(("status page (--status)", *settings.status))
    end = time.monotonic() + patience
    for what, host, port in wanted:
        while (reason := _refusal(host, port)) is not None:
            if reason.errno != errno.EADDRINUSE or time.monotonic() >= end:
                raise UserError(f"{what} {host}:{port}: {_explain(reason)}")
            time.sleep(0.1)


def _refusal(host: str, port: int) -> OSError | None:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with contextlib.closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except OSError as error:
        return error
    return None


def _explain(reason: OSError) -> str:
    if reason.errno == errno.EADDRINUSE:
        return "port in use; end what listens there, or choose another port"
    if reason.errno == errno.EACCES:
        return "not allowed; ports below 1024 need CAP_NET_BIND_SERVICE, or choose another port"
    return f"can't listen there ({reason.strerror}); choose an address of this machine"


def _check_windows(settings: ServeSettings, facts: ModelFacts) -> None:
    """Raise UserError for windows of text that the model cannot read, or reads none of."""
    if facts.context is None:
        if settings.refit_samples:
            raise UserError(f"{settings.model}: sees images, and cuts on all of them; leave out --refit-samples")
        if settings.windows is not None or settings.window_tokens is not None:
            raise UserError(f"{settings.model}: sees images, not text; leave out --windows and --window-tokens")
    elif settings.text_batch().tokens > facts.context:
        raise UserError(
            f"windows of {settings.text_batch().tokens} tokens: {settings.model} reads {facts.context}; choose with "
            "--window-tokens"
        )


def _check_vocabulary(settings: ServeSettings, facts: ModelFacts) -> None:
    """Raise UserError for a vocabulary that devices could not cut."""
    asked, fewest = settings.vocabulary, facts.fewest_tokens
    if asked is not None and facts.context is None:
        raise UserError(f"{settings.model}: sees images, so it has no vocabulary; leave out --vocabulary")
    if asked and fewest is None:
        raise UserError(
            f"{settings.model}: its tokenizer does not merge tokens from single characters or bytes, so its vocabulary "
            "can't be cut; leave out --vocabulary"
        )
    if asked and asked != AUTOMATIC and fewest is not None and asked < fewest:
        raise UserError(
            f"--vocabulary {asked}: {settings.model} keeps {fewest:,} tokens or more, or some text could not be encoded"
        )


def _facts(model: str) -> ModelFacts:
    # In a process of its own, which gives back the memory that torch and the model take.
    command = [sys.executable, "-m", "deployment.serve.model", model]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path.cwd(), check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise UserError(lines[-1] if lines else f"{model}: can't be read as a model")
    return ModelFacts(**json.loads(done.stdout.strip().splitlines()[-1]))
