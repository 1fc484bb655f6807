"""``python -m totoms run``, as a developer uses it: in a folder with a service, with real processes and sockets."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from standins.ports import free_port
from support.processes import DEADLINE, Process

SERVICE = """
from totoms import APIConfiguration, APIEndpoint, Requires, TotoMicroserviceConfiguration, toto_delegate

@toto_delegate
async def greet() -> str:
    return "first"

configuration = TotoMicroserviceConfiguration(
    service_name="greeter",
    base_path="/greeter",
    api_configuration=APIConfiguration(
        api_endpoints=[
            APIEndpoint(method="GET", path="/hello/{name}", delegate=greet, public=True),
            APIEndpoint(method="GET", path="/hello", delegate=greet, requires=Requires(roles={"guest"})),
        ]
    ),
)
"""
OPEN = SERVICE.replace('requires=Requires(roles={"guest"})', "public=True")


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Start the command in a folder with a service."""
    started: list[Process] = []
    (tmp_path / "service.py").write_text(OPEN)

    def running(*options: str, place: str = "service:configuration") -> Process:
        arguments = ["-m", "totoms", "run", place, *options]
        started.append(Process(*arguments, root=str(tmp_path / "root"), cwd=tmp_path))
        return started[-1]

    yield running
    for process in started:
        process.kill()


def greeting(port: int) -> str:
    return str(httpx.get(f"http://127.0.0.1:{port}/greeter/hello", timeout=DEADLINE).json())


def refused(folder: Path, *arguments: str) -> str:
    """Run the command where it must fail: with status 2 and one line, which is returned."""
    command = [sys.executable, "-m", "totoms", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert (done.returncode, done.stdout) == (2, ""), done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    return line


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM])
def test_service_is_served_until_a_signal_and_ends_with_status_zero(
    run: Callable[..., Process], sig: signal.Signals
) -> None:
    process = run("--port=0")
    assert greeting(process.port()) == "first"
    process.send(sig)
    assert process.wait() == 0
    assert "greeter has stopped" in process.output


def test_function_that_returns_the_configuration_will_do(run: Callable[..., Process], tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(OPEN + "\n\ndef make():\n    return configuration\n")
    assert greeting(run("--port=0", place="service:make").port()) == "first"


def test_change_of_a_file_starts_the_service_again(run: Callable[..., Process], tmp_path: Path) -> None:
    port = free_port()
    process = run("--reload", f"--port={port}")
    process.expect("Listening on")
    assert greeting(port) == "first"

    (tmp_path / "service.py").write_text(OPEN.replace("first", "second"))
    process.expect("service.py changed: starting again")
    process.expect("greeter has stopped")
    _until(process, "Listening on", 2)
    assert greeting(port) == "second"

    process.send(signal.SIGINT)
    assert process.wait() == 0
    assert process.output.count("greeter has stopped") == 2


def test_broken_file_is_reported_and_the_next_change_mends_it(run: Callable[..., Process], tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "service.py").write_text("def (:\n")
    process = run("--reload", f"--port={port}")
    process.expect("service:configuration cannot be loaded: SyntaxError: .*service.py, line 1")

    (tmp_path / "service.py").write_text(OPEN)
    process.expect("Listening on")
    assert greeting(port) == "first"


def test_service_drains_when_the_process_that_reloads_it_is_killed(run: Callable[..., Process]) -> None:
    process = run("--reload", "--port=0")
    process.expect("Listening on")
    process.send(signal.SIGKILL)
    process.expect("greeter has stopped")


def test_workers_share_the_port(run: Callable[..., Process]) -> None:
    port = free_port()
    process = run("--workers=2", f"--port={port}")
    _until(process, "Application startup complete", 2)
    assert greeting(port) == "first"
    process.send(signal.SIGTERM)
    assert process.wait() == 0
    assert process.output.count("greeter has stopped") == 2


def _until(process: Process, text: str, times: int) -> None:
    process.expect(text)
    stop = threading.Event()
    for _ in range(int(DEADLINE / 0.02)):
        if process.output.count(text) >= times:
            return
        stop.wait(0.02)
    raise AssertionError(process.output)


@pytest.mark.parametrize("options", [[], ["--workers=2"]], ids=["one", "workers"])
def test_port_in_use_is_one_line(tmp_path: Path, options: list[str]) -> None:
    (tmp_path / "service.py").write_text(OPEN)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "totoms", "run", "service:configuration", f"--port={port}", *options]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("totoms: ")
    assert str(port) in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_module_that_cannot_be_imported_says_which_and_why(tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text("\nimport orders_database\n")
    line = refused(tmp_path, "run", "service:configuration")
    assert line == (
        "totoms: service:configuration cannot be loaded: ModuleNotFoundError: No module named 'orders_database' "
        "(service.py, line 2)"
    )
    done = subprocess.run(
        [sys.executable, "-m", "totoms", "--debug", "run", "service:configuration"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert 'service.py", line 2' in done.stderr
    assert done.stderr.splitlines()[-1] == line


@pytest.mark.parametrize(
    "arguments",
    [
        ["service:configuration", "--port=99999"],
        ["service:configuration", "--port=http"],
        ["service:configuration", "--workers=0"],
        ["service:configuration", "--workers=2", "--reload"],
        ["service:nothing"],
        ["nothing:configuration"],
        ["service"],
        [],
    ],
)
def test_wrong_arguments_are_one_line(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "service.py").write_text(OPEN)
    assert refused(tmp_path, "run", *arguments).startswith("totoms: ")


def test_terminal_shows_coloured_lines_the_addresses_and_a_command_that_works(tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(SERVICE)
    output = _on_a_terminal(tmp_path, "--port=0", until="To stop")

    assert "\x1b[0;36mINFO" in output
    (docs,) = re.findall(r"Docs +(\S+/docs)", output)
    (token,) = re.findall(r"TOKEN=(\S+)", output)
    (address,) = re.findall(r'curl -H "Authorization: Bearer \$TOKEN" (\S+)', output)
    assert address.endswith("/greeter/hello"), "a path without parameters is easier to try"
    assert docs.startswith(address.removesuffix("/greeter/hello"))
    import jwt

    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims["roles"] == ["guest"], "otherwise the first try would be answered 403"


def test_no_color_is_honoured(tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(SERVICE)
    assert "\x1b[" not in _on_a_terminal(tmp_path, "--port=0", until="To stop", NO_COLOR="1")


def _on_a_terminal(folder: Path, *options: str, until: str, **variables: str) -> str:
    """Run the command on a terminal of its own until it has printed a text, and return the output."""
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "totoms", "run", "service:configuration", *options],
        cwd=folder,
        stdin=child,
        stdout=child,
        stderr=child,
        env={**os.environ, "TOTOMS_LOCAL_ROOT": str(folder / "root"), "TERM": "xterm", "NO_COLOR": "", **variables},
        start_new_session=True,
    )
    os.close(child)
    guard = threading.Timer(DEADLINE, process.kill)
    guard.start()
    output = ""
    try:
        with contextlib.suppress(OSError):  # the process has ended
            while until not in output:
                output += os.read(parent, 65536).decode()
    finally:
        guard.cancel()
        process.terminate()
        process.wait()
        os.close(parent)
    assert until in output, output
    return output
