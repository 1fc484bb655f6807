"""Describe exceptions on one line, with secrets masked and without what a caller sent to a model."""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, Final

from totoms.errors import TotoError
from totoms.logging.masking import mask

# Controls, line ends, lone surrogates, noncharacters. Named one by one: a negated class takes 3 ms to compile.
_UNPRINTABLE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")
_LIMIT: Final = 1000
_SHORT: Final = 200
_SHORTEST_QUOTE: Final = 3
_PACKAGES: Final = ("site-packages", "dist-packages")
_STANDARD_LIBRARY: Final = str(PurePath(os.__file__).parent)
_TOTOMS: Final = str(PurePath(__file__).parents[1])


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


def service_frame(error: BaseException) -> str:
    """Return where the service's own code was when `error` was raised, such as ``posts.py:42 in store``, or "".

    That is the innermost frame outside of totoms, the standard library and installed packages. For a service that is
    an installed package itself, it is the handler.
    """
    frames = [
        (PurePath(file), line, frame.f_code.co_name)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if not _is_of_python_or_totoms(file := frame.f_code.co_filename)
    ]
    own = [frame for frame in frames if not set(_PACKAGES) & set(frame[0].parts)]
    if not frames:
        return ""
    path, line, function = own[-1] if own else frames[0]
    return printable(f"{path.name}:{line} in {function}")


def _is_of_python_or_totoms(file: str) -> bool:
    if file.startswith((_TOTOMS, "<")):  # "<" for generated code
        return True
    return file.startswith(_STANDARD_LIBRARY) and not any(packages in file for packages in _PACKAGES)


def error_text(error: BaseException) -> str:
    """Return the message of `error`, with secrets masked; of a pydantic error the fields, without their values.

    With ``LogConfiguration(errors="class")``, only a `TotoError` has a message.
    """
    if not _show_texts and not isinstance(error, TotoError):
        return ""
    return mask(_problems(error) or _string(error))


def show_texts(shown: bool) -> None:
    """Set whether `error_text` returns the messages of errors other than `TotoError`."""
    global _show_texts
    _show_texts = shown


def texts_shown() -> bool:
    """Return whether the messages of all errors are shown."""
    return _show_texts


_show_texts = True


def _problems(error: BaseException) -> str:
    """Return what is wrong with each field, for an error of pydantic or FastAPI, whose own text quotes the input."""
    if type(error).__module__.partition(".")[0] not in ("pydantic", "pydantic_core", "fastapi"):
        return ""
    try:
        problems: Any = error.errors()  # type: ignore[attr-defined]
        return "; ".join(field_problem(problem) for problem in problems) or "validation failed"
    except Exception:  # not a validation error, or one that cannot be described
        return ""


def field_problem(problem: Mapping[str, Any]) -> str:
    """Return ``body.title: Field required`` for one entry of a validation error's ``errors()``.

    The text of a validator that quotes the value is left out.
    """
    where = ".".join(map(str, problem.get("loc", ()))) or "the value"
    text = str(problem.get("msg", "not valid")).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    given = problem.get("input")
    values = map(str, given.values() if isinstance(given, dict) else [given])
    if problem.get("type") in ("value_error", "assertion_error") and any(
        len(value) > _SHORTEST_QUOTE and value in text for value in values
    ):
        text = "not valid"
    return f"{where}: {text}"


def describe_error(error: BaseException) -> str:
    """Return the message of a backend's error and of the SDK's error behind it, for the log only.

    A `TotoError` itself never quotes the SDK, because its message may be sent to a caller.
    """
    if not (isinstance(error, TotoError) and error.message):
        return f"{error_location(error)}: {_text(error)}"
    cause = error.__cause__
    return printable(error.message) + (f" ({type(cause).__name__}: {_text(cause)})" if cause is not None else "")


def _text(error: BaseException) -> str:
    text = printable(error_text(error)).strip()
    return text if len(text) <= _SHORT else text[:_SHORT] + "…"


def _string(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as failure:  # a __str__ that fails must not lose the log line
        return f"<{type(error).__name__} that cannot be printed: {type(failure).__name__}>"


def printable(text: str) -> str:
    """Return `text` on one line without control characters and secrets, at most 1,000 characters."""
    # Masked before it is cut: a part of a secret is not recognised.
    return _UNPRINTABLE.sub(" ", mask(text))[:_LIMIT]
