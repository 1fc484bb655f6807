"""Say what went wrong without repeating what was said: exception messages may quote secrets."""

from __future__ import annotations

import re
import traceback
from pathlib import PurePath
from typing import Final

# Controls, line ends, lone surrogates, noncharacters. Named one by one: a negated class takes 3 ms to compile.
_UNPRINTABLE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")
_LIMIT: Final = 1000


def where(error: BaseException) -> str:
    """Return the class of `error` and the places it passed, for the log: never its message, which may quote a secret.

    For example ``KeyError at store.py:12 in read < handlers.py:40 in process_message``.
    """
    frames = [
        f"{PurePath(frame.filename).name}:{frame.lineno} in {frame.name}"
        for frame in reversed(
            traceback.StackSummary.extract(traceback.walk_tb(error.__traceback__), lookup_lines=False)
        )
    ]
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    text = type(error).__name__ + (" at " + " < ".join(frames[:6]) if frames else "")
    return f"{text}, from {type(cause).__name__}" if cause is not None else text


def printable(text: str) -> str:
    """Return `text` on one line without control characters, at most 1,000 characters."""
    return _UNPRINTABLE.sub(" ", text)[:_LIMIT]
