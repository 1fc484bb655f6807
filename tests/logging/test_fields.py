"""Fields of a line: ``extra=`` of the standard library, and keywords of `TotoLogger`."""

from __future__ import annotations

import datetime
import decimal
import enum
import io
import json
import logging
import pathlib
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pydantic
import pytest

from support.log import unnamed_log
from totoms import TotoLogger
from totoms.context import current_cid, remember_traceparent
from totoms.logging.describe import show_texts
from totoms.logging.fields import encode_fields
from totoms.logging.formats import JSONFormatter, LineFormatter, identity
from totoms.logging.handler import BatchHandler
from totoms.logging.masking import forget_secrets, remember_secret
from totoms.logging.setup import flush_logging

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


class Output:
    """The log of this process, as a collector would get it."""

    def __init__(self) -> None:
        self._stream = io.StringIO()
        self.handler = BatchHandler(self._stream)
        self.handler.setFormatter(JSONFormatter())
        logging.getLogger().handlers[:] = [self.handler]

    def lines(self) -> list[str]:
        flush_logging()
        return self._stream.getvalue().splitlines()

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines()]


@pytest.fixture(autouse=True)
def bare_logging() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("totoms")
    before = root.handlers[:], root.level, ours.handlers[:], ours.level
    root.setLevel(logging.INFO)
    ours.setLevel(logging.NOTSET)
    with unnamed_log():
        yield
    root.handlers[:], ours.handlers[:] = before[0], before[2]
    root.setLevel(before[1])
    ours.setLevel(before[3])
    remember_traceparent(None)


def by_logging(**fields: Any) -> None:
    logging.getLogger("service").info("text", extra=fields)


def by_totoms(**fields: Any) -> None:
    TotoLogger("blog").info("text", **fields)


def by_totoms_and_a_record(**fields: Any) -> None:
    """Not past the standard library: a filter needs a record."""
    logger = logging.getLogger("totoms.filtered")
    logger.addFilter(lambda record: True)
    TotoLogger("filtered").info("text", **fields)


WAYS = pytest.mark.parametrize("log", [by_logging, by_totoms, by_totoms_and_a_record])


@WAYS
def test_fields_are_printed_as_fields(log: Callable[..., None]) -> None:
    output = Output()
    log(invoice=7, customer="c-812", paid=True, amount=12.5, note=None, items=[1, "a", {"deep": [2]}], empty={})
    (record,) = output.records()
    assert record["message"] == "text"
    assert {name: record[name] for name in ("invoice", "customer", "paid", "amount", "note", "items", "empty")} == {
        "invoice": 7,
        "customer": "c-812",
        "paid": True,
        "amount": 12.5,
        "note": None,
        "items": [1, "a", {"deep": [2]}],
        "empty": {},
    }


@WAYS
def test_field_with_the_name_of_an_own_one_is_kept_under_another(log: Callable[..., None]) -> None:
    output = Output()
    token = current_cid.set("ours")
    try:
        log(cid="theirs", service="theirs", version="theirs", logger="theirs", severity="theirs", trace_id="theirs")
    finally:
        current_cid.reset(token)
    (record,) = output.records()
    assert record["cid"] == "ours"
    assert record["severity"] == "INFO"
    assert record["logger"] in ("service", "totoms.blog", "totoms.filtered")
    for name in ("cid", "service", "version", "logger", "severity", "trace_id"):
        assert record[f"extra_{name}"] == "theirs"
        assert record.get(name) != "theirs"


def test_prefixed_field_does_not_replace_one_that_is_called_so() -> None:
    output = Output()
    by_totoms(cid="one", extra_cid="other")
    (record,) = output.records()
    assert (record["extra_cid"], record["extra_extra_cid"]) == ("other", "one")


def test_names_of_the_standard_library_are_free_for_fields_of_totoms() -> None:
    output = Output()
    for log in (by_totoms, by_totoms_and_a_record):
        log(name="Jane", message="hello", args=1, created="now", totoms=2)
    for record in output.records():
        assert record["message"] == "text"
        assert (record["name"], record["extra_message"], record["args"]) == ("Jane", "hello", 1)
        assert (record["created"], record["totoms"]) == ("now", 2)


class Colour(enum.Enum):
    RED = "red"


class Number(enum.IntEnum):
    ONE = 1


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError


class Text(str):
    def __str__(self) -> str:
        return "other"


class Failing(dict[str, int]):
    def items(self) -> Any:
        raise RuntimeError


class Model(pydantic.BaseModel):
    number: int = 1
    password: pydantic.SecretStr = pydantic.SecretStr("canary")


