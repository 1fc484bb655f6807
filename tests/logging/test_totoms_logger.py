"""`TotoLogger`: through the standard library, tolerant of what it is given, and impossible to forge a line with."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pydantic
import pytest

from support.log import unnamed_log
from totoms import TotoLogger, ValidationError
from totoms.context import current_cid
from totoms.logging.describe import show_texts
from totoms.logging.formats import JSONFormatter, LineFormatter
from totoms.logging.handler import BatchHandler
from totoms.logging.setup import configure_logging, flush_logging
from totoms.logging.text import visible

HOSTILE = {
    "newline": "a\nb",
    "carriage return": "a\rb",
    "both": 'a\r\n{"severity":"ERROR"}',
    "escape": "a\x1b[31mred\x1b[0m",
    "null": "a\x00b",
    "bell and delete": "\x07\x7f",
    "C1 controls": "\x85\x9b31m",
    "line and paragraph separators": "a\u2028b\u2029c",
    "vertical tab and form feed": "a\x0bb\x0cc\x1cd\x1ee",
    "direction overrides": "a\u202eb\u2066c",
    "lone surrogate": "a\ud800b",
}


@pytest.fixture(autouse=True)
def bare_logging() -> Iterator[None]:
    """No handlers but the test's, and everything as it was afterwards."""
    root, ours = logging.getLogger(), logging.getLogger("totoms")
    before = root.handlers[:], root.level, ours.handlers[:], ours.level
    root.handlers[:], ours.handlers[:] = [], []
    ours.setLevel(logging.NOTSET)
    with unnamed_log():
        yield
    root.handlers[:], ours.handlers[:] = before[0], before[2]
    root.setLevel(before[1])
    ours.setLevel(before[3])


def alone() -> None:
    """Take off pytest's own handlers, which it puts on when the test begins."""
    logging.getLogger().handlers.clear()


def attach(formatter: logging.Formatter) -> io.StringIO:
    root = logging.getLogger()
    root.handlers[:] = [handler for handler in root.handlers if isinstance(handler, BatchHandler)]
    stream = io.StringIO()
    handler = BatchHandler(stream)
    handler.setFormatter(formatter)
    logging.getLogger().addHandler(handler)
    logging.getLogger("totoms").setLevel(logging.INFO)
    return stream


def lines(stream: io.StringIO) -> list[str]:
    flush_logging()
    return stream.getvalue().splitlines()


def records(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines(stream)]


def test_line_has_the_fields_that_clouds_index() -> None:
    stream = attach(JSONFormatter())
    TotoLogger("blog").log("cid-1", "100% done: %s {}")
    (record,) = records(stream)
    assert datetime.fromisoformat(record.pop("timestamp")).tzinfo is not None
    assert record == {
        "severity": "INFO",
        "message": "100% done: %s {}",
        "cid": "cid-1",
        "service": "blog",
        "logger": "totoms.blog",
    }


def test_both_ways_of_writing_a_line_give_the_same() -> None:
    stream = attach(JSONFormatter())
    logger = TotoLogger("blog")
    logger.log("cid", "text")
    logging.getLogger("totoms.blog").addFilter(lambda record: True)
    try:
        logger.log("cid", "text")
    finally:
        logging.getLogger("totoms.blog").filters.clear()
    one, other = records(stream)
    assert one | {"timestamp": ""} == other | {"timestamp": ""}


@pytest.mark.parametrize(
    "level", [None, "INFO", "info", " Info ", "", "nonsense", 0, -1, 99, True, 1.5, [], {}, object(), "ÉÉ"]
)
def test_any_level_is_taken_and_unknown_ones_mean_info(level: Any) -> None:
    stream = attach(JSONFormatter())
    TotoLogger("blog").log("cid", "text", level)
    assert [record["severity"] for record in records(stream)] == ["INFO"]


@pytest.mark.parametrize(
    ("level", "severity"),
    [
        ("warn", "WARNING"),
        ("WARNING", "WARNING"),
        (30, "WARNING"),
        ("error", "ERROR"),
        (40, "ERROR"),
        (35, "WARNING"),
        ("fatal", "CRITICAL"),
        ("critical", "CRITICAL"),
        (50, "CRITICAL"),
    ],
)
def test_levels_become_severities(level: Any, severity: str) -> None:
    stream = attach(JSONFormatter())
    TotoLogger("blog").log("cid", "text", level)
    assert records(stream)[0]["severity"] == severity


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize("value", [None, 7, b"bytes", ["list"], {"a": 1}, Unprintable(), ValueError("x")])
def test_message_and_cid_may_be_anything(value: Any) -> None:
    stream = attach(JSONFormatter())
    TotoLogger("blog").log(value, value)
    assert len(lines(stream)) == 1


