"""`read_chunks`: chunks of one size from a source that returns as much as it likes."""

from __future__ import annotations

import io

from hypothesis import given
from hypothesis import strategies as st

from totoms.plugin import ChunkReader, read_chunks


@given(st.lists(st.binary(min_size=1, max_size=20)), st.integers(1, 30))
def test_chunks_are_of_one_size_however_the_source_comes(pieces: list[bytes], size: int) -> None:
    content = b"".join(pieces)

    chunks = list(read_chunks(ChunkReader(pieces), size))  # type: ignore[arg-type]

    assert chunks == [content[start : start + size] for start in range(0, len(content), size)]


def test_empty_source_gives_no_chunks() -> None:
    assert list(read_chunks(io.BytesIO(), 10)) == []
