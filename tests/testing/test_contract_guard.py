"""The guard of the contracts: it reports every inherited test that is left out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from totoms.testing import Contract, PushContract
from totoms.testing.contract import GUARD, behaviours, contract_of, number_of


class Tiny(Contract):
    """A contract as those of the package are."""

    __module__ = "totoms.testing.tiny"

    async def test_01_first(self, harness: Any) -> None:
        """One behaviour."""
        assert self._helps(harness)

    async def test_02_second(self, harness: Any) -> None:
        """Another."""

    def _helps(self, harness: Any) -> bool:
        return bool(harness)


@pytest.fixture(autouse=True)
def _unmarked() -> Iterator[None]:
    # A mark that is put on an inherited test stays on the contract itself.
    yield
    for function in (Tiny.test_01_first, Tiny.test_02_second):
        vars(function).pop("pytestmark", None)


async def guard(cls: type[Contract]) -> None:
    await getattr(cls(), GUARD)()


async def test_guard_passes_where_all_is_inherited() -> None:
    class Whole(Tiny):
        backend = "some"
        capabilities = frozenset({"pull"})

        def harness(self) -> int:
            return 7

        def test_mine(self) -> None: ...

    await guard(Whole)
    await guard(type("Below", (Whole,), {"arrangement": "several processes"}))


def deleted(cls: Any) -> None:
    cls.test_01_first = None


def overridden(cls: Any) -> None:
    async def test_01_first(self: Any, harness: Any) -> None: ...

    cls.test_01_first = test_01_first


def overridden_and_skipped(cls: Any) -> None:
    overridden(cls)
    cls.test_01_first = pytest.mark.skip(reason="no time")(cls.test_01_first)


def skipped_as_inherited(cls: Any) -> None:
    cls.test_01_first = pytest.mark.skip(reason="no time")(cls.test_01_first)


def skipped_under_a_condition(cls: Any) -> None:
    pytest.mark.skipif(True, reason="no time")(cls.test_01_first)


def expected_to_fail_without_a_reason(cls: Any) -> None:
    overridden(cls)
    cls.test_01_first = pytest.mark.xfail(cls.test_01_first)


def expected_to_fail_for_an_empty_reason(cls: Any) -> None:
    overridden(cls)
    cls.test_01_first = pytest.mark.xfail(reason="")(cls.test_01_first)


def helper_weakened(cls: Any) -> None:
    cls._helps = lambda self, harness: True


def class_skipped(cls: Any) -> None:
    pytest.mark.skipif(False, reason="never")(cls)


def class_expected_to_fail(cls: Any) -> None:
    pytest.mark.xfail(reason="all of it")(cls)


def without_backend(cls: Any) -> None:
    del cls.backend


def with_an_empty_backend(cls: Any) -> None:
    cls.backend = ""


@pytest.mark.parametrize(
    ("weaken", "told"),
    [
        (deleted, "test_01_first is deleted"),
        (overridden, "test_01_first is overridden"),
        (overridden_and_skipped, "test_01_first is overridden"),
        (skipped_as_inherited, "test_01_first is marked skip"),
        (skipped_under_a_condition, "test_01_first is marked skipif"),
        (expected_to_fail_without_a_reason, "test_01_first is overridden"),
        (expected_to_fail_for_an_empty_reason, "test_01_first is overridden"),
        (helper_weakened, "_helps is overridden"),
        (class_skipped, "class is marked skipif"),
        (class_expected_to_fail, "class is marked xfail"),
        (without_backend, "which backend"),
        (with_an_empty_backend, "which backend"),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
async def test_guard_fails(weaken: Any, told: str) -> None:
    weakened = type("Weakened", (Tiny,), {"backend": "some"})
    await guard(weakened)

    weaken(weakened)

    with pytest.raises(AssertionError, match=told):
        await guard(weakened)


async def test_behaviour_that_is_known_to_be_missing_is_reported_with_its_reason() -> None:
    class Known(Tiny):
        backend = "some"

        @pytest.mark.xfail(reason="the broker has no order")
        async def test_02_second(self, harness: Any) -> None: ...

    await guard(Known)


def test_guard_itself_cannot_be_overridden() -> None:
    with pytest.raises(TypeError, match=GUARD):
        type("Unguarded", (Tiny,), {"backend": "some", GUARD: lambda self: None})
    with pytest.raises(TypeError, match=GUARD):
        type("Unguarded", (Tiny,), {"backend": "some", GUARD: None})


def test_contract_is_the_packages_class_and_knows_its_behaviours() -> None:
    below = type("Below", (type("Test", (Tiny,), {"backend": "some"}),), {})

    assert contract_of(below) is Tiny
    assert behaviours(Tiny) == {0: [GUARD], 1: ["test_01_first"], 2: ["test_02_second"]}
    assert number_of("test_07_failed_is_redelivered") == 7
    assert sorted(behaviours(PushContract)) == [0, 27, 28, 29, 30, 31, 32, 58, 61, 67]
