"""Which Python files are remembered, and where."""

import pytest

from minigrad.training import trust


@pytest.fixture(autouse=True)
def another_process(monkeypatch):
    monkeypatch.setattr(trust, "SESSION", set())


@pytest.mark.parametrize("given, place", [
    ({"MINIGRAD_STATE": "{tmp}/own", "XDG_STATE_HOME": "{tmp}/xdg", "HOME": "{tmp}"}, "own/trained"),
    ({"XDG_STATE_HOME": "{tmp}/xdg", "HOME": "{tmp}"}, "xdg/minigrad/trained"),
    ({"XDG_STATE_HOME": "relative", "HOME": "{tmp}"}, ".local/state/minigrad/trained"),
    ({"HOME": "{tmp}"}, ".local/state/minigrad/trained")])
def test_a_file_is_remembered_in_the_users_state_folder(given, place, tmp_path, monkeypatch):
    for name in ("MINIGRAD_STATE", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value.format(tmp=tmp_path))
    assert not trust.trained_with("cells.py", "hash")
    trust.remember("cells.py", "hash")
    trust.SESSION.clear()
    assert trust.trained_with("cells.py", "hash")
    assert len(list((tmp_path / place).iterdir())) == 1 and (tmp_path / place).stat().st_mode & 0o077 == 0


def test_another_content_or_path_is_another_file(tmp_path, monkeypatch):
    monkeypatch.setenv("MINIGRAD_STATE", str(tmp_path))
    trust.remember("cells.py", "hash")
    assert not trust.trained_with("cells.py", "other") and not trust.trained_with("sub/cells.py", "hash")
    assert trust.trained_with("./sub/../cells.py", "hash")


def test_without_a_writable_state_folder_trust_lasts_for_the_process(monkeypatch):
    monkeypatch.setenv("MINIGRAD_STATE", "/dev/null/nowhere")
    trust.remember("cells.py", "hash")
    assert trust.trained_with("cells.py", "hash")
    trust.SESSION.clear()
    assert not trust.trained_with("cells.py", "hash")
