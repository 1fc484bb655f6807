"""What is kept is bounded, whatever comes."""

from __future__ import annotations

import random
import tracemalloc

import pytest

from totoms.console.recorder import MOST_BODY, MOST_BYTES, MOST_ENTRIES, MOST_HANDLINGS, Recorder


def message(number: int, body: str = "", **more: object) -> dict[str, object]:
    return {"kind": "message", "value": {"id": f"m-{number}", "topic": "orders", "body": body, **more}}


def span(number: int, text: str) -> dict[str, object]:
    value = {"id": f"{number}", "parent": "", "trace": "t", "name": "n", "service": "s", "kind": "client"}
    return {"kind": "span", "value": {**value, "begun": 0.0, "seconds": 0.0, "error": "", "attributes": {"a": text}}}


def line(number: int, text: str) -> dict[str, object]:
    value = {"at": float(number), "level": "INFO", "service": "s", "cid": "c", "text": text}
    return {"kind": "log", "value": value}


def test_flood_of_any_size_stays_within_the_bounds() -> None:
    recorder, draw = Recorder(), random.Random(1)
    tracemalloc.start()
    try:
        for number in range(20_000):
            text = "x" * draw.choice([1, 100, 10_000, 100_000])
            recorder.record(draw.choice([message, span, line])(number, text))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert recorder.bytes <= 3 * MOST_BYTES
    assert most < 5 * MOST_BYTES
    assert len(recorder.messages(10 * MOST_ENTRIES)) <= MOST_ENTRIES


def test_newest_are_kept() -> None:
    recorder = Recorder()
    for number in range(MOST_ENTRIES + 5):
        recorder.record(message(number))
    assert recorder.message("m-0") is None
    assert recorder.message(f"m-{MOST_ENTRIES + 4}") is not None
    assert recorder.messages(1)[0].id == f"m-{MOST_ENTRIES + 4}"


def test_long_text_is_cut() -> None:
    recorder = Recorder()
    recorder.record(message(1, "x" * (MOST_BODY + 1)))
    found = recorder.message("m-1")
    assert found is not None
    assert found.body.endswith(f"... ({MOST_BODY + 1} characters)")


def test_message_that_is_handled_again_and_again_does_not_grow() -> None:
    recorder = Recorder()
    for attempt in range(500):
        handling = {"service": "s", "handler": "h", "attempt": attempt, "outcome": "retry", "seconds": 0.1, "at": 1.0}
        recorder.record({"kind": "handled", "value": {"id": "m", "message": {}, "handling": handling}})
    found = recorder.message("m")
    assert found is not None
    assert [one.attempt for one in found.handlings] == list(range(500 - MOST_HANDLINGS, 500))


def test_message_that_is_handled_before_it_is_known_to_be_published_keeps_both() -> None:
    recorder = Recorder()
    handling = {"service": "stock", "handler": "h", "attempt": 1, "outcome": "ack", "seconds": 0.1, "at": 1.0}
    about = {"type": "placed", "at": 1.0}
    recorder.record({"kind": "handled", "value": {"id": "m-1", "message": about, "handling": handling}})
    recorder.record(message(1, "body", publisher="shop", at=2.0))
    found = recorder.message("m-1")
    assert found is not None
    assert (found.publisher, found.at, len(found.handlings)) == ("shop", 1.0, 1)


def test_what_is_shown_can_be_narrowed() -> None:
    recorder = Recorder()
    recorder.record(message(1, "a", cid="one"))
    recorder.record(message(2, "b", cid="two"))
    recorder.record(line(1, "first"))
    assert [one.id for one in recorder.messages(cid="two")] == ["m-2"]
    assert [one.id for one in recorder.messages(text="a")] == ["m-1"]
    assert recorder.messages(topic="other") == []
    assert recorder.logs(level="ERROR") == []


@pytest.mark.parametrize(
    "event", [{}, {"kind": "x", "value": {}}, {"kind": "log", "value": {"no": 1}}, {"kind": "log"}, []]
)
def test_what_is_no_event_is_refused(event: object) -> None:
    with pytest.raises(ValueError, match="event"):
        Recorder().record(event)  # type: ignore[arg-type]