def looped() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@WAYS
@pytest.mark.parametrize(
    ("value", "printed"),
    [
        (datetime.datetime(2026, 1, 2, 3, 4, tzinfo=datetime.UTC), "2026-01-02T03:04:00+00:00"),
        (datetime.date(2026, 1, 2), "2026-01-02"),
        (decimal.Decimal("1.10"), "1.10"),
        (uuid.UUID(int=7), "00000000-0000-0000-0000-000000000007"),
        (pathlib.PurePosixPath("/a"), "/a"),
        (Colour.RED, "red"),
        (Number.ONE, 1),
        (Text("own"), "own"),
        (b"\x00a", "b'\\x00a'"),
        ({1}, [1]),
        ((1, 2), [1, 2]),
        ({1: 2, None: 3}, {"1": 2, "None": 3}),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (2**63 - 1, 2**63 - 1),
        (-(2**63), -(2**63)),
        (2**63, str(2**63)),
        (ValueError("wrong"), "ValueError: wrong"),
        (Model(), "number=1 password=SecretStr('**********')"),
        (range(10**12), "range(0, 1000000000000)"),
        (Unprintable(), "<Unprintable that cannot be printed: RuntimeError>"),
        (Failing(), "<Failing that cannot be printed: RuntimeError>"),
        (looped(), [[[[[[[["<list>"]]]]]]]]),
        ("lone \ud800", "lone \\ud800"),
        ("two\nlines\x1b\u2028", "two\nlines\\x1b\\u2028"),
        ({"key\x1b": "a\x07"}, {"key\\x1b": "a\\x07"}),
    ],
)
def test_any_value_is_taken(log: Callable[..., None], value: Any, printed: Any) -> None:
    output = Output()
    log(value=value)
    assert len(output.lines()) == 1
    assert output.records()[0]["value"] == printed


def test_text_of_an_exception_is_left_out_where_the_declaration_says_class() -> None:
    output = Output()
    show_texts(False)
    try:
        by_totoms(error=ValueError("canary"))
    finally:
        show_texts(True)
    assert output.records()[0]["error"] == "ValueError: "


@WAYS
def test_secrets_in_values_are_masked_and_keys_are_not(log: Callable[..., None]) -> None:
    remember_secret(("test", "fields"), b"canary-secret")
    output = Output()
    try:
        log(
            password="canary-secret",
            nested={"canary-secret": ["Bearer abcdefghijkl", {"deep": "x canary-secret y"}]},
            error=ValueError("canary-secret"),
            raw=b"canary-secret",
            url="https://user:passwort@host/",
        )
    finally:
        forget_secrets("test")
    (record,) = output.records()
    assert record["password"] == "***"
    assert record["nested"] == {"canary-secret": ["Bearer ***", {"deep": "x *** y"}]}
    assert record["error"] == "ValueError: ***"
    assert record["raw"] == "b'***'"
    assert record["url"] == "https://user:***@host/"


def test_keys_may_be_anything_that_a_record_takes() -> None:
    output = Output()
    logging.getLogger("service").info("text", extra={1: "number", 'quoted"\n': "text", "": "empty"})  # type: ignore[dict-item]
    (record,) = output.records()
    assert (record["1"], record['quoted"\\n'], record[""]) == ("number", "text", "empty")


def test_fields_of_a_filter_and_of_a_record_factory_are_printed() -> None:
    output = Output()

    def add_tenant(record: logging.LogRecord) -> bool:
        record.tenant = "t-1"
        return True

    before = logging.getLogRecordFactory()

    def factory(*given: Any, **named: Any) -> logging.LogRecord:
        record = before(*given, **named)
        record.region = "r-1"
        return record

    output.handler.addFilter(add_tenant)
    logging.setLogRecordFactory(factory)
    try:
        by_logging(invoice=7)
        by_totoms(invoice=8)
    finally:
        logging.setLogRecordFactory(before)
    for record, invoice in zip(output.records(), (7, 8), strict=True):
        assert (record["tenant"], record["region"], record["invoice"]) == ("t-1", "r-1", invoice)