def test_missing_cid_is_that_of_the_request_at_hand() -> None:
    stream = attach(JSONFormatter())
    reset = current_cid.set("of-the-request")
    try:
        TotoLogger("blog").log(None, "a")
        TotoLogger("blog").log("", "b")
        logging.getLogger("users.own").warning("c")
    finally:
        current_cid.reset(reset)
    assert [record["cid"] for record in records(stream)] == ["of-the-request"] * 3


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("formatter", [JSONFormatter, LineFormatter])
@pytest.mark.parametrize("service", ["blog", "hostile"])
def test_nothing_can_forge_a_line(text: str, formatter: type[logging.Formatter], service: str) -> None:
    stream = attach(formatter())
    TotoLogger(text if service == "hostile" else "blog").log(text, text)
    flush_logging()
    written = stream.getvalue()
    assert written.count("\n") == 1
    assert written.endswith("\n")
    assert written[:-1].isprintable()
    assert len(written.splitlines()) == 1


@pytest.mark.parametrize("formatter", [JSONFormatter, LineFormatter])
def test_nothing_can_forge_a_line_through_the_standard_library_either(formatter: type[logging.Formatter]) -> None:
    stream = attach(formatter())
    logging.getLogger("own\nlogger").warning("a\n%s", "b\x1b", extra={"cid": "c\nd", "service": "e\rf"})
    assert len(lines(stream)) == 1
    assert "\x1b" not in stream.getvalue()


def test_ordinary_text_is_left_as_it_is() -> None:
    text = 'Ünïcode, 漢字, 😀, "quotes", \\backslash, {json}, non\u00a0breaking'
    assert visible(text) == text
    stream = attach(JSONFormatter())
    TotoLogger("blog").log("cid", text)
    assert records(stream)[0]["message"] == text


def test_exception_is_one_field_of_one_line() -> None:
    stream = attach(JSONFormatter())
    try:
        raise ValueError("bad\nvalue\u2028")
    except ValueError:
        logging.getLogger("own").exception("failed")
    assert len(lines(stream)) == 1
    (record,) = records(stream)
    assert "Traceback" in record["exception"]
    assert "\u2028" not in record["exception"]


def test_exception_on_a_terminal_is_indented_so_that_it_can_forge_no_line() -> None:
    stream = attach(LineFormatter())
    try:
        raise ValueError("bad\n12:00:00.000 INFO     [blog] forged")
    except ValueError:
        logging.getLogger("own").exception("failed")
    first, *rest = lines(stream)
    assert "failed" in first
    assert rest
    assert all(line.startswith("    | ") for line in rest)


def failing() -> None:
    try:
        int("canary")
    except ValueError as error:
        raise KeyError("canary") from error


def logged_failure() -> str:
    stream = attach(JSONFormatter())
    try:
        failing()
    except KeyError as error:
        TotoLogger("blog").log("cid", "It failed", "ERROR", error)
    (record,) = records(stream)
    exception: str = record["exception"]
    assert exception.count("test_totoms_logger.py") == 3
    assert "in failing" in exception
    return exception


def test_error_is_logged_with_class_text_and_traceback_of_each_cause() -> None:
    exception = logged_failure()
    assert "builtins.ValueError: invalid literal for int() with base 10: 'canary'" in exception
    assert exception.endswith("builtins.KeyError: 'canary'")
    assert 'raise KeyError("canary") from error' in exception


def test_error_is_logged_without_text_and_source_where_the_declaration_says_class() -> None:
    show_texts(False)
    try:
        exception = logged_failure()
    finally:
        show_texts(True)
    assert "builtins.ValueError: message withheld" in exception
    assert "canary" not in exception


def test_errors_of_a_group_are_logged_with_their_texts() -> None:
    stream = attach(JSONFormatter())
    TotoLogger("blog").log("cid", "It failed", "ERROR", ExceptionGroup("two", [ValueError("one"), KeyError("other")]))
    exception = records(stream)[0]["exception"]
    assert "ExceptionGroup: two (2 sub-exceptions)" in exception
    assert "member 1:\n    builtins.ValueError: one" in exception
    assert "member 2:\n    builtins.KeyError: 'other'" in exception


class Credentials(pydantic.BaseModel):
    number: int
    password: str

    @pydantic.field_validator("password")
    @classmethod
    def long(cls, value: str) -> str:
        raise ValueError(f"{value} is too short")


@pytest.mark.parametrize("through", ["totoms", "the standard library"])
def test_validation_error_is_logged_with_its_fields_and_without_their_values(through: str) -> None:
    stream = attach(JSONFormatter())
    try:
        Credentials.model_validate({"number": "canary", "password": "canary"})
    except pydantic.ValidationError as error:
        if through == "totoms":
            TotoLogger("blog").log("cid", "It failed", "ERROR", error)
        else:
            logging.getLogger("own").exception("It failed")
    written = "".join(lines(stream))
    assert "ValidationError: number: Input should be a valid integer" in written
    assert "password: not valid" in written
    assert "_value='canary'" not in written
    assert "is too short" not in written.replace("{value} is too short", "")


def test_text_of_our_own_errors_is_reported() -> None:
    stream = attach(JSONFormatter())
    TotoLogger("blog").log("cid", "It failed", "ERROR", ValidationError("No name."))
    assert "No name." in records(stream)[0]["exception"]


def test_error_caused_by_itself_ends() -> None:
    stream = attach(JSONFormatter())
    one, other = ValueError(), KeyError()
    one.__cause__, other.__cause__ = other, one
    TotoLogger("blog").log("cid", "It failed", "ERROR", one)
    assert len(lines(stream)) == 1


