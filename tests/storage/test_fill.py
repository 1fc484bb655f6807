"""`fill`: memory that is used again, filled from a source that returns as much as it likes."""

from __future__ import annotations

import io
from typing import Any

import pytest

from totoms.plugin import fill


class OnlyRead:
    """A source without `readinto`, which returns little at a time."""

    def __init__(self, content: bytes) -> None:
        self._content = io.BytesIO(content)

    def read(self, size: int) -> bytes:
        return self._content.read(min(size, 3))


@pytest.mark.parametrize("kind", [io.BytesIO, OnlyRead])
@pytest.mark.parametrize("size", [0, 1, 9, 10, 11])
def test_memory_is_filled_and_each_piece_is_seen(kind: Any, size: int) -> None:
    content, memory, seen = bytes(range(size)), bytearray(10), []
    source = kind(content)

    filled = fill(memoryview(memory), source, 4, lambda piece: seen.append(bytes(piece)))

    assert filled == min(size, 10)
    assert memory[:filled] == content[:10]
    assert b"".join(seen) == content[:10]
    assert all(len(piece) <= 4 for piece in seen)
    assert source.read(10) == content[10:]