def test_handlers_of_the_user_see_fields_as_attributes(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger().handlers[:] = [caplog.handler]
    by_totoms(invoice=7, name="Jane")
    (record,) = caplog.records
    assert record.invoice == 7  # type: ignore[attr-defined]
    assert record.name == "totoms.blog"


# --- the line's own fields ---


def test_line_of_the_standard_library_has_cid_service_version_and_trace() -> None:
    output = Output()
    identity.describe("blog", "1.4.0", "severity")
    remember_traceparent(f"00-{TRACE}-00f067aa0ba902b7-01")
    token = current_cid.set("cid-1")
    try:
        logging.getLogger("store.posts").info("Stored", extra={"invoice": 7})
        TotoLogger("blog").info("Stored", invoice=7)
    finally:
        current_cid.reset(token)
    for record, logger in zip(output.records(), ("store.posts", "totoms.blog"), strict=True):
        record.pop("timestamp")
        assert record == {
            "severity": "INFO",
            "message": "Stored",
            "cid": "cid-1",
            "trace_id": TRACE,
            "service": "blog",
            "version": "1.4.0",
            "logger": logger,
            "invoice": 7,
        }


def test_span_of_a_tracer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("totoms.context.span_ids_of_tracer", lambda: (TRACE, "00f067aa0ba902b7"))
    output = Output()
    by_logging()
    by_totoms()
    assert [(record["trace_id"], record["span_id"]) for record in output.records()] == [(TRACE, "00f067aa0ba902b7")] * 2


@WAYS
def test_level_is_called_as_the_hyperscaler_calls_it(log: Callable[..., None]) -> None:
    output = Output()
    identity.describe("blog", "", "lvl")
    log(lvl="theirs", severity="theirs")
    (record,) = output.records()
    assert (record["lvl"], record["extra_lvl"], record["extra_severity"]) == ("INFO", "theirs", "theirs")
    assert not {"severity", "level"} & set(record)


# --- the methods of TotoLogger ---


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_method_logs_at_its_level_with_the_cid_of_the_context(level: str) -> None:
    logging.getLogger("totoms").setLevel(logging.DEBUG)
    output = Output()
    token = current_cid.set("cid-1")
    try:
        getattr(TotoLogger("blog"), level)("text %s", invoice=7)
    finally:
        current_cid.reset(token)
    (record,) = output.records()
    assert record["severity"] == level.upper()
    assert (record["message"], record["cid"], record["invoice"]) == ("text %s", "cid-1", 7)


def test_exception_adds_the_exception_at_hand() -> None:
    output = Output()
    try:
        raise ValueError("wrong")
    except ValueError:
        TotoLogger("blog").exception("It failed", invoice=7)
    TotoLogger("blog").exception("Nothing failed")
    failed, other = output.records()
    assert (failed["severity"], failed["invoice"]) == ("ERROR", 7)
    assert failed["exception"].endswith("builtins.ValueError: wrong")
    assert "exception" not in other


def test_methods_are_silent_below_the_level() -> None:
    output = Output()
    TotoLogger("blog").debug("text", invoice=7)
    assert output.lines() == []


def test_message_of_a_method_may_be_anything_and_secrets_are_masked() -> None:
    output = Output()
    TotoLogger("blog").info(Unprintable())
    TotoLogger("blog").info("Bearer abcdefghijkl")
    assert [record["message"] for record in output.records()] == [
        "<Unprintable that cannot be printed: RuntimeError>",
        "Bearer ***",
    ]


# --- a terminal ---


def test_terminal_shows_fields_behind_the_message() -> None:
    output = Output()
    output.handler.setFormatter(LineFormatter())
    logging.getLogger("service").info("Paid", extra={"invoice": 7, "to": "Jane Doe", "id": "c-1", "list": [1], "x": ""})
    TotoLogger("blog").info("Paid", to='a\n"b', error=ValueError("x"))
    first, second = output.lines()
    assert first.endswith('INFO     [service] Paid invoice=7 to="Jane Doe" id=c-1 list=[1] x=""')
    assert second.endswith(r'''INFO     [blog] Paid to="a\n\"b" error="ValueError: x"''')


def test_encoded_fields_are_those_of_the_standard_encoder() -> None:
    fields = {"a": 'quote " and \\', "b": "Ünïcode 漢字 😀", "c": -1, "d": 1e300, "e": 0.1}
    assert json.loads("{" + encode_fields(fields)[1:] + "}") == fields


def test_structure_that_contains_itself_many_times_is_cut() -> None:
    around: list[Any] = []
    around += [around] * 10
    (value,) = json.loads("{" + encode_fields({"around": around})[1:] + "}").values()
    assert json.dumps(value).count("[") <= 1001
    assert "more" in json.dumps(value)


def test_long_containers_are_cut() -> None:
    fields = json.loads(
        "{" + encode_fields({"many": list(range(5000)), "named": {str(n): n for n in range(5000)}})[1:] + "}"
    )
    assert fields["many"][999:] == [999, "... 4000 more"]
    assert len(fields["named"]) == 1001
    assert fields["named"]["..."] == "4000 more"


def test_note_that_cannot_be_printed_does_not_lose_the_line() -> None:
    output = Output()
    error = ValueError("wrong")
    error.__notes__ = [Unprintable(), "a note"]  # type: ignore[list-item]
    TotoLogger("blog").log("c-1", "failed", "ERROR", error)
    (record,) = output.records()
    assert "cannot be printed" in record["exception"]
    assert "a note" in record["exception"]
