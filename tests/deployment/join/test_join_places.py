import subprocess
import sys
from pathlib import Path

import pytest
from joining import node_file

from client.node_file import read_node_file
from deployment.join.places import Places, Remembered, remembered_vault
from deployment.join.vault_choice import VaultChoice


@pytest.fixture
def node(tmp_path):
    return read_node_file(node_file(tmp_path))


def test_folders_are_the_users(node, tmp_path):
    home = Places.of({"HOME": str(tmp_path)})
    assert home.state(node) == tmp_path / ".local" / "share" / "fedsieve" / node.fleet / "hall"
    assert home.key_file(node) == tmp_path / ".config" / "fedsieve" / node.fleet / "hall.key"
    named = Places.of({"HOME": "/h", "XDG_CONFIG_HOME": str(tmp_path / "c"), "XDG_DATA_HOME": "relative"})
    assert named.config == tmp_path / "c"
    assert str(named.data) == "/h/.local/share"
    state = home.state(node)
    assert not any(path.is_relative_to(state) for path in (home.key_file(node), home.flower(node)))


def test_what_a_state_was_joined_with_is_found_again(node, tmp_path):
    places, state = Places.of({"HOME": str(tmp_path)}), tmp_path / "state"
    assert remembered_vault(state, places) is None
    choice = VaultChoice(source="keyring", name="hall")
    path = places.settings_file(node)
    Remembered(state=str(state), vault=choice).save(path)
    assert path.stat().st_mode & 0o777 == 0o600
    (tmp_path / "link").symlink_to(state)
    assert remembered_vault(tmp_path / "link", places) == choice
    assert remembered_vault(tmp_path / "other", places) is None
    (path.with_name("a.join.json")).write_text("damaged")
    assert remembered_vault(state, places) == choice


def test_who_watches_needs_neither_torch_nor_flower():
    code = "import sys, deployment.join.run; print([n for n in ('torch', 'flwr', 'transformers') if n in sys.modules])"
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
