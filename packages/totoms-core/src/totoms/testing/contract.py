"""The base of all contracts: declarations, and the guard against deleted or skipped tests."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Final

import pytest

GUARD: Final = "test_00_nothing_is_left_out"
_FORBIDDEN_MARKS: Final = {"skip", "skipif", "xfail"}


class Contract:
    """Behaviours that every backend has. Inherit one of the contracts, and provide the fixture ``harness``.

    If a backend lacks a capability, leave its name out of `capabilities`; the contract then asserts that using it
    raises `Unsupported`. Override the test of a missing behaviour with ``@pytest.mark.xfail(reason="...")``. No test
    can be left out in another way.

    Attributes:
        backend: The value of ``hyperscaler`` under test.
        capabilities: The capabilities of the backend, as its class declares them.
        arrangement: The name of this run, if a backend is tested in several ways: "several processes".
    """

    backend: ClassVar[str]
    capabilities: ClassVar[frozenset[str]] = frozenset()
    arrangement: ClassVar[str] = ""

    pytestmark: ClassVar[Any] = pytest.mark.asyncio

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if GUARD in vars(cls):
            raise TypeError(f"{cls.__name__} overrides {GUARD}, which guards the other tests.")

    async def test_00_nothing_is_left_out(self) -> None:
        """No inherited test is deleted, overridden, skipped, or left without a declared backend."""
        problems = [*_without_declaration(type(self)), *_left_out(type(self))]
        assert not problems, "; ".join(problems)


def check_same(found: Sequence[object] | None, wanted: Sequence[object], about: object = "") -> None:
    """Assert that two large contents or lists are equal.

    With a plain `assert` pytest would compare them line by line for its report, which takes hours for megabytes.

    Raises:
        AssertionError: They differ; names the first difference.
    """
    if found is None:
        raise AssertionError(f"{about}: got nothing")
    if found != wanted:
        pairs = enumerate(zip(found, wanted, strict=False))
        place = next((index for index, (one, other) in pairs if one != other), min(len(found), len(wanted)))
        raise AssertionError(
            f"{about}: got {len(found)}, expected {len(wanted)}; from index {place}: {found[place : place + 20]!r}, "
            f"expected {wanted[place : place + 20]!r}"
        )


def contract_of(cls: type[Contract]) -> type[Contract]:
    """Return the contract of this package that a test class inherits."""
    return next(base for base in cls.__mro__ if base.__module__.startswith("totoms.testing"))


def behaviours(contract: type[Contract]) -> dict[int, list[str]]:
    """Return the names of a contract's tests by the number of their behaviour."""
    numbered: dict[int, list[str]] = {}
    for name in sorted(dir(contract)):
        if name.startswith("test_"):
            numbered.setdefault(number_of(name), []).append(name)
    return numbered


def number_of(test: str) -> int:
    """Return the number of a test's behaviour, which is in its name: ``test_07_...``."""
    return int(test.split("_")[1])


def _without_declaration(cls: type[Contract]) -> Iterator[str]:
    backend = getattr(cls, "backend", None)
    if not isinstance(backend, str) or not backend:
        yield f"{cls.__name__} does not say which backend it tests"


def _left_out(cls: type[Contract]) -> Iterator[str]:
    contract = contract_of(cls)
    for mark in _marks(cls):
        if mark.name in _FORBIDDEN_MARKS:
            yield f"the class is marked {mark.name}"
    for names in behaviours(contract).values():
        for name in names:
            given = inspect.getattr_static(cls, name, None)
            if given is inspect.getattr_static(contract, name):
                # Marking an inherited test marks the contract's own function, for all subclasses.
                marked = [mark.name for mark in _marks(given) if mark.name in _FORBIDDEN_MARKS]
                yield from (f"{name} is marked {mark} (override it with xfail(reason=...))" for mark in marked)
            elif not callable(given):
                yield f"{name} is deleted"
            elif not any(mark.name == "xfail" and mark.kwargs.get("reason") for mark in _marks(given)):
                yield f"{name} is overridden without xfail(reason=...)"
    for name in dir(contract):
        own = inspect.getattr_static(contract, name)
        helper = name.startswith("_") and not name.startswith("__") and callable(own)
        if helper and inspect.getattr_static(cls, name, None) is not own:
            yield f"{name} is overridden, and the tests use it"


def _marks(marked: Any) -> list[Any]:
    marks = getattr(marked, "pytestmark", [])
    return [getattr(mark, "mark", mark) for mark in (marks if isinstance(marks, list) else [marks])]
