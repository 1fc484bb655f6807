"""Sees what this process connects to, whatever library does it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

_EVENTS = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname")
_watching: list[list[Any]] = []
_hooked: list[bool] = []


@contextlib.contextmanager
def connections() -> Iterator[list[Any]]:
    """Give the list of what is connected to, or looked up, within the block."""
    if not _hooked:  # a hook cannot be taken back
        _hooked.append(True)
        sys.addaudithook(_see)
    made: list[Any] = []
    _watching.append(made)
    try:
        yield made
    finally:
        _watching.remove(made)


def _see(event: str, arguments: tuple[Any, ...]) -> None:
    if _watching and event in _EVENTS:
        for made in _watching:
            made.append((event, arguments[-1] if event == "socket.connect" else arguments[0]))
