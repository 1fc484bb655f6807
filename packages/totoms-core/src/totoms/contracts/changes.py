"""Changes of a contract, and whom they break."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Change:
    """One change.

    Attributes:
        breaks: Whether it breaks somebody; otherwise it is only worth knowing.
        whom: Whom it concerns, such as ``callers of POST /blog/posts``.
        text: What changed.
    """

    breaks: bool
    whom: str
    text: str
