"""Compare schemas: a table of changes, and what is said of each for what is received and for what is sent."""

from __future__ import annotations

import pytest

from contracts.changes import REFERENCES, SCHEMAS, Pair, Referred, ref
from totoms.contracts.comparison import Comparison, Direction


def check(direction: Direction, said: str, texts: list[str]) -> None:
    if not said:
        assert texts == []
    else:
        assert any(said in text for text in texts), texts


def test_the_table_is_as_long_as_was_promised_and_has_no_title_twice() -> None:
    titles = [pair.title for pair in SCHEMAS] + [pair.title for pair in REFERENCES]
    assert len(titles) >= 80
    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize("direction", ["receive", "send"])
@pytest.mark.parametrize("pair", SCHEMAS, ids=lambda pair: pair.title)
def test_change(pair: Pair, direction: Direction) -> None:
    found = Comparison(direction, {}, {}).compare(pair.old, pair.new)
    check(direction, pair.receive if direction == "receive" else pair.send, [f"{one.path} {one.text}" for one in found])


@pytest.mark.parametrize("direction", ["receive", "send"])
@pytest.mark.parametrize("pair", REFERENCES, ids=lambda pair: pair.title)
def test_change_behind_a_reference(pair: Referred, direction: Direction) -> None:
    comparison = Comparison(direction, {"$defs": pair.old}, {"$defs": pair.new})
    found = comparison.compare(ref(next(iter(pair.old))), ref(next(iter(pair.new))))
    check(direction, pair.receive if direction == "receive" else pair.send, [f"{one.path} {one.text}" for one in found])


@pytest.mark.parametrize("pair", SCHEMAS, ids=lambda pair: pair.title)
def test_a_change_back_breaks_the_other_side(pair: Pair) -> None:
    """What one side may not do, the other may: undoing it swaps the two."""
    for first, second in (("receive", "send"), ("send", "receive")):
        there = Comparison(first, {}, {}).compare(pair.old, pair.new)  # type: ignore[arg-type]
        back = Comparison(second, {}, {}).compare(pair.new, pair.old)  # type: ignore[arg-type]
        if "field" not in pair.title and "map" not in pair.title:
            assert bool(there) == bool(back)
