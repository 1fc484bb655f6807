"""Dead letters in a file, one as JSON on each line: written by ``totoms dlq export``, read by tests."""

from __future__ import annotations

import base64
import json
from typing import Any, Final

from totoms.messages.dead_letters import DeadLetter, DeadLetterReason

_TEXTS: Final = ("letter_id", "message_id", "subscription")
_REASONS: Final = ("reason", "error_class", "description")


def to_line(dead_letter: DeadLetter, *, with_data: bool) -> str:
    """Return a dead letter as one line of JSON, without a line end.

    Args:
        dead_letter: The dead letter.
        with_data: Whether its values are those that were published, as a note for readers of the file.
    """
    reason = dead_letter.reason
    fields: dict[str, Any] = {name: getattr(dead_letter, name) for name in _TEXTS}
    fields |= {name: getattr(reason, name) for name in _REASONS}
    fields |= {"attempts": reason.attempts, "dead_since": dead_letter.dead_since, "with_data": with_data}
    fields["attributes"] = dict(dead_letter.attributes)
    try:
        fields["body"] = dead_letter.body.decode()
    except UnicodeDecodeError:
        fields["body_base64"] = base64.b64encode(dead_letter.body).decode()
    return json.dumps(fields)


def from_line(line: str) -> DeadLetter:
    """Return the dead letter of one line.

    Raises:
        ValueError: It is not a line that `to_line` returned; the message says why, without quoting it.
    """
    fields: Any = json.loads(line)
    if not isinstance(fields, dict):
        raise ValueError("not a JSON object")
    attributes = fields.get("attributes")
    if not isinstance(attributes, dict) or not all(isinstance(value, str) for value in attributes.values()):
        raise ValueError("'attributes' must be an object of texts")
    if "body_base64" in fields:
        body = base64.b64decode(_value(fields, "body_base64", str), validate=True)
    else:
        body = _value(fields, "body", str).encode("utf-8", "surrogatepass")
    letter_id, message_id, subscription = (_value(fields, name, str) for name in _TEXTS)
    reason, error_class, description = (_value(fields, name, str) for name in _REASONS)
    why = DeadLetterReason(reason, error_class, description, _value(fields, "attempts", int))
    since = float(_value(fields, "dead_since", int | float))
    return DeadLetter(letter_id, message_id, subscription, body, attributes, why, since)


def _value(fields: dict[str, Any], name: str, kind: Any) -> Any:
    if not isinstance(fields.get(name), kind):
        raise ValueError(f"{name!r} is missing or has the wrong type")
    return fields[name]
