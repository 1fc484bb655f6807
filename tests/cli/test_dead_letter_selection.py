"""``totoms dlq``: filters, groups, rates, exports and test messages, on the dead letters of the local bus."""

from __future__ import annotations

import asyncio
import io
import json
import os
import stat
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.local.dead_letters import BLOG, NAME, REASON, Letters, post
from totoms import MessageDestination, TotoMessage
from totoms.cli.exports import write_export
from totoms.cli.main import main
from totoms.cli.replays import Progress, batch_size, in_batches
from totoms.errors import AccessDenied, ConfigurationError, Unavailable
from totoms.local.messages.dead_letters import LocalDeadLetters
from totoms.messages.receiver import Received

CANARY = "Ann Smith, ann@corp.example"
SERVICE = """
from totoms import *

@toto_handler(type="postCreated")
async def digest(message: TotoMessage) -> None:
    raise ValueError("broken")

print("imported")
topics = [
    MessageBusTopicConfig(logical_name="posts", secret="posts-topic"),
    MessageBusTopicConfig(logical_name="mail", secret="mail-topic", subscription="mails"),
    MessageBusTopicConfig(logical_name="audit", secret="audit-topic", subscribe=False),
]
handlers = [MessageBusHandlerConfig(handler=digest)]
configuration = TotoMicroserviceConfiguration(
    service_name="blog",
    message_bus_configuration=MessageBusConfig(topics=topics, message_handlers=handlers),
)
"""


@dataclass
class Done:
    status: int
    out: str
    err: str

    def refused(self, status: int) -> str:
        """Check that the command failed with this status and one line, and return the line."""
        assert (self.status, self.out) == (status, ""), self
        (line,) = self.err.splitlines()
        assert line.startswith("totoms: ")
        return line


Run = Callable[..., Coroutine[Any, Any, Done]]


