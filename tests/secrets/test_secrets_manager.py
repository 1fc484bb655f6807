"""Secrets: read by name, cached for a while, fetched once, and never disclosed."""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from totoms.environment import TotoEnvironment
from totoms.errors import AccessDenied, BackendError, CorruptData, InvalidKey, NotFound, TotoError, Unavailable
from totoms.local.secrets import LocalSecretsManager
from totoms.secrets.manager import SecretsManager

if TYPE_CHECKING:
    from conftest import Store

CANARY = "c4n4ry-in-the-c0al-mine"
DEADLINE = 120.0


def test_the_constructor_gives_the_implementation_of_the_environment() -> None:
    assert type(SecretsManager()) is LocalSecretsManager
    assert type(SecretsManager(TotoEnvironment("local"))) is LocalSecretsManager


def test_a_subclass_is_constructed_as_itself(store: type[Store]) -> None:
    class Mine(LocalSecretsManager):
        pass

    assert type(Mine()) is Mine
    assert type(store()) is store


def test_a_class_that_implements_nothing_is_refused() -> None:
    class Nothing(SecretsManager):
        pass

    with pytest.raises(TypeError, match="_fetch"):
        Nothing()


async def test_text_bytes_and_json(store: type[Store]) -> None:
    store.values |= {"text": "Grüße".encode(), "binary": bytes(range(256)), "json": b'{"user": "me", "n": [1, null]}'}
    secrets = store()
    assert secrets.get_secret("text") == await secrets.get_secret_async("text") == "Grüße"
    assert secrets.get_secret_bytes("binary") == await secrets.get_secret_bytes_async("binary") == bytes(range(256))
    assert (
        secrets.get_secret_json("json") == await secrets.get_secret_json_async("json") == {"user": "me", "n": [1, None]}
    )
    assert secrets.get_secret_json("json", "user") == await secrets.get_secret_json_async("json", "user") == "me"
    assert secrets.topic_identifier("text", "t") == await secrets.topic_identifier_async("text", "t") == "Grüße"


@pytest.mark.parametrize("name", ["a/b", "a_b", "a-b", "a.b", "ä", " ", "n" * 255, "..", "/etc/passwd"])
def test_names_are_given_to_the_store_as_they_are(store: type[Store], name: str) -> None:
    store.values[name] = b"v"
    assert store().get_secret(name) == "v"
    assert store.fetches == [(name, None)]


@pytest.mark.parametrize("name", ["", "\x00", "a\nb", "a\x7f", "\x85", "\ud800", "n" * 256, None, 1, b"x"])
async def test_what_is_not_a_name_is_refused_before_the_store_is_asked(store: type[Store], name: str) -> None:
    secrets = store()
    for use in (secrets.get_secret, secrets.get_secret_bytes, secrets.get_secret_json):
        with pytest.raises(InvalidKey):
            use(name)
        if name is not None:
            with pytest.raises(InvalidKey):
                use("ok", version=name)
    with pytest.raises(InvalidKey):
        await secrets.get_secret_async(name)
    assert store.fetches == []


async def test_missing_denied_and_empty_are_typed_and_name_the_secret(store: type[Store]) -> None:
    secrets = store()
    with pytest.raises(NotFound, match="my-secret"):
        secrets.get_secret("my-secret")
    with pytest.raises(NotFound, match="my-secret"):
        await secrets.get_secret_async("my-secret")
    store.values["my-secret"] = b""
    with pytest.raises(CorruptData, match="'my-secret' is empty") as caught:
        secrets.get_secret("my-secret")
    assert caught.value.resource == "my-secret"
    store.failure = AccessDenied("may not read 'my-secret'", resource="my-secret")
    with pytest.raises(AccessDenied):
        secrets.get_secret("my-secret")


async def test_what_was_missing_is_found_once_it_is_there(store: type[Store]) -> None:
    secrets = store()
    with pytest.raises(NotFound):
        secrets.get_secret("later")
    store.values["later"] = b"v"
    assert secrets.get_secret("later") == "v"


def test_a_field_that_is_not_there_is_typed(store: type[Store]) -> None:
    store.values |= {"object": b'{"a": 1}', "list": b"[1]", "text": b"x"}
    secrets = store()
    with pytest.raises(NotFound, match="'object' has no field 'b'"):
        secrets.get_secret_json("object", "b")
    with pytest.raises(CorruptData, match="not a JSON object"):
        secrets.get_secret_json("list", "a")
    with pytest.raises(CorruptData, match="not a JSON document"):
        secrets.get_secret_json("text")


def test_a_driver_that_breaks_is_a_typed_error(store: type[Store]) -> None:
    store.failure = RuntimeError("of the library")
    with pytest.raises(BackendError, match="'my-secret' cannot be read: RuntimeError"):
        store().get_secret("my-secret")


