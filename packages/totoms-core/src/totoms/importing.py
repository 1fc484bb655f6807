"""Pauses the garbage collector while totoms, and FastAPI with it, is imported.

What importing makes stays for good, so the collector looks for garbage in vain, again and again: a tenth of the time.
Imported first by ``__init__``, which calls :func:`done` last. What is there by then is set aside (`gc.freeze`), so that
later collections, while requests wait, do not look through it either.
"""

from __future__ import annotations

import gc
from typing import Final

_PAUSED: Final = gc.isenabled()
gc.disable()


def done() -> None:
    """Let the collector work again, if it did before."""
    if _PAUSED:
        gc.freeze()
        gc.enable()
