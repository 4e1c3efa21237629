"""The server of the tests: where it is needed, and who runs it."""

from pathlib import Path

import pytest

from fxeval.tests.store.conftest import needed


def test_an_absent_server_is_a_skip_here_and_a_failure_in_ci(monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="apt-get install postgresql"):
        needed(None)
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="apt-get install postgresql"):
        needed(None)
    assert needed(Path("bin")) == Path("bin")


def test_the_server_listens_on_this_machine_alone_and_is_not_root(server):
    assert "@127.0.0.1:" in server.url("x")
    status = Path(f"/proc/{server.process.pid}/status")
    if not status.is_file():
        pytest.skip("no /proc here")
    (line,) = [one for one in status.read_text().splitlines() if one.startswith("Uid:")]
    assert "0" not in line.split()[1:]
