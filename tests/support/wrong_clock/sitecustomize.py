"""On the PYTHONPATH of a process, sets its wall clock wrong by the seconds (8 bytes, a double) in $WRONG_CLOCK."""

from __future__ import annotations

import mmap
import os
import struct
import time
from pathlib import Path

if path := os.environ.get("WRONG_CLOCK"):
    with Path(path).open("rb") as file:
        _offset = mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ)
    _right = time.time

    def _wrong() -> float:
        return _right() + float(struct.unpack("d", _offset[:])[0])

    time.time = _wrong
