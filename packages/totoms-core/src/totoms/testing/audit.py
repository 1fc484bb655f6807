"""What a piece of code does outside of memory, as the interpreter itself tells it (PEP 578).

Libraries that make system calls of their own, in C, are not seen.
"""

from __future__ import annotations

import sys
import threading
from types import FrameType
from typing import Any, Final

OUTBOUND: Final = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "socket.sendmsg")
IO: Final = (
    *OUTBOUND, "open", "socket.__new__", "socket.bind", "sqlite3.connect", "subprocess.Popen", "os.system", "os.exec",
    "os.fork", "os.posix_spawn", "os.listdir", "os.scandir", "os.mkdir", "os.rmdir", "os.remove", "os.rename",
    "os.link", "os.symlink", "os.truncate", "os.chmod", "fcntl.flock", "fcntl.lockf", "shutil.rmtree",
    "tempfile.mkstemp", "tempfile.mkdtemp", "_thread.start_new_thread", "_thread.start_joinable_thread",
)  # fmt: skip

_recordings: Final[list[Recording]] = []
_guard: Final = threading.Lock()
_installed = False


class Recording:
    """Records audit events from when it is made until it is stopped; what importing modules does is left out.

    Args:
        events: Which: `OUTBOUND` or `IO`.
        this_thread: Whether only what the calling thread does counts.

    Attributes:
        seen: What happened.
    """

    def __init__(self, events: tuple[str, ...] = OUTBOUND, *, this_thread: bool = False) -> None:
        global _installed
        self.seen: list[str] = []
        self._events = frozenset(events)
        self._thread = threading.get_ident() if this_thread else None
        with _guard:
            if not _installed:
                sys.addaudithook(_hook)  # it cannot be removed, so there is one for all
                _installed = True
            _recordings.append(self)

    def stop(self) -> None:
        """Record no longer. A second call does nothing."""
        with _guard:
            if self in _recordings:
                _recordings.remove(self)

    def __enter__(self) -> Recording:
        """Record while the block runs."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
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
