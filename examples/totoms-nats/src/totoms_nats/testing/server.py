"""A nats-server on a free port of this machine, with JetStream."""

from __future__ import annotations

import random
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Final

PROGRAM: Final = "nats-server"
_PATIENCE: Final = 10.0


def find() -> str | None:
    """Return the path of the program, or None if it is not installed. Debian puts it where only root looks."""
    return shutil.which(PROGRAM) or shutil.which(PROGRAM, path="/usr/sbin:/usr/local/sbin")


class NatsServer:
    """A running server. Use it with ``with``, or call :meth:`stop`.

    Args:
        folder: The folder for its streams and its log.
        port: The port; by default a free one.
        arguments: Further arguments of the program.
    """

    def __init__(self, folder: Path, port: int | None = None, arguments: tuple[str, ...] = ()) -> None:
        program = find()
        if program is None:
            raise FileNotFoundError(f"There is no {PROGRAM} on this machine.")
        self.port = port or _free_port()
        self.url = f"nats://127.0.0.1:{self.port}"
        self.folder = folder
        self._log = folder / "nats-server.log"
        self._command = [program, "-js", "-sd", str(folder), "-a", "127.0.0.1", "-p", str(self.port), *arguments]
        self.start()

    def start(self) -> None:
        """Start it, again after :meth:`stop`, and wait until it answers."""
        with self._log.open("ab") as log:
            # In a session of its own: Ctrl-C stops the service, which drains while the broker still runs.
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, start_new_session=True)
        end = time.monotonic() + _PATIENCE
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > end:
                self.stop(signal.SIGKILL)
                raise TimeoutError(f"{PROGRAM} did not start; see {self._log}.")
            time.sleep(0.01)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as probe:
                return probe.recv(4) == b"INFO"
        except OSError:
            return False

    def send_signal(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Stop it and wait until it has ended. Its streams stay in the folder."""
        if self._process.poll() is None:
            self._process.send_signal(number)
        self._process.wait(_PATIENCE)

    def __enter__(self) -> NatsServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _free_port() -> int:
    # Not from the range of outgoing connections: while this server is stopped, its port must stay free.
    while True:
        port = random.randrange(20_000, 30_000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
