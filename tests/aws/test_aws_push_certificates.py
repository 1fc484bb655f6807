"""The certificates of SNS: fetched over real connections, slow, lost, forged and expired ones too."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from standins.aws.sns_certificates import CertificateServer
from standins.aws.sns_push import make_signer
from support.aws import kit as aws_kit
from support.aws.push import HOST, Clock, signer
from totoms.errors import Unavailable, Undecidable
from totoms_aws.messages import signatures
from totoms_aws.messages.signatures import Certificates

DEADLINE = 120.0
URL = f"https://{HOST}{signer().path}"


def path_of(number: int) -> str:
    return f"/SimpleNotificationService-{number:032x}.pem"


def url_of(number: int) -> str:
    return f"https://{HOST}{path_of(number)}"


def lead_to(server: CertificateServer, monkeypatch: pytest.MonkeyPatch) -> CertificateServer:
    server.pages[signer().path] = 200, signer().pem
    aws_kit.use(monkeypatch, None, **server.variables)
    return server


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[CertificateServer]:
    with CertificateServer(HOST, tmp_path) as made:
        yield lead_to(made, monkeypatch)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def kept(clock: Clock) -> Certificates:
    return Certificates(clock=clock)


async def arrival(server: CertificateServer, number: int = 1) -> None:
    """Wait until so many requests have come."""
    while len(server.asked) < number:
        server.arrived.clear()
        if len(server.asked) < number:
            assert await asyncio.to_thread(server.arrived.wait, DEADLINE)


async def test_made_up_url_does_not_prevent_fetching_other_certificates(
    server: CertificateServer, kept: Certificates
) -> None:
    with pytest.raises(Undecidable):
        await kept.key_of(url_of(1))
    assert await kept.key_of(URL) == signer().key.public_key()


async def test_made_up_url_is_fetched_once_per_cooldown(
    server: CertificateServer, kept: Certificates, clock: Clock
) -> None:
    for _ in range(5):
        with pytest.raises(Undecidable):
            await kept.key_of(url_of(1))
    assert server.asked == [path_of(1)]
    server.pages[path_of(1)] = 200, signer().pem
    clock.now += 5
    await kept.key_of(url_of(1))


async def test_number_of_remembered_made_up_urls_is_bounded() -> None:
    def fetch(url: str) -> bytes:
        raise Unavailable("no", resource=url)

    clock = Clock()
    kept = Certificates(fetch, clock)
    for number in range(signatures._MAX_KEPT + 10):
        clock.now += signatures._PAUSE
        with pytest.raises(Undecidable):
            await kept.key_of(url_of(number))
    assert len(kept._certificates) == signatures._MAX_KEPT


async def test_unreachable_server_is_asked_once_per_cooldown(
    server: CertificateServer, kept: Certificates, clock: Clock
) -> None:
    server.away = True
    for number in range(5):
        with pytest.raises(Undecidable):
            await kept.key_of(url_of(number))
    assert server.tunnels == [f"{HOST}:443"]
    server.away = False
    with pytest.raises(Undecidable):
        await kept.key_of(URL)
    clock.now += 5
    await kept.key_of(URL)


async def test_known_certificate_serves_while_the_server_is_away(server: CertificateServer, kept: Certificates) -> None:
    await kept.key_of(URL)
    server.away = True
    with pytest.raises(Undecidable):
        await kept.key_of(url_of(1))
    await kept.key_of(URL)


async def test_callers_that_wait_share_one_request_to_a_slow_server(
    server: CertificateServer, kept: Certificates
) -> None:
    server.hold.clear()
    waiting = [asyncio.create_task(kept.key_of(URL)) for _ in range(50)]
    await arrival(server)  # meanwhile the event loop runs on, or this did not come back
    assert not any(task.done() for task in waiting)
    server.hold.set()
    assert await asyncio.gather(*waiting) == [signer().key.public_key()] * 50
    assert server.asked == [signer().path]


async def test_cancelled_caller_does_not_cancel_the_fetch_for_the_others(
    server: CertificateServer, kept: Certificates
) -> None:
    server.hold.clear()
    first, second = (asyncio.create_task(kept.key_of(URL)) for _ in range(2))
    await arrival(server)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    server.hold.set()
    assert await second == signer().key.public_key()
    assert server.asked == [signer().path]


async def test_number_of_fetches_at_a_time_is_bounded(server: CertificateServer, kept: Certificates) -> None:
    server.hold.clear()
    most = signatures._BURST
    for number in range(most):
        server.pages[path_of(number)] = 200, signer().pem
    waiting = [asyncio.create_task(kept.key_of(url_of(number))) for number in range(most)]
    await arrival(server, most)
    with pytest.raises(Undecidable):
        await kept.key_of(URL)
    server.hold.set()
    await asyncio.gather(*waiting)
    assert len(server.asked) == most
    await kept.key_of(URL)  # nothing was held against it


async def test_made_up_urls_cause_few_fetches(server: CertificateServer, kept: Certificates, clock: Clock) -> None:
    for number in range(350):  # ten seconds of what was once 35 a second
        clock.now += 1 / 35
        with pytest.raises(Undecidable):
            await kept.key_of(url_of(number))
    assert len(server.asked) <= signatures._BURST + 10 / signatures._PAUSE


async def test_url_of_most_pushes_is_fetched_although_made_up_urls_use_up_the_budget(
    server: CertificateServer, kept: Certificates, clock: Clock
) -> None:
    made_up = iter(range(100_000))

    async def strangers(number: int) -> None:
        for _ in range(number):
            with pytest.raises(Undecidable):
                await kept.key_of(url_of(next(made_up)))

    await strangers(100)
    for _ in range(2):
        with pytest.raises(Undecidable):
            await kept.key_of(URL)
        await strangers(100)
    clock.now += signatures._PAUSE
    await strangers(100)  # each names another one, so none of them comes first
    await kept.key_of(URL)


async def test_server_that_does_not_answer_is_dropped(
    server: CertificateServer, kept: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signatures, "_FETCH_SECONDS", 0.5)
    monkeypatch.setattr(signatures, "_PATIENCE", 10 * DEADLINE)  # that is another limit
    server.hold.clear()
    async with asyncio.timeout(DEADLINE):
        with pytest.raises(Undecidable):
            await kept.key_of(URL)


async def test_fetch_without_end_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signatures, "_PATIENCE", 0.05)
    over = threading.Event()
    kept = Certificates(lambda _url: bytes(over.wait(DEADLINE)))
    try:
        async with asyncio.timeout(DEADLINE):
            with pytest.raises(Undecidable):
                await kept.key_of(URL)
        assert not over.is_set()
    finally:
        over.set()


CONNECTIONS: dict[str, dict[str, Any]] = {
    "made out to somebody else": {"certified": "elsewhere.example"},
    "made out to all below": {"certified": "*.amazonaws.com"},
    "expired": {"until": datetime(2020, 1, 1, tzinfo=UTC)},
}


@pytest.mark.parametrize("made", CONNECTIONS.values(), ids=CONNECTIONS)
async def test_server_with_a_wrong_certificate_is_not_asked(
    kept: Certificates, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, made: dict[str, Any]
) -> None:
    with CertificateServer(HOST, tmp_path, **made) as server:
        lead_to(server, monkeypatch)
        with pytest.raises(Undecidable):
            await kept.key_of(URL)
        assert (server.tunnels, server.asked) == ([f"{HOST}:443"], [])


async def test_server_with_a_certificate_of_an_untrusted_authority_is_not_asked(
    kept: Certificates, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        server, other = (stack.enter_context(CertificateServer(HOST, tmp_path / name)) for name in _folders(tmp_path))
        lead_to(server, monkeypatch)
        monkeypatch.setenv("AWS_CA_BUNDLE", other.variables["AWS_CA_BUNDLE"])
        with pytest.raises(Undecidable):
            await kept.key_of(URL)
        monkeypatch.delenv("AWS_CA_BUNDLE")  # then those that are trusted everywhere
        with pytest.raises(Undecidable):
            await Certificates().key_of(URL)
        assert server.asked == []


def _folders(path: Path) -> list[str]:
    names = ["one", "other"]
    for name in names:
        (path / name).mkdir()
    return names


async def test_certificate_that_has_expired_meanwhile_is_fetched_anew(
    server: CertificateServer, kept: Certificates
) -> None:
    await kept.key_of(URL)
    known = kept._certificates[URL]
    assert known.result is not None
    key, since, _ = known.result
    known.keep((key, since, datetime.now(UTC) - timedelta(seconds=1)))
    await kept.key_of(URL)
    assert server.asked == [signer().path] * 2


@pytest.mark.parametrize("dates", [{"until": timedelta(seconds=-1)}, {"since": timedelta(days=1)}], ids=["old", "new"])
async def test_certificate_that_is_not_valid_now_is_not_kept(
    server: CertificateServer, kept: Certificates, dates: dict[str, timedelta]
) -> None:
    server.pages[path_of(1)] = 200, make_signer(**dates).pem
    for _ in range(3):
        with pytest.raises(Undecidable):
            await kept.key_of(url_of(1))
    assert server.asked == [path_of(1)]
    assert kept.kept(url_of(1)) is None
    assert kept._certificates[url_of(1)].result is None


@pytest.mark.parametrize("status", [203, 206, 404, 500])
async def test_certificate_that_comes_with_another_status_is_not_taken(
    server: CertificateServer, kept: Certificates, status: int
) -> None:
    server.pages[signer().path] = status, signer().pem
    with pytest.raises(Undecidable):
        await kept.key_of(URL)


async def test_certificate_that_is_used_is_kept_longest(
    server: CertificateServer, kept: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signatures, "_MAX_KEPT", 16)
    await kept.key_of(URL)
    for number in range(signatures._MAX_KEPT + 4):
        server.pages[path_of(number)] = 200, signer().pem
        await kept.key_of(url_of(number))
        await kept.key_of(URL)
    assert server.asked.count(signer().path) == 1


async def test_certificate_that_is_as_large_as_allowed_is_read(server: CertificateServer, kept: Certificates) -> None:
    server.pages[signer().path] = 200, signer().pem.ljust(signatures._MAX_CERTIFICATE_BYTES, b"\n")
    await kept.key_of(URL)
    server.pages[path_of(1)] = 200, signer().pem.ljust(signatures._MAX_CERTIFICATE_BYTES + 1, b"\n")
    with pytest.raises(Undecidable):
        await kept.key_of(url_of(1))
