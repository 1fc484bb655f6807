"""Processes that run for as long as the demo does: servers that stand in for a cloud, and further services."""

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

PATIENCE_SECONDS = 60.0
KEEPER = """
import subprocess, sys, threading
server = subprocess.Popen(sys.argv[2:], stdin=subprocess.DEVNULL)
end = server.terminate if sys.argv[1] == "terminate" else server.kill
threading.Thread(target=lambda: (sys.stdin.read(), end()), daemon=True).start()
sys.exit(server.wait())
"""
"""Runs a server until its own input ends, which happens when the demo ends, even if the demo is killed."""


@contextlib.contextmanager
def server(command: Sequence[str], *, is_service: bool = False) -> Iterator[str]:
    """Run a server on a free port and yield its address.

    Args:
        command: The command; ``{port}`` in it is replaced by the port.
        is_service: Whether it is a service, which stops by SIGTERM and whose log is shown; others are killed.
    """
    port = free_port()
    words = [word.replace("{port}", str(port)) for word in command]
    # In a session of its own: Ctrl-C is for the service, which drains while its broker is still there.
    process = subprocess.Popen(
        [sys.executable, "-c", KEEPER, "terminate" if is_service else "kill", *words],
        stdin=subprocess.PIPE,
        stdout=None if is_service else subprocess.DEVNULL,
        stderr=None if is_service else subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        if not answers(port, process):
            sys.exit(f"It did not start: {' '.join(words)}")
        yield f"127.0.0.1:{port}"
    finally:
        process.communicate(timeout=PATIENCE_SECONDS)


def free_port() -> int:
    """Return a free port that the system assigns to no other process for a minute.

    A connection that was closed here first stays in the state TIME-WAIT, and so long its port is not among those that
    the system chooses from. Otherwise another program could get it before the server listens.
    """
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as connection:
            listening.accept()[0].close()
            connection.recv(1)
    return port


def answers(port: int, process: subprocess.Popen[bytes]) -> bool:
    """Wait until the server answers; return whether it does."""
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        time.sleep(0.02)
    return False
