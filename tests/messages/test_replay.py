"""Replaying and purging dead letters: the part that all backends share."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

import pytest

from totoms.errors import BackendError, Unavailable
from totoms.messages.dead_letters import DeadLetter, DeadLetterReason, HeldLetter, purge_letters, replay_letters

REASON = DeadLetterReason("non_retryable")


def letter(number: int, message_id: str) -> HeldLetter:
    return HeldLetter(DeadLetter(f"letter-{number}", message_id, "blog-posts", b"{}", {}, REASON, 0.0), number)


class Store:
    """Pages of dead letters; notes what is done with them, in order."""

    def __init__(self, *pages: Sequence[HeldLetter]) -> None:
        self.done: list[str] = []
        self.errors: dict[str, BackendError] = {}
        self._pages = pages

    async def pages(self) -> AsyncGenerator[Sequence[HeldLetter], None]:
        try:
            for page in self._pages:
                yield page
        finally:
            self.done.append("release the rest")

    async def publish(self, page: Sequence[HeldLetter]) -> Sequence[BackendError | None]:
        self.done += [f"publish {held.handle}" for held in page]
        return [self.errors.get(held.letter.message_id) for held in page]

    async def settle(self, page: Sequence[HeldLetter]) -> None:
        self.done += [f"settle {held.handle}" for held in page]

    async def replay(self, letter_ids: Sequence[str] | None = None) -> int:
        return await replay_letters(self.pages(), letter_ids, self.publish, self.settle)

    async def purge(self, letter_ids: Sequence[str] | None = None) -> int:
        return await purge_letters(self.pages(), letter_ids, self.settle)


async def test_letters_are_published_in_order_and_settled_afterwards() -> None:
    store = Store([letter(1, "a"), letter(2, "b")], [letter(3, "c")])
    assert await store.replay() == 3
    assert store.done == ["publish 1", "publish 2", "settle 1", "settle 2", "publish 3", "settle 3", "release the rest"]


async def test_message_that_dies_again_meanwhile_is_replayed_once() -> None:
    store = Store([letter(1, "a"), letter(2, "a")], [letter(3, "a"), letter(4, "b")])
    assert await store.replay() == 2
    assert store.done == ["publish 1", "settle 1", "publish 4", "settle 4", "release the rest"]


async def test_only_wanted_letters_are_taken_and_no_page_is_read_after_the_last() -> None:
    store = Store([letter(1, "a"), letter(2, "b")], [letter(3, "c")], [letter(4, "d")])
    assert await store.replay(["letter-2", "letter-3"]) == 2
    assert store.done == ["publish 2", "settle 2", "publish 3", "settle 3", "release the rest"]
    store.done.clear()
    assert await store.purge(["letter-1", "letter-unknown"]) == 1
    assert store.done == ["settle 1", "release the rest"]


async def test_letter_that_was_not_published_is_kept_and_the_others_are_settled() -> None:
    store = Store([letter(1, "a"), letter(2, "b")], [letter(3, "c")])
    store.errors["a"] = Unavailable("away")
    with pytest.raises(Unavailable, match="away"):
        await store.replay()
    assert store.done == ["publish 1", "publish 2", "settle 2", "release the rest"]


async def test_purge_settles_every_letter() -> None:
    store = Store([letter(1, "a"), letter(2, "a")], [letter(3, "b")])
    assert await store.purge() == 3
    assert store.done == ["settle 1", "settle 2", "settle 3", "release the rest"]