# --- the standard library ---


def test_handlers_of_the_user_see_the_record(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger().addHandler(caplog.handler)
    logging.getLogger("totoms").setLevel(logging.INFO)
    TotoLogger("blog").log("cid-1", "text", "warning")
    (record,) = caplog.records
    assert (record.name, record.levelno, record.getMessage()) == ("totoms.blog", logging.WARNING, "text")
    assert (record.cid, record.service) == ("cid-1", "blog")  # type: ignore[attr-defined]


def test_levels_of_the_user_are_respected() -> None:
    stream = attach(JSONFormatter())
    logging.getLogger("totoms").setLevel(logging.ERROR)
    TotoLogger("blog").log("cid", "quiet")
    logging.getLogger("totoms.blog").setLevel(logging.INFO)
    try:
        TotoLogger("blog").log("cid", "loud")
        logging.disable(logging.WARNING)
        TotoLogger("blog").log("cid", "disabled")
    finally:
        logging.disable(logging.NOTSET)
        logging.getLogger("totoms.blog").setLevel(logging.NOTSET)
    assert [record["message"] for record in records(stream)] == ["loud"]


def test_filters_of_the_user_are_respected() -> None:
    stream = attach(JSONFormatter())
    (handler,) = logging.getLogger().handlers
    handler.addFilter(lambda record: "secret" not in record.getMessage())
    TotoLogger("blog").log("cid", "a secret")
    TotoLogger("blog").log("cid", "nothing")
    assert [record["message"] for record in records(stream)] == ["nothing"]


def test_second_handler_gets_the_line_as_well() -> None:
    first, second = attach(JSONFormatter()), attach(LineFormatter())
    TotoLogger("blog").log("cid", "text")
    assert len(lines(first)) == len(lines(second)) == 1


def test_level_of_the_handler_is_respected() -> None:
    stream = attach(JSONFormatter())
    logging.getLogger().handlers[0].setLevel(logging.ERROR)
    TotoLogger("blog").log("cid", "quiet")
    assert lines(stream) == []


def test_logger_that_does_not_propagate_stays_with_its_handlers() -> None:
    stream = attach(JSONFormatter())
    own = logging.getLogger("totoms.silent")
    own.propagate = False
    try:
        TotoLogger("silent").log("cid", "text")
    finally:
        own.propagate = True
    assert lines(stream) == []


def test_record_factory_of_the_user_is_used() -> None:
    stream = attach(JSONFormatter())
    made: list[str] = []

    def factory(*arguments: Any, **named: Any) -> logging.LogRecord:
        made.append(arguments[0])
        return logging.LogRecord(*arguments, **named)

    before = logging.getLogRecordFactory()
    logging.setLogRecordFactory(factory)
    try:
        TotoLogger("blog").log("cid", "text")
    finally:
        logging.setLogRecordFactory(before)
    assert made == ["totoms.blog"]
    assert len(lines(stream)) == 1


# --- set-up ---


def test_our_handler_is_installed_where_there_is_none() -> None:
    alone()
    configure_logging(json=True)
    configure_logging()
    (handler,) = logging.getLogger().handlers
    assert isinstance(handler, BatchHandler)
    assert isinstance(handler.formatter, JSONFormatter)
    assert logging.getLogger("totoms").level == logging.INFO


@pytest.mark.parametrize("name", [None, "totoms"])
def test_existing_logging_setup_is_kept(name: str | None) -> None:
    alone()
    own = logging.NullHandler()
    logging.getLogger(name).addHandler(own)
    configure_logging()
    assert logging.getLogger().handlers + logging.getLogger("totoms").handlers == [own]
    assert logging.getLogger("totoms").level == logging.NOTSET


def test_existing_level_is_kept() -> None:
    alone()
    logging.getLogger("totoms").setLevel(logging.WARNING)
    configure_logging()
    assert logging.getLogger("totoms").level == logging.WARNING


@pytest.mark.parametrize(("terminal", "formatter"), [(True, LineFormatter), (False, JSONFormatter)])
def test_a_terminal_gets_readable_lines(terminal: bool, formatter: type, monkeypatch: pytest.MonkeyPatch) -> None:
    alone()
    monkeypatch.setenv("NO_COLOR", "1")
    output = io.StringIO()
    monkeypatch.setattr(output, "isatty", lambda: terminal)
    monkeypatch.setattr("sys.stdout", output)
    configure_logging()
    assert type(logging.getLogger().handlers[0].formatter) is formatter
    TotoLogger("blog").log("cid-1", "text")
    flush_logging()
    written = output.getvalue()
    assert ("[blog] [cid-1] text" in written) if terminal else json.loads(written)["cid"] == "cid-1"


def test_default_logger_is_one_and_takes_its_name_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TotoLogger, "_instance", None)
    early = TotoLogger.get_instance()
    assert early.api_name == "unknown"
    assert TotoLogger.get_instance("blog") is early
    assert TotoLogger.get_instance("other") is early
    assert early.api_name == "blog"
