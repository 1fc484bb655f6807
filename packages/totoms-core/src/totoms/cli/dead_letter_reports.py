"""What ``totoms dlq`` prints about dead letters. Only `print_letter` prints what was published."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any, Final

from totoms.cli.groups import group
from totoms.cli.output import iso, print_note, print_table
from totoms.cli.selection import message_type
from totoms.cli.subscriptions import Count
from totoms.messages.dead_letters import DeadLetter

_COLUMNS: Final = ("letter_id", "message_id", "type", "attempts", "reason", "error_class", "dead_since")
_GROUP_COLUMNS: Final = ("count", "error_class", "place", "type", "newest", "letter_id")


def print_counts(counts: Sequence[Count], hyperscaler: str, *, as_json: bool) -> None:
    """Print subscriptions with the number of their dead letters."""
    if as_json:
        names = ("subscription", "dead_letters", "more", "problem")
        _print_json([{name: getattr(one, name) for name in names} for one in counts])
    elif counts:
        rows = [(one.subscription, one.problem or f"{one.dead_letters}{'+' * one.more}") for one in counts]
        print_table(("SUBSCRIPTION", "DEAD LETTERS"), rows)
    else:
        print_note("There are no subscriptions.")
    if any(one.hidden for one in counts):
        print_note(f"On {hyperscaler}, they were hidden from others while they were counted.")


def print_list(dead_letters: Sequence[DeadLetter], scope: str, *, as_json: bool) -> None:
    """Print a line for each dead letter; if there is none, that `scope` has none."""
    _print_rows([_summary(one) for one in dead_letters], _COLUMNS, scope, as_json=as_json)


def print_groups(dead_letters: Sequence[DeadLetter], scope: str, *, as_json: bool) -> None:
    """Print a line for each group of dead letters; if there is none, that `scope` has none."""
    rows = [
        {
            "count": one.count,
            "error_class": one.error_class,
            "place": one.place,
            "type": message_type(one.newest),
            "newest": iso(one.newest.dead_since),
            "letter_id": one.newest.letter_id,
        }
        for one in group(dead_letters)
    ]
    _print_rows(rows, _GROUP_COLUMNS, scope, as_json=as_json)


def _print_rows(rows: Sequence[dict[str, Any]], columns: Sequence[str], scope: str, *, as_json: bool) -> None:
    if as_json:
        _print_json(rows)
    elif rows:
        headings = [name.upper().replace("_", " ") for name in columns]
        print_table(headings, [[row[name] for name in columns] for row in rows])
    else:
        print_note(f"{scope} has no dead letters.")


def _print_json(found: object) -> None:
    sys.stdout.write(json.dumps(found, indent=2) + "\n")


def _summary(dead_letter: DeadLetter) -> dict[str, Any]:
    return {
        "letter_id": dead_letter.letter_id,
        "message_id": dead_letter.message_id,
        "type": message_type(dead_letter),
        "attempts": dead_letter.reason.attempts,
        "reason": dead_letter.reason.reason,
        "error_class": dead_letter.reason.error_class,
        "description": dead_letter.reason.description,
        "dead_since": iso(dead_letter.dead_since),
    }


def print_letter(dead_letter: DeadLetter) -> None:
    """Print everything about a dead letter, with its body."""
    for name, value in {"subscription": dead_letter.subscription, **_summary(dead_letter)}.items():
        sys.stdout.write(f"{name.replace('_', ' ') + ':':<14}{_escape(str(value)) or '-'}\n")
    for name, value in dead_letter.attributes.items():
        sys.stdout.write(f"attribute:    {_escape(name)} = {_escape(str(value))}\n")
    sys.stdout.write(f"body:         {len(dead_letter.body)} bytes\n\n{_pretty(dead_letter.body)}\n")


def _pretty(body: bytes) -> str:
    """Return `body` for a terminal: JSON indented, control characters escaped."""
    try:
        text = json.dumps(json.loads(body), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        text = body.decode("utf-8", "backslashreplace")
    return _escape(text, keep="\n\t")


def _escape(text: str, keep: str = "") -> str:
    # With JSON's escapes, so that JSON stays valid.
    return "".join(one if one.isprintable() or one in keep else json.dumps(one)[1:-1] for one in text)
