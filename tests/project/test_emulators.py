"""Tests without their server are skipped loudly, or fail where servers are required."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from support.emulators import require

TESTS = Path(__file__).parents[1]
TEST = """
from support.emulators import tell_missing

def pytest_terminal_summary(terminalreporter):
    tell_missing(terminalreporter)
"""
USES = """
import pytest
from support.emulators import kept, require

@pytest.fixture(scope="session")
def server():
    return require("no-such-server", remedy="apt-get install no-such-server")

def test_one(server): ...
def test_two(server): ...
"""


@pytest.mark.parametrize("processes", [[], ["-n", "2"]], ids=["one process", "several processes"])
@pytest.mark.parametrize(("required", "status"), [("", 0), ("1", 1)], ids=["skipped", "required"])
def test_missing_server_is_reported_with_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: list[str], required: str, status: int
) -> None:
    (tmp_path / "conftest.py").write_text(TEST)
    (tmp_path / "test_uses.py").write_text(USES)
    monkeypatch.setenv("TOTOMS_REQUIRE_EMULATORS", required)
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", "/dev/null", f"--rootdir={tmp_path}"]

    run = subprocess.run([*command, *processes, str(tmp_path)], capture_output=True, text=True, timeout=300)

    assert run.returncode == status, run.stdout
    told = "NOT TESTED: no-such-server is not installed; remedy: apt-get install no-such-server"
    assert (f"{told} (2 tests)" if status == 0 else told) in run.stdout.splitlines() or (status and told in run.stdout)


@pytest.mark.parametrize("required", ["", "1"])
def test_second_opinion_that_is_missing_is_skipped_everywhere(monkeypatch: pytest.MonkeyPatch, required: str) -> None:
    monkeypatch.setenv("TOTOMS_REQUIRE_EMULATORS", required)
    with pytest.raises(pytest.skip.Exception, match="no-such-server"):
        require("no-such-server", remedy="nothing", optional=True)


def test_server_that_is_there_is_found() -> None:
    assert Path(require("sh", remedy="")).name == "sh"


_KEEPS = """
import signal, sys
from support.emulators import kept

CONNECTS = "import socket, time; s = socket.create_connection(('127.0.0.1', {port})); time.sleep(3600)"
with kept([sys.executable, "-c", CONNECTS]):
    signal.pause()
"""


# Not SIGINT, which is ignored by all that runs behind a shell's `&`.
@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGTERM])
def test_server_ends_with_the_process_that_started_it(sig: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        source = _KEEPS.replace("{port}", str(listening.getsockname()[1]))
        with subprocess.Popen([sys.executable, "-c", source], stderr=subprocess.DEVNULL) as keeps:
            try:
                listening.settimeout(120)
                server, _ = listening.accept()
                with server:
                    keeps.send_signal(sig)
                    server.settimeout(120)
                    assert server.recv(1) == b"", "the server is still there"
            finally:
                keeps.kill()
