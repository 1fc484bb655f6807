"""Real processes: a Python script started, listened to, signalled and ended."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

DEADLINE = 120.0


class Process:
    """A Python script in a process of its own; its output is kept line by line.

    Args:
        script: The file to run.
        arguments: Its arguments.
        root: The folder of the local backend.
        env: Further environment variables.
        cwd: Its working directory; by default this process's.
    """

    def __init__(
        self,
        script: Path | str,
        *arguments: str,
        root: str,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        variables = {**os.environ, "TOTOMS_LOCAL_ROOT": root, "PYTHONUNBUFFERED": "1", **(env or {})}
        self.lines: list[str] = []
        self._news = threading.Condition()
        self._popen = subprocess.Popen(
            [sys.executable, str(script), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=variables,
            cwd=cwd,
            start_new_session=True,  # so that a forked child, which holds our pipe, ends with it
        )
        self.pid = self._popen.pid
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._popen.stdout is not None
        for line in self._popen.stdout:
            with self._news:
                self.lines.append(line.rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self.lines.append("")  # the end of the output wakes those who wait for a line that will not come
            self._news.notify_all()

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def expect(self, pattern: str, deadline: float = DEADLINE) -> re.Match[str]:
        """Wait for a line that matches, also among those already printed."""

        def found() -> bool:
            return any(re.search(pattern, line) for line in self.lines) or not self._reader.is_alive()

        with self._news:
            ends = time.monotonic() + deadline
            while not found() and time.monotonic() < ends:
                self._news.wait(0.5)
        for line in self.lines:
            match = re.search(pattern, line)
            if match:
                return match
        raise AssertionError(f"no line matches {pattern!r} in:\n{self.output}")

    def port(self) -> int:
        """The port a service listens on, from its own log."""
        return int(self.expect(r"Listening on http://[^:\s]+:(\d+)").group(1))

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self._popen.poll() is not None

    def send(self, sig: int) -> None:
        self._popen.send_signal(sig)

    def wait(self, deadline: float = DEADLINE) -> int:
        """Wait for the end and return the exit status; minus the signal's number if it died of one."""
        status = self.wait_for_exit(deadline)
        self._reader.join(deadline)
        return status

    def wait_for_exit(self, deadline: float = DEADLINE) -> int:
        """Wait for the end only, and not for that of the output: a forked child may still write to it."""
        return self._popen.wait(deadline)

    def kill(self) -> None:
        """End it and what it forked now, if they have not ended, also when they are stopped."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.wait()
        assert self._popen.stdout is not None
        self._popen.stdout.close()
