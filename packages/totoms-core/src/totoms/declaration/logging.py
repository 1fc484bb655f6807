"""The log of a service."""

from __future__ import annotations

from typing import Literal

from totoms.declaration.base import Declaration


class LogConfiguration(Declaration):
    """What the log shows.

    Attributes:
        errors: ``"text"`` to log exceptions with class, text and traceback, with secrets masked; ``"class"`` to leave
            out their texts and the source lines, also in the reasons of dead letters. It holds for the whole process:
            of several services, the one created last decides.
        requests: Whether to log a line for each request, with its method, route, status, time and caller. Those for
            ``/``, ``/health`` and ``/ready`` have the level DEBUG.
        subjects: Whether that line names the caller, by `UserContext.subject`.
    """

    errors: Literal["text", "class"] = "text"
    requests: bool = True
    subjects: bool = True
