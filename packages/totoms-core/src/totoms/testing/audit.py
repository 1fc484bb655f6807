"""Record the I/O of a piece of code by the interpreter's audit events (PEP 578).

System calls of C libraries raise no audit events.
"""

from __future__ import annotations

import sys
import threading
from types import FrameType
from typing import Any, Final

OUTBOUND: Final = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "socket.sendmsg")
IO: Final = (
    *OUTBOUND,
    "open",
    "socket.__new__",
    "socket.bind",
    "sqlite3.connect",
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.fork",
    "os.posix_spawn",
    "os.listdir",
    "os.scandir",
    "os.mkdir",
    "os.rmdir",
    "os.remove",
    "os.rename",
    "os.link",
    "os.symlink",
    "os.truncate",
    "os.chmod",
    "fcntl.flock",
    "fcntl.lockf",
    "shutil.rmtree",
    "tempfile.mkstemp",
    "tempfile.mkdtemp",
    "_thread.start_new_thread",
    "_thread.start_joinable_thread",
)

_recordings: Final[list[Recording]] = []
_guard: Final = threading.Lock()
_installed = False


class Recording:
    """Records audit events from its construction until `stop`, except those of imports.

    Args:
        events: The events to record: `OUTBOUND` or `IO`.
        this_thread: Whether to record the calling thread only.

    Attributes:
        seen: The recorded events.
    """

    def __init__(self, events: tuple[str, ...] = OUTBOUND, *, this_thread: bool = False) -> None:
        global _installed
        self.seen: list[str] = []
        self._events = frozenset(events)
        self._thread = threading.get_ident() if this_thread else None
        with _guard:
            if not _installed:
                sys.addaudithook(_hook)  # a hook cannot be removed, so all recordings share one
                _installed = True
            _recordings.append(self)

    def stop(self) -> None:
        """Stop recording. A second call does nothing."""
        with _guard:
            if self in _recordings:
                _recordings.remove(self)

    def __enter__(self) -> Recording:
        """Record while the block runs."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop recording."""
        self.stop()

    def _note(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in self._events and self._thread in (None, threading.get_ident()) and not _importing():
            self.seen.append(f"{event} {arguments[0]!r}" if event == "open" and arguments else event)


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    for recording in tuple(_recordings):
        recording._note(event, arguments)


def _importing() -> bool:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__") == "importlib._bootstrap":
            return True
        frame = frame.f_back
    return False
