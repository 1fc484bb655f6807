"""Reset state in forked child processes, which must not use their parent's threads, locks and connections."""

from __future__ import annotations

import os
from collections.abc import Callable


def in_forked_child(forget: Callable[[], None]) -> None:
    """Call `forget` in each child process that this process forks. Does nothing on Windows, which cannot fork."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=forget)
