"""Convert Python values that :mod:`json` and orjson do not write to JSON values.

pydantic models become ``model_dump(mode="json", by_alias=True)``, dataclasses objects, enums their values, dates and
times ISO 8601, `UUID` and `Decimal` strings. A string keeps a `Decimal` exact, as pydantic does in a model; most
readers would parse a number as a float.

NaN and infinity are rejected (RFC 8259, section 6), and so are sets, bytes and objects of other classes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Set
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import Any, Final
from uuid import UUID

import orjson
from pydantic import BaseModel

_HOLDS: Final = "it holds "
_JSON_ERRORS: Final = {
    "Out of range float values": "it holds NaN or infinity",
    "Circular reference": "it holds itself",
    "Exceeds the limit": "it holds an integer with too many digits",
}
"""The start of messages of the standard library's encoder, and the explanation of each."""


def encodable(value: Any) -> Any:
    """Convert a value for orjson, as its argument ``default``. Models are written by pydantic itself.

    A model that holds NaN may become null: use :func:`plain` if the result has one.

    Raises:
        TypeError, ValueError, RecursionError: As for :func:`plain`. A TypeError as well for a model that may hold NaN:
            use :func:`plain` for it.
    """
    if isinstance(value, BaseModel) and type(value).model_dump is BaseModel.model_dump:
        text = BaseModel.model_dump_json(value, by_alias=True, warnings=False)
        # pydantic writes NaN as null, which the caller looks for, or by its name. One letter is found faster than that.
        if ("N" in text and "NaN" in text) or ("I" in text and "Infinity" in text):
            raise TypeError(f"{_HOLDS}a model that may hold NaN")
        return orjson.Fragment(text)
    return plain(value)


def plain(value: Any) -> Any:
    """Convert `value` to dictionaries with string keys, lists, strings, finite numbers, booleans and None.

    Raises:
        TypeError: It holds a value that cannot be converted. The message names the class, never the value.
        ValueError: It holds NaN or infinity.
        RecursionError: It is nested too deeply, or holds itself.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{_HOLDS}NaN or infinity")
        return float(value)
    if isinstance(value, Mapping):
        return {_key(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return _object(value)


def explain(error: BaseException) -> str:
    """Return why a value cannot be written as JSON, given the error that :func:`plain` or an encoder raised."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, UnicodeEncodeError):
        return "it holds a lone surrogate"
    text = str(error.args[0]) if error.args and isinstance(error, TypeError | ValueError) else ""
    if text.startswith(_HOLDS):
        return text
    for start, reason in _JSON_ERRORS.items():
        if text.startswith(start):
            return reason
    return type(error).__name__  # its text may quote a value


def _object(value: Any) -> Any:
    if isinstance(value, BaseModel):
        check_finite(value)  # model_dump writes NaN and infinity as null
        return plain(value.model_dump(mode="json", by_alias=True, warnings=False))  # warnings would show values
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        # Without names that start with an underscore, like orjson, which writes most dataclasses itself.
        names = (field.name for field in dataclasses.fields(value))
        return {name: plain(getattr(value, name)) for name in names if not name.startswith("_")}
    if isinstance(value, Decimal):
        if not value.is_finite():
            raise ValueError(f"{_HOLDS}NaN or infinity")
        return str(value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    raise TypeError(f"{_HOLDS}a value of the class {type(value).__name__}")


def check_finite(value: Any) -> None:
    """Reject NaN and infinity, which pydantic would write as null.

    Args:
        value: Any value; models, dataclasses and containers are searched.

    Raises:
        ValueError: It holds NaN or infinity.
    """
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, float | Decimal):
        if not math.isfinite(value):  # raises a ValueError itself for a signaling NaN
            raise ValueError(f"{_HOLDS}NaN or infinity")
    elif isinstance(value, str | int | bytes):
        pass
    elif isinstance(value, Mapping):
        for key, one in value.items():
            check_finite(key)
            check_finite(one)
    elif isinstance(value, list | tuple | Set):
        for one in value:
            check_finite(one)
    elif isinstance(value, BaseModel):
        _check_model(value)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            check_finite(getattr(value, field.name))


def _check_model(model: BaseModel) -> None:
    try:
        for one in (*vars(model).values(), *(model.__pydantic_extra__ or {}).values()):
            check_finite(one)
    except ValueError:
        # The field may be excluded from the output, or have a serializer of its own.
        check_finite(model.model_dump(by_alias=True, warnings=False))


def _key(key: Any) -> str:
    if isinstance(key, Enum):
        key = key.value
    if isinstance(key, str):
        return str.__str__(key)
    if key is None or isinstance(key, bool):
        return {None: "null", True: "true", False: "false"}[key]
    if isinstance(key, int):
        return int.__repr__(key)
    if isinstance(key, float) and math.isfinite(key):
        return float.__repr__(key)
    if isinstance(key, UUID | date | time | Decimal):
        text: str = _object(key)
        return text
    raise TypeError(f"{_HOLDS}a key of the class {type(key).__name__}")
