"""Describe exceptions for the log. Messages of unknown exceptions are left out: they may quote secrets."""

from __future__ import annotations

import re
import traceback
from pathlib import PurePath
from typing import Final

from totoms.errors import TotoError

# Controls, line ends, lone surrogates, noncharacters. Named one by one: a negated class takes 3 ms to compile.
_UNPRINTABLE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")
_LIMIT: Final = 1000
_SHORT: Final = 200


def error_location(error: BaseException) -> str:
    """Return the class of `error` and where it was raised, innermost frame first, without its message.

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


def describe_error(error: BaseException) -> str:
    """Return the message of a backend's error and of the SDK's error behind it, for the log only.

    A `TotoError` itself never quotes the SDK, because its message may be sent to a caller.
    """
    if not (isinstance(error, TotoError) and error.message):
        return f"{error_location(error)}: {_text(error)}"
    cause = error.__cause__
    return printable(error.message) + (f" ({type(cause).__name__}: {_text(cause)})" if cause is not None else "")


def _text(error: BaseException) -> str:
    text = printable(str(error)).strip()
    return text if len(text) <= _SHORT else text[:_SHORT] + "…"


def printable(text: str) -> str:
    """Return `text` on one line without control characters, at most 1,000 characters."""
    return _UNPRINTABLE.sub(" ", text)[:_LIMIT]
