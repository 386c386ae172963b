"""The reverse proxy's configuration: of the SuperLink, the outside reaches `/v1/fleet` and nothing else."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from deployment.fleet import AUTHORITY, SERVER, SERVER_KEY, format_address
from personalization.errors import UserError

# Two versions of Flower may not understand each other: a device compares this with its own before it joins.
FLOWER_HEADER = "X-Fedsieve-Flower"
TEMPORARY = ("body", "proxy", "fastcgi", "uwsgi", "scgi")


@dataclass(frozen=True, kw_only=True)
class Proxy:
    """folder: for the process id and temporary files. fleet: folder of the certificates. host, port: public address.

    superlink_port: where the SuperLink listens on loopback. flower: its version, which devices are told. user: the
    account of the workers, if the master is root.
    """

    folder: Path
    fleet: Path
    host: str
    port: int
    superlink_port: int
    flower: str
    user: str | None = None


def find_nginx() -> Path:
    """Return nginx. Raises UserError if it is not installed."""
    found = shutil.which("nginx", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]))
    if found is None:
        raise UserError(
            "nginx: not installed, and it keeps the outside from the SuperLink's Control API; as root run: "
            "apt install nginx-light"
        )
    return Path(found)


def write_config(proxy: Proxy) -> Path:
    """Write configuration and folders for temporary files, and return the configuration's path. Raises OSError."""
    from personalization.system.files import write_atomically

    proxy.folder.mkdir(mode=0o700, exist_ok=True)
    for name in TEMPORARY:
        (proxy.folder / name).mkdir(mode=0o700, exist_ok=True)
    path = proxy.folder / "nginx.conf"
    write_atomically(path, nginx_config(proxy).encode())
    return path


def nginx_config(proxy: Proxy) -> str:
    """Return the configuration. Raises UserError for paths that it can't hold."""
    for path in (proxy.folder, proxy.fleet):
        if any(character in str(path) for character in '"\\$\n'):
            raise UserError(f"{path}: nginx can't take quotes, backslashes or $ in a path; choose another folder")
    folders = "\n".join(
        f'    {"client_body" if name == "body" else name}_temp_path "{proxy.folder}/{name}";' for name in TEMPORARY
    )
    user = "" if proxy.user is None else f"user {proxy.user};\n"
    return f"""\
# Written by `fedsieve serve`. Devices speak to /v1/fleet, where the SuperLink wants the signature of a registered key.
# The Control API has no login: whoever reached it could run programs on every device.
{user}daemon off;
worker_processes 1;
pid "{proxy.folder}/nginx.pid";
error_log stderr error;

events {{
    worker_connections 4096;
}}

http {{
    access_log off;
    server_tokens off;
{folders}

    # Flower cuts what is larger than 5 MB into pieces.
    client_max_body_size 8m;
    client_body_buffer_size 256k;
    client_header_timeout 20s;
    client_body_timeout 60s;
    send_timeout 60s;
    keepalive_timeout 75s;

    ssl_certificate "{proxy.fleet}/{SERVER}";
    ssl_certificate_key "{proxy.fleet}/{SERVER_KEY}";
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_session_tickets off;

    upstream superlink {{
        server 127.0.0.1:{proxy.superlink_port};
        keepalive 32;
    }}

    server {{
        listen {format_address(proxy.host, proxy.port)} ssl;
        server_name _;
        add_header {FLOWER_HEADER} {proxy.flower} always;

        # The request as it was sent, before dots, doubled slashes and %-codes in it are resolved.
        if ($request_uri !~ "^/v1/fleet/[a-z-]+$") {{
            return 403;
        }}

        location /v1/fleet/ {{
            proxy_pass https://superlink;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host localhost;
            proxy_ssl_name localhost;
            proxy_ssl_verify on;
            proxy_ssl_trusted_certificate "{proxy.fleet}/{AUTHORITY}";
            proxy_connect_timeout 5s;
            proxy_read_timeout 120s;
            proxy_next_upstream off;
        }}

        location / {{
            return 403;
        }}
    }}
}}
"""
