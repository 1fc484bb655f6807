"""Run a command again whenever a source file changes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from totoms.cli.output import print_note
from totoms.errors import ConfigurationError

if TYPE_CHECKING:
    from types import FrameType

LIFELINE_VARIABLE: Final = "_TOTOMS_LIFELINE"
"""The descriptor of a pipe that closes when the reloading process ends."""


def run_again(arguments: Sequence[str], folder: Path | None = None) -> None:
    """Run ``python -m totoms`` in a process of its own, and again after each change, until SIGINT or SIGTERM.

    The old process drains before the new one starts, so no message is handled by old code afterwards. A process that
    has ended by itself, for example because of a syntax error, is started again at the next change.

    Args:
        arguments: The arguments of the command.
        folder: What is watched: files that end with ``.py``, and ``.env``; by default the working directory.

    Raises:
        ConfigurationError: watchfiles is not installed.
    """
    try:
        from watchfiles import watch
    except ImportError:
        raise ConfigurationError("--reload needs watchfiles: pip install 'totoms[dev]'.") from None
    where = folder or Path.cwd()
    stop = threading.Event()
    with _signals_set(stop), _Child(arguments) as child:
        for changes in watch(where, watch_filter=_is_source, stop_event=stop, raise_interrupt=False):
            names = sorted({os.path.relpath(path, where) for _, path in changes})
            print_note(f"{_listed(names)} changed: starting again.")
            child.restart()


def _is_source(_change: object, path: str) -> bool:
    parts = Path(path).parts
    hidden = any((part.startswith(".") and part != ".env") or part == "__pycache__" for part in parts[1:-1])
    return not hidden and (path.endswith(".py") or parts[-1] == ".env")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


@contextlib.contextmanager
def _signals_set(stop: threading.Event) -> Iterator[None]:
    def end(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    previous = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class _Child:
    """The serving process. It has its own session, so that Ctrl-C reaches it once, through its parent."""

    def __init__(self, arguments: Iterable[str]) -> None:
        self._command = [sys.executable, "-m", "totoms", *arguments]
        self._read, self._write = os.pipe()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> _Child:
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        os.close(self._write)
        os.close(self._read)

    def restart(self) -> None:
        """End the process, and start it again."""
        self._end()
        self._start()

    def _start(self) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - our own command
            self._command,
            env={**os.environ, LIFELINE_VARIABLE: str(self._read)},
            pass_fds=[self._read],
            start_new_session=True,
        )

    def _end(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)  # nothing happens if it has ended
            self._process.wait()


def end_with(descriptor: int) -> None:
    """Send this process SIGTERM when the other end of a pipe is closed.

    Args:
        descriptor: The end of the pipe that can be read.
    """

    def wait() -> None:
        with contextlib.suppress(OSError):
            os.read(descriptor, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="totoms reload", daemon=True).start()