@pytest.fixture
def dlq(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in this process."""

    def command(arguments: tuple[str, ...]) -> int:
        try:
            return main(["dlq", *arguments])
        except SystemExit as end:
            return int(end.code or 0)

    async def run(*arguments: str) -> Done:
        capsys.readouterr()
        status = await asyncio.to_thread(command, arguments)
        return Done(status, *capsys.readouterr())

    return run


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The declaration of a service in the working directory."""
    (tmp_path / "dlq_service.py").write_text(SERVICE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "dlq_service", raising=False)
    return "dlq_service:configuration"


def ids_in(done: Done) -> list[str]:
    assert done.status == 0, done.err
    return [row["letter_id"] for row in json.loads(done.out)]


async def set_age(letters: Letters, letter_id: str, seconds: float) -> None:
    sql = "UPDATE dead_letters SET dead_since = dead_since - ? WHERE id = ?"
    await letters.bus._do(lambda connection: connection.execute(sql, (seconds, letter_id)))


# --- subscriptions ---


async def test_subscriptions_of_the_backend_are_listed_with_counts(letters: Letters, dlq: Run) -> None:
    await letters.add(post(), post())
    await letters.bus.publish_message(MessageDestination(queue="mail"), post())

    done = await dlq("subscriptions")

    assert [line.split() for line in done.out.splitlines()] == [
        ["SUBSCRIPTION", "DEAD", "LETTERS"],
        [NAME, "2"],
        ["mail", "0"],
    ]
    assert done.err == ""


async def test_subscriptions_of_a_declaration_are_listed_and_missing_ones_are_named(
    letters: Letters, dlq: Run, service: str
) -> None:
    await letters.add(post())

    done = await dlq("subscriptions", service)

    assert [line.split() for line in done.out.splitlines()[1:]] == [[NAME, "1"], ["mails", "none", "such"]]
    assert done.err == "imported\n"
    listed = json.loads((await dlq("subscriptions", service, "--json")).out)
    assert listed == [
        {"subscription": NAME, "dead_letters": 1, "more": False, "problem": ""},
        {"subscription": "mails", "dead_letters": None, "more": False, "problem": "none such"},
    ]


async def test_subscription_that_may_not_be_read_does_not_hide_the_others(
    letters: Letters, dlq: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = LocalDeadLetters.count

    async def denied(store: LocalDeadLetters) -> int:
        if store._subscription == "mail":
            raise AccessDenied("You may not.")
        return await count(store)

    await letters.bus.publish_message(MessageDestination(queue="mail"), post())
    monkeypatch.setattr(LocalDeadLetters, "count", denied)
    done = await dlq("subscriptions")
    assert [line.split() for line in done.out.splitlines()[1:]] == [[NAME, "0"], ["mail", "access", "denied"]]


async def test_subscriptions_of_a_backend_that_cannot_list_them_need_a_declaration(
    letters: Letters, dlq: Run, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(self: object) -> None:
        return None

    await letters.add(post(), post(), post())
    monkeypatch.setattr("totoms.local.messages.bus.LocalMessageBus._list_subscriptions", nothing)
    assert "service:configuration" in (await dlq("subscriptions")).refused(1)
    # Nor can it count: then they are listed.
    monkeypatch.setattr("totoms.local.messages.dead_letters.LocalDeadLetters.count", nothing)
    monkeypatch.setattr("totoms.local.messages.dead_letters.LocalDeadLetters.listing_hides", True)
    monkeypatch.setattr("totoms.cli.subscriptions._MOST_LISTED", 2)
    done = await dlq("subscriptions", service)
    assert done.out.splitlines()[1].split() == [NAME, "2+"]
    assert "hidden" in done.err


# --- filters ---


async def test_filters_apply_to_list(letters: Letters, dlq: Run) -> None:
    await letters.add(post(), reason="lease_expired", error_class="")
    await letters.add(TotoMessage(type="postDeleted"))
    first, second = [one.letter_id for one in await letters.listed()]
    await set_age(letters, first, 3 * 3600)

    async def listed(*filters: str) -> list[str]:
        return ids_in(await dlq("list", NAME, "--json", *filters))

    assert await listed("--type", "postDeleted") == [second]
    assert await listed("--reason", "lease_expired") == [first]
    assert await listed("--since", "2h") == [second]
    assert await listed("--since", "4h") == [first, second]
    assert await listed("--since", "2020-01-01") == [first, second]
    assert await listed("--since", "2h", "--type", "postCreated") == []


@pytest.mark.parametrize("since", ["", "2", "2w", "yesterday", "2026-13-01", "-1h", "9999-01-01", "99999999999h"])
async def test_wrong_since_is_status_2(dlq: Run, since: str) -> None:
    assert "--since" in (await dlq("list", NAME, f"--since={since}")).refused(2)


async def test_replay_and_purge_take_filters_in_place_of_ids(letters: Letters, dlq: Run) -> None:
    await letters.add(post(), post())
    await letters.add(TotoMessage(type="postDeleted"), TotoMessage(type="postHidden"))

    assert (await dlq("replay", NAME, "--type", "postCreated")).out == f"Replayed 2 dead letters of {NAME}.\n"
    assert (await dlq("replay", NAME, "--type", "postCreated")).out == f"Replayed 0 dead letters of {NAME}.\n"
    assert "--yes" in (await dlq("purge", NAME, "--type", "postDeleted")).refused(2)
    assert (await dlq("purge", NAME, "--type", "postDeleted", "--yes")).out == f"Deleted 1 dead letter of {NAME}.\n"
    assert [one.attributes["messageType"] for one in await letters.listed()] == ["postHidden"]


async def test_purge_by_filter_asks_with_the_number(
    letters: Letters, dlq: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    await letters.add(post(), TotoMessage(type="postDeleted"))
    monkeypatch.setattr(sys, "stdin", Terminal("n\ny\n"))
    refused = await dlq("purge", NAME, "--type", "postCreated")
    assert f"Delete 1 dead letter of {NAME} for good? [y/N]" in refused.err
    assert len(await letters.listed()) == 2
    assert (await dlq("purge", NAME, "--type", "postCreated")).status == 0
    assert len(await letters.listed()) == 1


@pytest.mark.parametrize("action", ["replay", "purge"])
async def test_ids_and_filters_together_are_refused(dlq: Run, action: str) -> None:
    (await dlq(action, NAME, "1", "--type", "postCreated")).refused(2)


async def test_more_than_can_be_filtered_is_noted(letters: Letters, dlq: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    await letters.add(post(), post(), post())
    monkeypatch.setattr("totoms.cli.selection.MOST", 2)
    done = await dlq("list", NAME, "--type", "postCreated")
    assert len(done.out.splitlines()) == 3
    assert done.err == f"totoms: Only the oldest 2 dead letters of {NAME} were looked at.\n"


async def test_filters_that_nothing_passes_are_noted(letters: Letters, dlq: Run) -> None:
    await letters.add(post())
    done = await dlq("list", NAME, "--type", "postDeleted")
    assert (done.status, done.out) == (0, "")
    assert done.err == f"totoms: {NAME}, with these filters, has no dead letters.\n"


@pytest.mark.parametrize(("limit", "noted"), [("1", True), ("2", False)])
async def test_more_than_the_limit_is_noted(letters: Letters, dlq: Run, limit: str, noted: bool) -> None:
    await letters.add(post(), post(), TotoMessage(type="postDeleted"))
    done = await dlq("list", NAME, "--type", "postCreated", "--limit", limit)
    assert ("see --limit" in done.err) == noted
    assert len(done.out.splitlines()) == 1 + int(limit)


async def test_backend_that_hides_what_it_lists_is_noted(
    letters: Letters, dlq: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    (letter_id,) = await letters.add(post())
    monkeypatch.setattr("totoms.local.messages.dead_letters.LocalDeadLetters.listing_hides", True)
    for arguments in (["list"], ["groups"], ["show"], ["replay", "--all", "--rate", "9"]):
        action, *rest = arguments
        done = await dlq(action, NAME, *([letter_id] if action == "show" else rest))
        assert done.err.count("hidden from others") == 1, done


# --- groups ---


async def test_groups_are_by_error_class_and_place_with_count_and_newest(letters: Letters, dlq: Run) -> None:
    await letters.add(post(), post(), description="no such author (at posts.py:42 in store)")
    await letters.add(post(), description="no such title (at posts.py:42 in store)")
    await letters.add(post(), description="no such post (at posts.py:50 in store)")
    await letters.add(post(), reason="lease_expired", error_class="", description="")
    ids = [one.letter_id for one in await letters.listed()]

    groups = json.loads((await dlq("groups", NAME, "--json")).out)

    assert [(one["count"], one["error_class"], one["place"], one["letter_id"]) for one in groups] == [
        (3, "ValueError", "posts.py:42", ids[2]),
        (1, "lease_expired", "postCreated", ids[4]),
        (1, "ValueError", "posts.py:50", ids[3]),
    ]
    head, row, *_ = (await dlq("groups", NAME, "--reason", "attempts_exhausted")).out.splitlines()
    assert head.split() == ["COUNT", "ERROR", "CLASS", "PLACE", "TYPE", "NEWEST", "LETTER", "ID"]
    assert row.split()[:4] == ["3", "ValueError", "posts.py:42", "postCreated"]
    assert "no such" not in (await dlq("groups", NAME)).out


# --- rate ---


class Time:
    """Passes only while something sleeps."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize(("rate", "number", "seconds"), [(0.5, 3, 4.0), (2, 5, 2.0), (50, 101, 2.0), (1000, 250, 0.2)])
async def test_rate_holds(rate: float, number: int, seconds: float) -> None:
    time, replayed = Time(), list[str]()

    async def replay(_subscription: str, letter_ids: Any) -> int:
        replayed.extend(letter_ids)
        return len(letter_ids)

    ids = [str(one) for one in range(number)]
    size = batch_size(rate)
    await in_batches(replay, NAME, ids, lambda *_: None, size=size, rate=rate, clock=time, sleep=time.sleep)
    assert replayed == ids
    assert time.now - 100 == pytest.approx(seconds)


async def test_time_lost_to_a_slow_backend_is_not_made_up_for() -> None:
    time, sent = Time(), list[float]()

    async def replay(_subscription: str, _letter_ids: Any) -> int:
        sent.append(time.now)
        time.now += 5 if len(sent) == 1 else 0
        return 1

    await in_batches(replay, NAME, ["1", "2", "3"], lambda *_: None, size=1, rate=1, clock=time, sleep=time.sleep)
    assert sent == [100, 105, 106]


async def test_replay_at_a_rate_does_all_and_each_message_once(letters: Letters, dlq: Run) -> None:
    await letters.add(post(), post())
    twice = Received(b"{}", "m-1", 1, BLOG, {})
    for _ in range(2):
        await letters.bus._dead_letter(twice, REASON)

    done = await dlq("replay", NAME, "--all", "--rate", "1000")

    assert done.out == f"Replayed 3 dead letters of {NAME}.\n"
    assert len(await letters.listed()) == 1


async def test_purge_by_filter_deletes_all_dead_letters_of_a_message(letters: Letters, dlq: Run) -> None:
    for _ in range(2):
        await letters.bus._dead_letter(Received(b"{}", "m-1", 1, BLOG, {}), REASON)

    done = await dlq("purge", NAME, "--reason", REASON.reason, "--yes")

    assert done.out == f"Deleted 2 dead letters of {NAME}.\n"
    assert await letters.listed() == []


async def test_what_was_replayed_before_an_error_is_reported(
    letters: Letters, dlq: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await letters.add(post(), post())
    replay = type(letters.bus).replay_dead_letters

    async def fails(bus: Any, subscription: str, letter_ids: Any = None) -> int:
        if letter_ids == [second]:
            raise Unavailable("The broker is away.")
        return await replay(bus, subscription, letter_ids)

    monkeypatch.setattr("totoms.messages.bus.MessageBus.replay_dead_letters", fails)
    done = await dlq("replay", NAME, first, second)
    assert (done.status, done.out) == (1, f"Replayed 1 dead letter of {NAME}.\n")
    assert done.err == "totoms: The broker is away.\n"


@pytest.mark.parametrize("rate", ["1e-320", "0", "-1", "fast", "nan", "inf", "10001"])
async def test_wrong_rate_is_status_2(dlq: Run, rate: str) -> None:
    assert "--rate" in (await dlq("replay", NAME, "--all", f"--rate={rate}")).refused(2)


@pytest.mark.parametrize(("terminal", "shown"), [(True, "\rReplayed 3 of 9 \rReplayed 4 of 9 \n"), (False, "")])
def test_progress_is_shown_on_a_terminal_after_a_second(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, terminal: bool, shown: str
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    time = Time()
    progress = Progress("Replayed", 9, clock=time)
    progress.add(1)
    time.now += 1.5
    progress.add(2)
    progress.add(1)
    progress.end()
    assert capsys.readouterr().err == shown


# --- export ---


async def test_export_is_for_its_owner_only_replaces_nothing_and_has_no_payload(
    letters: Letters, dlq: Run, tmp_path: Path
) -> None:
    first, _second = await letters.add(post(CANARY), post(CANARY), description=f"no {CANARY} (at posts.py:42 in store)")
    path = tmp_path / "letters.jsonl"

    done = await dlq("export", NAME, str(path))

    assert done.out == f"Wrote 2 dead letters with fake values to {path}.\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not any(part in path.read_text() for part in ("Ann", "Smith", "corp"))
    assert json.loads(path.read_text().splitlines()[0])["letter_id"] == first
    before = path.read_bytes()
    assert "exists already" in (await dlq("export", NAME, str(path))).refused(2)
    assert path.read_bytes() == before
    assert len(await letters.listed()) == 2


async def test_export_with_data_has_what_was_published(letters: Letters, dlq: Run, tmp_path: Path) -> None:
    (letter_id,) = await letters.add(post(CANARY))
    path = tmp_path / "letters.jsonl"
    done = await dlq("export", NAME, str(path), letter_id, "--with-data")
    assert "with the published values" in done.out
    assert CANARY not in done.out + done.err
    assert json.loads(json.loads(path.read_text())["body"])["data"] == {"title": CANARY}


async def test_export_takes_filters_and_writes_no_empty_file(letters: Letters, dlq: Run, tmp_path: Path) -> None:
    await letters.add(post(), TotoMessage(type="postDeleted"))
    path = tmp_path / "letters.jsonl"
    (await dlq("export", NAME, str(path), "--type", "postHidden")).refused(1)
    assert not path.exists()
    await dlq("export", NAME, str(path), "--type", "postDeleted")
    assert len(path.read_text().splitlines()) == 1


async def test_export_to_a_link_or_a_folder_that_is_not_there_is_refused(
    letters: Letters, dlq: Run, tmp_path: Path
) -> None:
    await letters.add(post())
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    assert "exists already" in (await dlq("export", NAME, str(tmp_path / "link"))).refused(2)
    assert "no folder" in (await dlq("export", NAME, str(tmp_path / "none" / "file"))).refused(2)
    (await dlq("export", NAME, str(tmp_path / "file"), "1", "--type", "postCreated")).refused(2)
    assert os.listdir(tmp_path) == ["link"]


def test_file_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("of another")
    with pytest.raises(ConfigurationError, match="exists already"):
        write_export(tmp_path / "file", [], with_data=True)
    assert (tmp_path / "file").read_text() == "of another"


async def test_export_that_fails_leaves_no_file(
    letters: Letters, dlq: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> str:
        raise OSError(28, "No space left on device")

    await letters.add(post())
    monkeypatch.setattr("totoms.cli.exports.to_line", full)
    assert "No space left" in (await dlq("export", NAME, str(tmp_path / "file"))).refused(2)
    assert os.listdir(tmp_path) == []


# --- send ---


async def test_message_is_sent_to_a_topic_by_its_identifier(letters: Letters, dlq: Run, tmp_path: Path) -> None:
    file = tmp_path / "data.json"
    file.write_text(json.dumps({"title": CANARY}))

    done = await dlq("send", BLOG.topic, "--type", "postCreated", "--data", f"@{file}")

    (received,) = await letters.bus._receive(BLOG, 1, 20)
    assert done.out == f"Published message {received.message_id} to {BLOG.topic}.\n"
    sent = json.loads(received.body)
    assert (sent["type"], sent["data"]) == ("postCreated", {"title": CANARY})
    assert CANARY not in done.out + done.err


@pytest.mark.parametrize("name", ["posts", NAME])
async def test_message_is_sent_to_a_topic_or_subscription_of_a_declaration(
    letters: Letters, dlq: Run, service: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("POSTS_TOPIC", BLOG.topic)
    done = await dlq("send", name, "--service", service, "--type", "postCreated", "--data", "[1]")
    (received,) = await letters.bus._receive(BLOG, 1, 20)
    assert done.out == f"Published message {received.message_id} to {name}.\n"
    assert json.loads(received.body)["data"] == [1]


async def test_warning_of_the_log_is_a_note_apart_from_the_result(dlq: Run) -> None:
    done = await dlq("send", "nowhere", "--type", "postCreated")
    assert done.err == "totoms: The topic 'nowhere' has no subscriptions: its messages are dropped.\n"
    (line,) = done.out.splitlines()
    assert line.startswith("Published message ")


async def test_message_is_sent_to_a_queue(letters: Letters, dlq: Run) -> None:
    await dlq("send", NAME, "--queue", "--type", "postCreated")
    (received,) = await letters.bus._receive(BLOG, 1, 20)
    assert json.loads(received.body)["data"] == {}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--data", "{"], "--data is not JSON"),
        (["--data", "@nowhere.json"], "nowhere.json cannot be read"),
        (["--data", '"\\ud800"'], "JSON"),
        (["--type", ""], "type"),
        (["--queue", "--service", "a:b"], "--queue"),
        (["--service", "nowhere:x"], "nowhere"),
    ],
)
async def test_wrong_message_is_status_2(dlq: Run, arguments: list[str], named: str) -> None:
    given = [] if "--type" in arguments else ["--type", "t"]
    assert named in (await dlq("send", "topic", *given, *arguments)).refused(2)


async def test_topic_that_a_service_does_not_declare_is_status_2_and_the_others_are_named(
    dlq: Run, service: str
) -> None:
    done = await dlq("send", "mial", "--service", service, "--type", "t")
    assert (done.status, done.out) == (2, "")
    assert "'posts', 'mail', 'audit'" in done.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["list", "\udcff"],
        ["list", NAME, "--type", "\udcff"],
        ["list", NAME, "--reason", "\udcff"],
        ["show", NAME, "\udcff"],
        ["replay", NAME, "\udcff"],
        ["export", NAME, "letters.jsonl", "\udcff"],
        ["send", "\udcff", "--type", "a"],
        ["send", "posts", "--type", "\udcff"],
    ],
)
async def test_argument_that_is_not_utf_8_is_status_2(dlq: Run, arguments: list[str]) -> None:
    done = await dlq(*arguments)
    assert (done.status, done.out) == (2, "")
    assert done.err.count("\n") == 1
    assert "must be UTF-8" in done.err


async def test_declaration_that_exits_does_not_pass_for_success(
    dlq: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "exiting_service.py").write_text("raise SystemExit(0)")
    done = await dlq("send", "posts", "--service", "exiting_service:configuration", "--type", "a")
    assert (done.status, done.out) == (2, "")
    assert "exiting_service:configuration cannot be loaded" in done.err