# --- remembered ---


async def test_the_latest_follows_a_rotation_after_its_time(store: type[Store]) -> None:
    store.values["key"] = b"old"
    secrets = store()
    assert secrets.get_secret("key") == "old"
    store.values["key"] = b"new"
    store.now += store.cache_seconds - 1
    assert secrets.get_secret("key") == await secrets.get_secret_async("key") == "old"
    assert len(store.fetches) == 1
    store.now += 1
    assert secrets.get_secret("key") == "new"
    assert len(store.fetches) == 2


def test_a_pinned_version_is_read_once_and_serves_for_good(store: type[Store]) -> None:
    store.values |= {"key": b"latest", "key@1": b"first"}
    secrets = store()
    assert secrets.get_secret("key", version="1") == "first"
    assert secrets.get_secret("key") == "latest"
    store.now += 10 * 365 * 24 * 3600
    store.failure = Unavailable("away")
    assert secrets.get_secret("key", version="1") == "first"
    assert store.fetches == [("key", "1"), ("key", None)]


def test_all_of_one_environment_share_what_was_read(store: type[Store]) -> None:
    store.values["key"] = b"v"
    assert {store().get_secret("key"), store(TotoEnvironment("local")).get_secret("key")} == {"v"}
    assert len(store.fetches) == 1


def test_two_environments_share_nothing(store: type[Store], tmp_path_factory: pytest.TempPathFactory) -> None:
    from totoms.local.configuration import LocalConfiguration

    store.values["key"] = b"v"
    for number in range(2):
        configuration = LocalConfiguration(root=tmp_path_factory.mktemp(f"root{number}"))
        store(TotoEnvironment("local", configuration)).get_secret("key")
    assert len(store.fetches) == 2


async def test_away_store_serves_what_was_read_until_it_is_stale(store: type[Store]) -> None:
    store.values["key"] = b"v"
    secrets = store()
    read = store.now
    secrets.get_secret("key")
    store.failure = Unavailable("away")
    store.now = read + store.cache_seconds
    assert secrets.get_secret("key") == "v"
    assert secrets.get_secret("key") == "v"
    assert len(store.fetches) == 2  # it is not asked again at once
    store.now = read + store.stale_seconds - 0.5
    assert await secrets.get_secret_async("key") == "v"
    store.now = read + store.stale_seconds
    with pytest.raises(Unavailable):
        secrets.get_secret("key")
    store.failure = None
    store.values["key"] = b"new"
    assert secrets.get_secret("key") == "new"


def test_a_store_that_came_back_is_asked_within_seconds(store: type[Store]) -> None:
    store.values["key"] = b"v"
    secrets = store()
    secrets.get_secret("key")
    store.failure = Unavailable("away")
    store.now += store.cache_seconds
    secrets.get_secret("key")
    store.failure = None
    store.values["key"] = b"new"
    store.now += 10
    assert secrets.get_secret("key") == "new"


@pytest.mark.parametrize("failure", [AccessDenied("revoked"), NotFound("deleted")])
def test_a_secret_that_was_revoked_or_deleted_serves_no_longer(store: type[Store], failure: BackendError) -> None:
    store.values["key"] = b"v"
    secrets = store()
    secrets.get_secret("key")
    store.failure = failure
    store.now += store.cache_seconds
    for _ in range(2):
        with pytest.raises(type(failure)):
            secrets.get_secret("key")
    store.failure = Unavailable("away")
    with pytest.raises(Unavailable):  # nor does it come back when the store goes away
        secrets.get_secret("key")


# --- fetched once, within a deadline ---


async def test_a_hundred_callers_on_a_cold_cache_make_one_fetch(store: type[Store]) -> None:
    store.values["key"] = b"v"
    store.open.clear()
    asked = itertools.count(1)

    class Counting(store):  # type: ignore[misc, valid-type]
        def _look_up(self, name: str, version: str | None) -> object:
            found = super()._look_up(name, version)
            if next(asked) == 100:
                store.open.set()  # none was answered before all had asked
            return found

    secrets = [Counting() for _ in range(100)]
    with ThreadPoolExecutor(50) as pool:
        in_threads = [pool.submit(secret.get_secret, "key") for secret in secrets[:50]]
        in_tasks = [asyncio.create_task(secret.get_secret_async("key")) for secret in secrets[50:]]
        async with asyncio.timeout(DEADLINE):
            found = [await asyncio.wrap_future(future) for future in in_threads] + await asyncio.gather(*in_tasks)
    assert found == ["v"] * 100
    assert store.fetches == [("key", None)]


