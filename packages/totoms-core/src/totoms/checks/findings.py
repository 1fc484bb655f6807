"""What a check finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """A problem, or a note.

    Attributes:
        level: ``problem`` if the service would not start, or not do what is declared; ``note`` otherwise.
        about: ``declaration``, ``backend`` or ``resources``.
        text: What is wrong.
    """

    level: Literal["problem", "note"]
    about: Literal["declaration", "backend", "resources"]
    text: str
