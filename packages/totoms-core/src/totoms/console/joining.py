"""Send events to the console of another process.

The first process of a folder serves the console, and writes its address and token to a file that only its owner can
read. Other processes find the console there.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import threading
import urllib.request
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

_NAME: Final = "console.json"
_PATIENCE: Final = 5.0
_MOST_WAITING: Final = 5000
_BATCH: Final = 200


@dataclass(frozen=True)
class Address:
    """Where a console is.

    Attributes:
        url: Its address.
        token: What its callers need.
        process: The id of its process.
    """

    url: str
    token: str
    process: int


def write_address(folder: Path, address: Address) -> None:
    """Write the address for other processes of the same user."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = folder / f"{_NAME}.{os.getpid()}"
    with contextlib.suppress(FileNotFoundError):
        new.unlink()
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(asdict(address), file)
    new.replace(folder / _NAME)


def remove_address(folder: Path, address: Address) -> None:
    """Remove the file if it still holds this address."""
    if read_address(folder) == address:
        with contextlib.suppress(OSError):
            (folder / _NAME).unlink()


def read_address(folder: Path) -> Address | None:
    """Return the address in a folder, or None. The process may have ended."""
    try:
        path = folder / _NAME
        if path.is_symlink() or (hasattr(os, "geteuid") and path.stat().st_uid != os.geteuid()):
            return None
        found = Address(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return found if found.url.startswith("http://127.0.0.1:") else None


def call(address: Address, path: str, data: object = None) -> Any:
    """Call a console, and return its answer.

    Args:
        address: Where it is.
        path: Such as ``/data/services``.
        data: What to post; by default nothing.

    Raises:
        OSError: It does not answer, or refuses the call.
    """
    body = None if data is None else json.dumps(data).encode()
    headers = {"Authorization": f"Bearer {address.token}", "Content-Type": "application/json"}
    request = urllib.request.Request(address.url + path, body, headers)  # noqa: S310 - read_address checks it
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=_PATIENCE) as answer:
        return json.load(answer)


class Forwarder:
    """Sends events to the console of another process, in a thread. If too many wait, the oldest are dropped."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._waiting: queue.Queue[dict[str, Any] | None] = queue.Queue(_MOST_WAITING)
        self._thread = threading.Thread(target=self._run, name="totoms console", daemon=True)
        self._thread.start()

    def __call__(self, event: dict[str, Any]) -> None:
        """Send an event soon."""
        while True:
            try:
                self._waiting.put_nowait(event)
                return
            except queue.Full:
                with contextlib.suppress(queue.Empty):
                    self._waiting.get_nowait()

    def stop(self) -> None:
        """Send what is waiting, and end the thread."""
        self._waiting.put(None)
        self._thread.join(_PATIENCE)

    def _run(self) -> None:
        ended = False
        while not ended:
            batch = [self._waiting.get()]
            while len(batch) < _BATCH:
                try:
                    batch.append(self._waiting.get_nowait())
                except queue.Empty:
                    break
            ended = None in batch
            self._send([event for event in batch if event is not None])

    def _send(self, batch: Sequence[dict[str, Any]]) -> None:
        with contextlib.suppress(OSError, ValueError):  # the console has ended: nothing to tell it any more
            if batch:
                call(self._address, "/join", batch)