async def test_a_failed_fetch_fails_for_all_who_wait_and_is_not_remembered(store: type[Store]) -> None:
    store.open.clear()
    secrets = store()
    waiting = [asyncio.create_task(secrets.get_secret_async("key")) for _ in range(5)]
    await asyncio.sleep(0)
    store.open.set()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [NotFound] * 5
    assert len(store.fetches) == 1
    store.values["key"] = b"v"
    assert secrets.get_secret("key") == "v"


async def test_cancelled_caller_does_not_cancel_the_fetch_for_the_others(store: type[Store]) -> None:
    store.values["key"] = b"v"
    store.open.clear()
    secrets = store()
    first, second = (asyncio.create_task(secrets.get_secret_async("key")) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    store.open.set()
    assert await second == "v"
    assert len(store.fetches) == 1


async def test_a_store_that_does_not_answer_is_unavailable_within_the_deadline(store: type[Store]) -> None:
    store.deadline_seconds = 0.01
    store.open.clear()
    secrets = store()
    with pytest.raises(Unavailable, match=r"'key' could not be read within 0.01 s"):
        secrets.get_secret("key")
    with pytest.raises(Unavailable, match="'key'"):
        await secrets.get_secret_async("key")
    assert len(store.fetches) == 2  # the second caller did not wait for the fetch that hangs
    store.open.set()
    store.values["key"] = b"v"
    store.deadline_seconds = DEADLINE
    assert secrets.get_secret("key") == "v"


async def test_a_store_that_does_not_answer_leaves_what_was_read(store: type[Store]) -> None:
    store.values["key"] = b"v"
    secrets = store()
    secrets.get_secret("key")
    store.deadline_seconds = 0.01
    store.open.clear()
    store.now += store.cache_seconds
    assert secrets.get_secret("key") == "v"
    assert await secrets.get_secret_async("key") == "v"
    assert len(store.fetches) == 2


def test_an_answer_that_comes_too_late_does_not_replace_a_later_one(store: type[Store]) -> None:
    late, release = threading.Event(), threading.Event()

    class Late(store):  # type: ignore[misc, valid-type]
        deadline_seconds = 0.01

        def _fetch(self, name: str, version: str | None) -> bytes:
            if not late.is_set():
                late.set()
                assert release.wait(DEADLINE)
                return b"old"
            return b"new"

    secrets = Late()
    with pytest.raises(Unavailable):
        secrets.get_secret("key")
    Late.deadline_seconds = DEADLINE
    assert secrets.get_secret("key") == "new"
    release.set()
    for thread in threading.enumerate():
        if thread.name == "totoms-secret":
            thread.join(DEADLINE)
    assert secrets.get_secret("key") == "new"


def test_secret_is_unavailable_while_no_thread_can_be_started(
    store: type[Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    store.values["key"] = b"v"
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(Unavailable, match="'key' cannot be read now"):
            store().get_secret("key")
    assert store().get_secret("key") == "v"


async def test_the_loop_goes_on_while_the_store_is_slow(store: type[Store]) -> None:
    store.values["key"] = b"v"
    store.open.clear()
    fetch = asyncio.create_task(store().get_secret_async("key"))
    for _ in range(100):
        await asyncio.sleep(0)
    store.open.set()  # only the loop does this
    assert await fetch == "v"


# --- never shown ---


def test_the_value_shows_nowhere(
    store: type[Store], caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    store.values |= {
        "text": CANARY.encode(),
        "binary": b"\xff" + CANARY.encode(),
        "object": f'{{"password": "{CANARY}"}}'.encode(),
        "broken": f'{{"password": "{CANARY}'.encode(),
    }
    secrets = store()
    shown = []

    def fail(use: object, *arguments: str) -> None:
        with pytest.raises(TotoError) as caught:
            use(*arguments)  # type: ignore[operator]
        shown.append("".join(traceback.format_exception(caught.value)))
        linked: BaseException | None = caught.value
        while linked is not None:  # what an error reporter walks, shown or not
            shown.append(f"{linked!r} {vars(linked)}")
            assert not isinstance(linked, UnicodeDecodeError | ValueError)
            linked = linked.__cause__ or linked.__context__

    secrets.get_secret("text")
    fail(secrets.get_secret, "binary")
    fail(secrets.get_secret_json, "text")
    fail(secrets.get_secret_json, "broken")
    fail(secrets.get_secret_json, "object", "missing")
    store.failure = RuntimeError(f"the library says {CANARY}")
    fail(secrets.get_secret, "other")
    store.failure = Unavailable("away")
    store.now += store.cache_seconds
    secrets.get_secret("text")
    shown += [repr(secrets), str(secrets), repr(vars(secrets)), repr(secrets.environment)]
    cache = secrets._cache
    shown += [repr(cache), repr(vars(cache)), *(repr(entry) for entry in cache._entries.values())]
    shown += [caplog.text, *capfd.readouterr()]
    gc.collect()
    assert len(cache._entries) == 4
    assert not any(CANARY in text for text in shown)
