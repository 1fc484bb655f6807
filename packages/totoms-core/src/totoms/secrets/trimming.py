"""Strip white space around values that were stored by hand: ``echo key | ...`` stores a newline after the key.

White space there is a mistake, and it breaks things: an audience with a newline rejects every token, a
signing key with one is another key, and a topic's name with one does not exist.
"""

from __future__ import annotations

from typing import Final

from totoms.logging.logger import TotoLogger

_BLANKS: Final = " \t\r\n\v\f\ufeff"  # the last one is the byte order mark that PowerShell writes
_warned: Final[set[str]] = set()


def strip_ends(value: str, name: str) -> str:
    """Return `value` without white space at its ends, and warn about it once for each `name`.

    Args:
        value: A key, an audience or an identifier. It is never logged.
        name: The name for the warning, such as ``the secret 'posts-topic'``.
    """
    stripped = value.strip(_BLANKS)
    if stripped != value and name not in _warned:
        _warned.add(name)
        TotoLogger.get_instance().log(
            "init", f"Ignored white space around the value of {name}: store it without.", "WARNING"
        )
    return stripped
