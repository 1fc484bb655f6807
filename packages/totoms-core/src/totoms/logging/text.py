"""Text for the log: printed without an exception, and without what could break a line."""

from __future__ import annotations

import re
from typing import Final

# C0 and C1 controls, DEL, the Unicode line ends and text-direction overrides, and lone surrogates (no UTF-8 for them).
_UNSAFE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    r"""Return `text` with control characters, line ends and lone surrogates as escapes (``\n``, ``\x1b``)."""
    if text.isprintable():
        return text
    return _UNSAFE.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape", "surrogatepass").decode("ascii")


def printed(value: object) -> str:
    """Return ``str(value)``. If that fails, say so: a line of the log must not fail its caller."""
    if type(value) is str:
        return value
    try:
        return str.__str__(str(value))
    except Exception as error:
        return f"<{type(value).__name__} that cannot be printed: {type(error).__name__}>"
