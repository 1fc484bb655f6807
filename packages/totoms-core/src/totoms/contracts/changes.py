"""Changes of a contract, and the callers or services that they affect."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Change:
    """One change.

    Attributes:
        breaks: Whether it is a breaking change; otherwise it is a note.
        whom: The affected callers or services, such as ``callers of POST /blog/posts``.
        text: What changed.
    """

    breaks: bool
    whom: str
    text: str
