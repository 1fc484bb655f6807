"""The commands of ``python -m totoms dlq``. Each takes the parsed command line, works on a bus, and prints."""

from __future__ import annotations

import asyncio
import io
import math
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from types import SimpleNamespace
from typing import Any, Final

from totoms.cli import dead_letter_reports as reports
from totoms.cli.declarations import load_quietly
from totoms.cli.exports import refuse_existing, write_export
from totoms.cli.output import counted, print_note
from totoms.cli.replays import Progress, batch_size, in_batches
from totoms.cli.selection import MOST, Filters, filters_of, find, note_hiding
from totoms.environment import TotoEnvironment
from totoms.errors import ConfigurationError, NotFound
from totoms.logging.describe import printable
from totoms.messages.bus import MessageBus
from totoms.messages.dead_letters import DeadLetter

_DELETED: Final = "Deleted"
Action = Callable[[SimpleNamespace], Coroutine[Any, Any, None]]


def run(action: Action, parsed: SimpleNamespace) -> None:
    """Run a command to its end."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # the terminal's encoding may lack characters
    asyncio.run(action(parsed))


class _Bus:
    """Opens the bus of an environment, by default of the variables, for a block."""

    def __init__(self, environment: TotoEnvironment | None = None, topics: dict[str, str] | None = None) -> None:
        self._bus = MessageBus(environment or TotoEnvironment.from_variables(), topics or {})

    async def __aenter__(self) -> MessageBus:
        return self._bus

    async def __aexit__(self, *_: object) -> None:
        await self._bus.close()


# --- read ---


async def subscriptions(parsed: SimpleNamespace) -> None:
    """List subscriptions with the number of their dead letters."""
    from totoms.cli.subscriptions import count_all, declared_subscriptions

    configuration = load_quietly(parsed.configuration) if parsed.configuration else None
    names = None if configuration is None else declared_subscriptions(configuration)
    async with _Bus(configuration.environment if configuration is not None else None) as bus:
        reports.print_counts(await count_all(bus, names), bus.environment.hyperscaler, as_json=parsed.json)


async def list_letters(parsed: SimpleNamespace) -> None:
    """List dead letters."""
    filters = filters_of(parsed)
    async with _Bus() as bus:
        found = await find(bus, parsed.subscription, filters, parsed.limit)
    reports.print_list(found, _scope(parsed, filters), as_json=parsed.json)


async def groups(parsed: SimpleNamespace) -> None:
    """Group dead letters."""
    filters = filters_of(parsed)
    async with _Bus() as bus:
        found = await find(bus, parsed.subscription, filters)
    reports.print_groups(found, _scope(parsed, filters), as_json=parsed.json)


def _scope(parsed: SimpleNamespace, filters: Filters) -> str:
    """Return what has no dead letters if none is found."""
    return f"{parsed.subscription}, with these filters," if filters else parsed.subscription


async def show(parsed: SimpleNamespace) -> None:
    """Show one dead letter."""
    async with _Bus() as bus:
        reports.print_letter(await bus.show_dead_letter(parsed.subscription, parsed.letter_id))
        note_hiding(bus, parsed.subscription)


async def export(parsed: SimpleNamespace) -> None:
    """Write dead letters to a file."""
    filters = filters_of(parsed)
    if parsed.letter_ids and filters:
        raise ConfigurationError("Give ids or filters, not both.")
    refuse_existing(parsed.file)
    async with _Bus() as bus:
        if parsed.letter_ids:
            found = [await bus.show_dead_letter(parsed.subscription, one) for one in dict.fromkeys(parsed.letter_ids)]
            note_hiding(bus, parsed.subscription)
        else:
            found = await find(bus, parsed.subscription, filters)
    if not found:
        raise NotFound(f"{parsed.subscription} has no such dead letters: nothing was written.")
    write_export(parsed.file, found, with_data=parsed.with_data)
    values = "the published values" if parsed.with_data else "fake values"
    sys.stdout.write(f"Wrote {counted(len(found))} with {values} to {printable(str(parsed.file))}.\n")


# --- change ---


async def replay(parsed: SimpleNamespace) -> None:
    """Replay dead letters."""
    filters = _check_selection(parsed)
    async with _Bus() as bus:
        await _do(bus, bus.replay_dead_letters, "Replayed", parsed, filters)


async def purge(parsed: SimpleNamespace) -> None:
    """Delete dead letters."""
    filters = _check_selection(parsed)
    ask = not parsed.letter_ids and not parsed.yes
    if ask and not sys.stdin.isatty():
        raise ConfigurationError("Deleting dead letters without ids needs --yes if there is no terminal to confirm it.")
    if ask and not filters and not _confirm(f"all dead letters of {parsed.subscription}"):
        return
    async with _Bus() as bus:
        await _do(bus, bus.purge_dead_letters, _DELETED, parsed, filters, ask=ask)


def _check_selection(parsed: SimpleNamespace) -> Filters:
    filters = filters_of(parsed)
    if bool(parsed.letter_ids) == bool(parsed.all or filters):
        raise ConfigurationError("Give the ids of the dead letters, or filters, or --all.")
    return filters


def _confirm(what: str) -> bool:
    sys.stderr.write(f"Delete {printable(what)} for good? [y/N] ")
    sys.stderr.flush()
    confirmed = sys.stdin.readline().strip().lower() in ("y", "yes")
    if not confirmed:
        print_note("Nothing was deleted.")
    return confirmed


async def _do(
    bus: MessageBus,
    work: Callable[..., Awaitable[int]],
    verb: str,
    parsed: SimpleNamespace,
    filters: Filters,
    *,
    ask: bool = False,
) -> None:
    """Replay or purge what the command line selects, and print how many."""
    rate: float | None = getattr(parsed, "rate", None)
    if parsed.all and not filters and rate is None:
        _print_done(verb, await work(parsed.subscription), parsed)
        return
    # Ids that were given go one by one: a backend returns how many there were, not which.
    letter_ids, size = list(dict.fromkeys(parsed.letter_ids)), 1
    if not letter_ids:
        found = await find(bus, parsed.subscription, filters)
        letter_ids = [one.letter_id for one in (found if verb == _DELETED else _each_message_once(found))]
        size = batch_size(rate) if rate is not None else MOST
        if ask and filters and letter_ids and not _confirm(f"{counted(len(letter_ids))} of {parsed.subscription}"):
            return
    missing: list[str] = []
    progress = Progress(verb, len(letter_ids))

    def done(batch: Sequence[str], number: int) -> None:
        progress.add(number)
        if size == 1 and not number:
            missing.extend(batch)

    completed = False
    try:
        await in_batches(work, parsed.subscription, letter_ids, done, size=size, rate=rate or math.inf)
        completed = True
    finally:  # also after an error or Ctrl-C
        progress.end()
        if completed or progress.count:
            _print_done(verb, progress.count, parsed)
    if missing and parsed.letter_ids:
        raise NotFound(f"{parsed.subscription} has no dead letter {', '.join(map(repr, missing))}.")


def _each_message_once(dead_letters: list[DeadLetter]) -> list[DeadLetter]:
    # As `replay_letters`: of a message that died twice, the newer dead letter is left for the next replay.
    first: dict[str, DeadLetter] = {}
    for one in dead_letters:
        first.setdefault(one.message_id, one)
    return list(first.values())


def _print_done(verb: str, number: int, parsed: SimpleNamespace) -> None:
    sys.stdout.write(f"{verb} {counted(number)} of {printable(parsed.subscription)}.\n")


async def send(parsed: SimpleNamespace) -> None:
    """Publish a test message."""
    from totoms.cli.sending import publish, read_data, topic_identifier
    from totoms.messages.message import MessageDestination

    if parsed.service and parsed.queue:
        raise ConfigurationError("Give --service or --queue, not both: a service declares topics.")
    data = read_data(parsed.data)
    environment, topics, destination = None, {}, MessageDestination(queue=parsed.destination)
    if not parsed.queue:
        name = identifier = parsed.destination
        if parsed.service:
            configuration = load_quietly(parsed.service)
            environment = configuration.environment or TotoEnvironment.from_variables()
            name, identifier = await topic_identifier(configuration, parsed.destination, environment)
        topics, destination = {name: identifier}, MessageDestination(topic=name)
    async with _Bus(environment, topics) as bus:
        message_id = await publish(bus, destination, parsed.type, data)
    sys.stdout.write(f"Published message {printable(message_id)} to {printable(parsed.destination)}.\n")
