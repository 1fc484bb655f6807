"""``totoms dlq``, run as a person runs it, on the dead letters of the local bus."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from support.local.dead_letters import BLOG, NAME, Letters, post
from support.plugins import GOOD, install_plugin
from totoms.messages.dead_letters import DeadLetterReason
from totoms.messages.receiver import Received


def dlq(*arguments: str, site: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **variables}
    if site is not None:
        env["PYTHONPATH"] = str(site)
    return subprocess.run(
        [sys.executable, "-m", "totoms", "dlq", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        env=env,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def refused(done: subprocess.CompletedProcess[str], status: int) -> str:
    """Check that the command failed as promised: the status, and one line on standard error."""
    assert done.returncode == status, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("totoms: ")
    return lines[0]


# --- list ---


async def test_list_shows_what_each_dead_letter_is_and_why_it_is_there(letters: Letters) -> None:
    (letter_id,) = await letters.add(post())
    (letter,) = await letters.listed()

    done = dlq("list", NAME)

    assert done.returncode == 0, done.stderr
    head, row = done.stdout.splitlines()
    assert head.split("  ")[0] == "LETTER ID"
    since = datetime.fromtimestamp(letter.dead_since, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert row.split() == [letter_id, letter.message_id, "postCreated", "5", "attempts_exhausted", "ValueError", since]


async def test_list_as_json(letters: Letters) -> None:
    (letter_id,) = await letters.add(post())

    (row,) = json.loads(dlq("list", NAME, "--json").stdout)

    assert row["letter_id"] == letter_id
    assert (row["type"], row["attempts"], row["reason"]) == ("postCreated", 5, "attempts_exhausted")
    assert row["dead_since"].endswith("Z")


async def test_list_stops_at_its_limit_oldest_first_and_says_so(letters: Letters) -> None:
    ids = await letters.add(post(), post(), post())

    done = dlq("list", NAME, "--limit", "2", "--json")

    assert [row["letter_id"] for row in json.loads(done.stdout)] == ids[:2]
    assert "more than 2" in done.stderr
    assert dlq("list", NAME, "--limit", "3").stderr == ""


async def test_no_dead_letters_are_reported_as_such_and_as_an_empty_list_in_json(letters: Letters) -> None:
    done = dlq("list", NAME)
    assert (done.returncode, done.stdout) == (0, "")
    assert "no dead letters" in done.stderr
    assert json.loads(dlq("list", NAME, "--json").stdout) == []


async def test_dead_letter_of_a_foreign_publisher_is_listed_with_the_type_in_its_body(letters: Letters) -> None:
    for body in (b'{"type":"foreign"}', b"\xff\x00"):
        await letters.bus._dead_letter(Received(body, "m", 1, BLOG), DeadLetterReason("undecodable"))

    first, second = json.loads(dlq("list", NAME, "--json").stdout)

    assert (first["type"], second["type"]) == ("foreign", "")


# --- show ---


async def test_show_prints_all_of_a_dead_letter_with_the_body_indented(letters: Letters) -> None:
    (letter_id,) = await letters.add(post("Grüße"))
    (letter,) = await letters.listed()

    done = dlq("show", NAME, letter_id)

    assert done.returncode == 0, done.stderr
    head, _, body = done.stdout.partition("\n\n")
    for told in (letter_id, letter.message_id, NAME, "postCreated", "attempts_exhausted", "ValueError", "5"):
        assert told in head
    for name in letter.attributes:
        assert f"{name} = " in head
    assert json.loads(body) == json.loads(letter.body)
    assert '  "data": {\n    "title": "Grüße"' in body


@pytest.mark.parametrize(
    "body",
    [
        b'{"type":"x","data":"\\u001b]0;owned\\u0007\\u202e\\ud800"}',
        b"\x1b[2J\x07 no JSON \xff\x9b31m\r",
        "\u202e\u009b31m \u2066 text".encode(),
        b"[" * 100_000,
        b"9" * 10_000,
    ],
    ids=["escaped in JSON", "bytes", "unicode controls", "deep", "huge integer"],
)
async def test_what_a_terminal_would_obey_is_shown_escaped(letters: Letters, body: bytes) -> None:
    reason = DeadLetterReason("undecodable", "E\x1b[31m", "see \x1b]8;;http://evil\x07")
    await letters.bus._dead_letter(Received(body, "m", 1, BLOG, {"a\x1b": "b\x9b\u202e"}), reason)
    (letter,) = await letters.listed()

    for done in (dlq("show", NAME, letter.letter_id), dlq("list", NAME), dlq("list", NAME, "--json")):
        assert done.returncode == 0, done.stderr
        assert all(one.isprintable() or one in "\n\t" for one in done.stdout)


async def test_show_works_where_the_terminal_knows_only_ascii(letters: Letters) -> None:
    (letter_id,) = await letters.add(post("Grüße"))

    done = dlq("show", NAME, letter_id, PYTHONIOENCODING="ascii")

    assert done.returncode == 0, done.stderr
    assert "Gr\\xfc\\xdfe" in done.stdout


async def test_dead_letter_beyond_the_first_hundred_is_found(letters: Letters) -> None:
    for number in range(103):
        await letters.bus._dead_letter(Received(b"{}", f"m{number}", 1, BLOG), DeadLetterReason("undecodable"))
    *_, last = await letters.listed()

    assert "m102" in dlq("show", NAME, last.letter_id).stdout


# --- replay and purge ---


async def test_replayed_dead_letters_are_delivered_again_and_counted(letters: Letters) -> None:
    first, second, third = await letters.add(post("a"), post("b"), post("c"))

    done = dlq("replay", NAME, first, third, first)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"Replayed 2 dead letters of {NAME}.\n"
    assert [letter.letter_id for letter in await letters.listed()] == [second]
    received: list[Received] = []
    while len(received) < 2:
        received += await letters.bus._receive(BLOG, 10, 20)
    assert [one.attempt for one in received] == [1, 1]


async def test_all_dead_letters_are_replayed_on_request(letters: Letters) -> None:
    await letters.add(post(), post())

    assert dlq("replay", NAME, "--all").stdout == f"Replayed 2 dead letters of {NAME}.\n"
    assert dlq("replay", NAME, "--all").stdout == f"Replayed 0 dead letters of {NAME}.\n"


async def test_purged_dead_letters_are_gone(letters: Letters) -> None:
    first, second = await letters.add(post(), post())

    assert dlq("purge", NAME, second).stdout == f"Deleted 1 dead letter of {NAME}.\n"
    assert [letter.letter_id for letter in await letters.listed()] == [first]
    assert dlq("purge", NAME, "--all", "--yes").stdout == f"Deleted 1 dead letter of {NAME}.\n"
    assert await letters.listed() == []


async def test_purging_all_needs_yes_without_a_terminal(letters: Letters) -> None:
    await letters.add(post())

    assert "--yes" in refused(dlq("purge", NAME, "--all"), 2)

    assert len(await letters.listed()) == 1


@pytest.mark.parametrize(("answer", "left"), [("y\n", 0), ("n\n", 1), ("\n", 1), ("\x04", 1)])
async def test_purging_all_asks_on_a_terminal(letters: Letters, answer: str, left: int) -> None:
    await letters.add(post())
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(  # noqa: ASYNC220 - nothing else runs here
            [sys.executable, "-m", "totoms", "dlq", "purge", NAME, "--all"],
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        os.write(ours, answer.encode())
        _, told = process.communicate(timeout=60)
    finally:
        os.close(ours)
        os.close(theirs)

    assert process.returncode == 0, told
    assert "[y/N]" in told
    assert ("Nothing was deleted" in told) == bool(left)
    assert len(await letters.listed()) == left


async def test_replay_that_is_interrupted_says_how_many_were_replayed(letters: Letters) -> None:
    await letters.add(post(), post())
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "totoms", "dlq", "replay", NAME, "--all", "--rate", "0.001"), stdout=subprocess.PIPE
    )
    while len(await letters.listed()) == 2:
        await asyncio.sleep(0.05)
    process.send_signal(signal.SIGINT)
    printed, _ = await process.communicate()
    assert (process.returncode, printed.decode()) == (130, f"Replayed 1 dead letter of {NAME}.\n")


# --- what goes wrong ---


@pytest.mark.parametrize(
    "arguments",
    [[], ["fly"], ["list"], ["list", NAME, "--limit", "0"], ["list", NAME, "--limit", "all"], ["show", NAME]]
    + [[action, NAME, *rest] for action in ("replay", "purge") for rest in ([], ["1", "--all"])],
)
def test_wrong_arguments_are_one_line_and_status_2(arguments: list[str]) -> None:
    done = dlq(*arguments)

    assert done.stdout == ""
    refused(done, 2)


@pytest.mark.parametrize("action", ["show", "replay", "purge"])
async def test_unknown_dead_letter_is_reported_with_status_1_and_the_others_are_done(
    letters: Letters, action: str
) -> None:
    (letter_id,) = await letters.add(post())
    known = [] if action == "show" else [letter_id]

    line = refused(dlq(action, NAME, *known, "4711\x1b[2J"), 1)

    assert "4711" in line
    assert letter_id not in line.split("dead letter")[1].split("'")
    assert len(await letters.listed()) == 1 - len(known)


@pytest.mark.parametrize("arguments", [["list"], ["show", "1"], ["replay", "1"], ["replay", "--all"], ["purge", "1"]])
async def test_unknown_subscription_is_reported_with_status_1(letters: Letters, arguments: list[str]) -> None:
    action, *rest = arguments

    assert "blog-post'" in refused(dlq(action, "blog-post", *rest), 1)


def test_backend_without_dead_letters_is_reported_with_status_1(tmp_path: Path) -> None:
    install_plugin(tmp_path, GOOD, name="skyline", distribution="totoms-skyline")

    line = refused(dlq("list", NAME, site=tmp_path, HYPERSCALER="skyline"), 1)

    assert "skyline" in line
    assert "dead_letters" in line


def test_unknown_hyperscaler_is_status_2() -> None:
    assert "nimbus" in refused(dlq("list", NAME, HYPERSCALER="nimbus"), 2)


async def test_damaged_database_is_one_line_that_names_the_file(letters: Letters, local_root: str) -> None:
    await letters.add(post())
    await letters.bus.close()
    (Path(local_root) / "bus.sqlite3").write_bytes(b"no database" * 1000)

    assert "bus.sqlite3" in refused(dlq("list", NAME), 1)


def test_wrong_arguments_cost_no_backend() -> None:
    code = (
        "import sys; from totoms.cli.main import main\n"
        "assert main(['dlq', 'replay', 'x']) == 2\n"
        "assert 'totoms.local.messages.bus' not in sys.modules and 'sqlite3' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=300)
