"""The log of a service."""

from __future__ import annotations

from typing import Literal

from totoms.declaration.base import Declaration


class LogConfiguration(Declaration):
    """What the log shows. It holds for the whole process: of several services, the one created last decides.

    Attributes:
        errors: ``"text"`` to log exceptions with class, text and traceback, with secrets masked; ``"class"`` to leave
            out their texts and the source lines, also in the reasons of dead letters.
    """

    errors: Literal["text", "class"] = "text"
