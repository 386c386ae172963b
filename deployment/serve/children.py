"""How SuperLink, reverse proxy and status page are started."""

import os
import pwd
import sys
import sysconfig
from importlib.metadata import version

from deployment.fleet import AUTHORITY, SERVER, SERVER_KEY
from deployment.serve.nginx import Proxy, find_nginx, write_config
from deployment.serve.processes import Supervised
from deployment.serve.settings import ServeSettings
from deployment.serve.state import StateFolder

SUPERLINK, PROXY, STATUS = "superlink", "proxy", "status"


def superlink(settings: ServeSettings, state: StateFolder) -> Supervised:
    """Return the SuperLink: on loopback, with TLS and node authentication, on the same database whenever it starts."""
    fleet = settings.fleet
    command = [
        *(sys.executable, "-m", "deployment.serve.superlink"),
        *("--host", "127.0.0.1", "--port", str(settings.superlink_port)),
        *("--ssl-ca-certfile", str(fleet / AUTHORITY)),
        *("--ssl-certfile", str(fleet / SERVER)),
        *("--ssl-keyfile", str(fleet / SERVER_KEY)),
        "--enable-supernode-auth",
        *("--database", str(state.database)),
        *("--isolation", "subprocess"),
        "--disable-runtime-dependency-installation",
    ]
    return Supervised(SUPERLINK, command, state.log(SUPERLINK), flower_environment(state))


def flower_environment(state: StateFolder) -> dict[str, str]:
    """Return what Flower's processes have in their environment beside this one's."""
    scripts = sysconfig.get_path("scripts")  # where Flower looks for the programs that it starts itself
    return {
        "FLWR_HOME": str(state.flower_home),
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "PATH": os.pathsep.join([scripts, os.environ.get("PATH", os.defpath)]),
        **_mark(state),
    }


def proxy(settings: ServeSettings, state: StateFolder) -> Supervised:
    """Return nginx, whose configuration is written first. Raises UserError, OSError."""
    wanted = Proxy(
        folder=state.proxy,
        fleet=settings.fleet,
        host=settings.host,
        port=settings.port,
        superlink_port=settings.superlink_port,
        flower=version("flwr"),
        # A master that is root gives its workers to another account, which could not read the state folder.
        user=pwd.getpwuid(0).pw_name if os.geteuid() == 0 else None,
    )
    path = write_config(wanted)
    command = [str(find_nginx()), "-p", str(state.proxy), "-c", str(path), "-e", "stderr"]
    return Supervised(PROXY, command, state.log(PROXY))


def status_page(settings: ServeSettings, state: StateFolder) -> Supervised | None:
    """Return the status page, None if there is to be none."""
    if settings.status is None:
        return None
    host, port = settings.status
    command = [sys.executable, "-m", "deployment.status", str(state.path), "--host", host, "--port", str(port)]
    return Supervised(STATUS, command, state.log(STATUS), _mark(state))


def _mark(state: StateFolder) -> dict[str, str]:
    name, _, value = state.marker.partition("=")
    return {name: value}
