import re
import subprocess
from pathlib import Path

import pytest

from deployment.command import Enrolment, enroll
from deployment.serve import nginx
from deployment.serve.nginx import FLOWER_HEADER, TEMPORARY, Proxy, find_nginx, nginx_config, write_config
from personalization.errors import UserError

ROOT = Path(__file__).parents[3]


def sample(**changes) -> Proxy:
    state = Path("/var/lib/fedsieve")
    chosen = {"folder": state / "state/proxy", "fleet": state / "fleet", "host": "0.0.0.0", "port": 8443}
    return Proxy(**{**chosen, "superlink_port": 9443, "flower": "1.41.0", **changes})


def test_the_sample_is_what_the_code_writes():
    assert (ROOT / "deploy" / "nginx.conf").read_text() == nginx_config(sample())


def test_the_outside_gets_a_path_of_the_fleet_api_or_nothing():
    pattern = re.search(r'\$request_uri !~ "(.+)"', nginx_config(sample()))[1]
    for path in ("/v1/fleet/pull-messages", "/v1/fleet/get-fab"):
        assert re.search(pattern, path)
    for path in (
        "/v1/fleet/../control/list-runs",
        "/v1/fleet/%2e%2e/control/list-runs",
        "/v1/control/list-runs",
        "/v1/control/../fleet/get-fab",
        "//v1/fleet/get-fab",
        "/v1/fleet/",
        "/v1/fleet/get-fab?x=1",
        "/v1/runtime/push-messages",
        "/docs",
        "/",
    ):
        assert not re.search(pattern, path)


def test_devices_are_told_the_version_of_flower_whatever_the_answer_is():
    assert f"        add_header {FLOWER_HEADER} 1.42.3 always;\n" in nginx_config(sample(flower="1.42.3"))


def test_nothing_of_a_client_is_logged_and_everything_stays_in_the_state_folder(tmp_path):
    text = nginx_config(sample(folder=tmp_path, user="root"))
    assert "access_log off;" in text
    assert [line for line in text.splitlines() if "_temp_path" in line] == [
        f'    {"client_body" if name == "body" else name}_temp_path "{tmp_path}/{name}";' for name in TEMPORARY
    ]
    assert f'pid "{tmp_path}/nginx.pid";' in text
    assert "\nuser root;\n" in text
    assert "user " not in re.sub("#.*", "", nginx_config(sample()))


@pytest.mark.proxy
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_nginx_takes_it_with_a_path_that_has_a_space(tmp_path, host):
    fleet = tmp_path / "my fleet"
    enroll(fleet, Enrolment(server="localhost:8443"))
    folder = tmp_path / "my proxy"
    path = write_config(sample(folder=folder, fleet=fleet, host=host, port=21450))
    command = [str(find_nginx()), "-t", "-p", str(folder), "-c", str(path), "-e", "stderr"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "test is successful" in done.stderr
    assert not [line for line in done.stderr.splitlines() if "warn" in line and "user" not in line]


def test_a_path_that_would_end_a_text_is_refused():
    with pytest.raises(UserError, match="quotes"):
        nginx_config(sample(fleet=Path('/tmp/a";b')))


def test_without_nginx_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(nginx.shutil, "which", lambda *_, **__: None)
    with pytest.raises(UserError, match="apt install nginx-light"):
        find_nginx()
