"""Keys in the order that is promised everywhere, by code points; Blob Storage lists them by UTF-16.

The two differ where keys part with a character beyond U+FFFF in one and one from U+E000 on in the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

_FIRST_ASTRAL: Final = "\U00010000"
_AFTER_SURROGATES: Final = "\ue000"
_MOST_HELD: Final = 10_000
"""Keys that are held back at the most; more that share a beginning keep the order in which they came."""


def by_utf16(key: str) -> bytes:
    """Return what Blob Storage sorts by."""
    return key.encode("utf-16-be", "surrogatepass")


def by_code_points(keys: Iterable[str]) -> Iterator[str]:
    """Give keys that come in the order of UTF-16 in that of code points, holding back as few as that takes."""
    runs: list[tuple[str, list[str]]] = []  # each the beginning that its keys share, and the keys; inner ones last
    for key in keys:
        while runs and not _comes_within(key, runs[-1][0]):
            yield from sorted(runs.pop()[1])
        place = next((index for index, character in enumerate(key) if character >= _FIRST_ASTRAL), -1)
        if runs and place == len(runs[-1][0]):
            runs[-1][1].append(key)
            if len(runs[-1][1]) > _MOST_HELD:
                yield from sorted(runs.pop()[1])
        elif place >= 0:
            runs.append((key[:place], [key]))
        else:
            yield key
    while runs:
        yield from sorted(runs.pop()[1])


def _comes_within(key: str, beginning: str) -> bool:
    return key.startswith(beginning) and key[len(beginning) : len(beginning) + 1] >= _AFTER_SURROGATES
