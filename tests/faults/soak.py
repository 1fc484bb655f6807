"""Everything at once for a while: publishers, consumers, HTTP, storage, and one accident after the other.

``python tests/faults/soak.py [--minutes 10] [--seed N]``

Two services handle what two publishers and some HTTP callers publish, through proxies that spoil their answers.
Processes are killed, stopped and drained at random, all by one seed. Each minute has a line of figures. At the end
what was acknowledged is compared with what was handled: exit status 1 unless nothing is lost and all poison is
dead-lettered.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

SUPPORT = Path(__file__).resolve().parents[1] / "support"
sys.path.insert(0, str(SUPPORT.parent))

import httpx  # noqa: E402 - the path comes first

from support.faults.oracle import assert_duplicates_are_flagged, dead_letters, numbers, problems, whole_lines  # noqa: E402
from support.faults.proxy import FaultProxy  # noqa: E402
from support.processes import Process  # noqa: E402
from totoms.auth.tokens import make_token  # noqa: E402
from totoms.local.keys import signing_key  # noqa: E402

RATE = 60.0
"""Messages per second of each publisher."""
POISON_EVERY = 50
RANGE = 10_000_000
"""Each publisher has its own numbers, so that each number is published by one."""
CALLERS = 6
MAX_ATTEMPTS = 10
LEASE = 2.0
GRACE = 5.0
DEADLINE = 2.0
ODDS = {"drop": 0.05, "reset": 0.03, "half_open": 0.005, "delay": 0.005}
PAGE = os.sysconf("SC_PAGE_SIZE")


class Member:
    """A process that is started again whenever it ends."""

    def __init__(self, name: str, start: Callable[[], Process], proxy: FaultProxy | None = None) -> None:
        self.name = name
        self.busy = False
        self.process: Process | None = None
        self.before: Counter[str] = Counter()
        self._start = start
        self._proxy = proxy

    async def start(self) -> None:
        """Start it, and lead its callers to it."""
        if self.process is not None:
            self.before += self.complaints()
        self.process = self._start()
        if self._proxy is not None:
            self._proxy.target = await asyncio.to_thread(self.process.port)

    def complaints(self) -> Counter[str]:
        """What its output tells of: of this process and those before it."""
        output = self.process.output if self.process is not None else ""
        return Counter({what: output.count(what) for what in ("Traceback", "publish failed")})

    def resident_bytes(self) -> int:
        """Its memory now."""
        assert self.process is not None
        try:
            return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * PAGE
        except (OSError, IndexError):  # ended, or not on Linux
            return 0

    async def end(self, sig: int) -> int:
        """End it by a signal; return its exit status."""
        assert self.process is not None
        self.process.send(sig)
        return await asyncio.to_thread(self.process.wait)


class Soak:
    """One run.

    Args:
        folder: Where everything lies.
        seconds: How long.
        seed: Of all that is random here. (What the processes make of it depends on the machine as well.)
    """

    def __init__(self, folder: Path, seconds: float, seed: int) -> None:
        self.dice = random.Random(seed)
        self.root = folder / "root"
        self.handled = folder / "handled"
        self.files = [folder / f"published-{number}" for number in range(2)]
        self.seconds = seconds
        self.ends = time.monotonic() + seconds
        self.acknowledged: set[int] = set()
        # By file: what was acknowledged last; and what was not, which may be written any time later: a process that
        # was stopped does it when it goes on, long after its caller has given up.
        self.stored: dict[str, tuple[bytes, int]] = {}
        self.uncertain: dict[str, dict[bytes, int]] = {}
        self.late_writes = 0
        self.failures = 0
        self.accidents: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._read = 0
        self._ids: set[str] = set()
        self._deliveries = 0
        self.proxies = [FaultProxy(0, seed=seed + number) for number in range(2)]
        self.services = [Member(f"service {number}", self._service, proxy) for number, proxy in enumerate(self.proxies)]
        self.publishers = [
            Member(f"publisher {number}", lambda number=number: self._publisher(number))  # type: ignore[misc]
            for number in range(2)
        ]

    def _service(self) -> Process:
        options = ("--max-attempts", MAX_ATTEMPTS, "--lease-seconds", LEASE, "--grace", GRACE)
        options = (*options, "--handler-seconds", 0.1)
        return Process(SUPPORT / "faults/service.py", str(self.handled), *map(str, options), root=str(self.root))

    def _publisher(self, number: int) -> Process:
        first = number * RANGE
        last = first + int(RATE * self.seconds * 2)
        arguments = (self.files[number], first, last, 8, POISON_EVERY, RATE)
        return Process(SUPPORT / "faults/publisher.py", *map(str, arguments), root=str(self.root))

    # --- what goes on ---

    async def run(self) -> list[str]:
        """Go through it all; return what was wrong."""
        for proxy in self.proxies:
            await proxy.restore()
            proxy.odds = ODDS
        for member in [*self.services, *self.publishers]:
            await member.start()
        self.ends = time.monotonic() + self.seconds
        tasks = [asyncio.create_task(self._caller(number)) for number in range(CALLERS)]
        tasks += [asyncio.create_task(self._chaos()), asyncio.create_task(self._tell_minutes())]
        await asyncio.gather(*tasks)
        for publisher in self.publishers:
            assert publisher.process is not None
            publisher.process.kill()
        return await self._verdict()

    async def _caller(self, which: int) -> None:
        bearer = make_token(signing_key(self.root), "soak@example.com", self.seconds + 600)
        name, first, count = f"file-{which}", (which + 10) * RANGE, 0
        async with httpx.AsyncClient(headers={"authorization": f"Bearer {bearer}"}, timeout=DEADLINE) as client:
            while time.monotonic() < self.ends:
                number, count = first + count, count + 1
                sent = {"number": number, "poison": number % POISON_EVERY == 0}
                if await self._ask(client, "POST", "/numbers", json=sent) is not None:
                    self.acknowledged.add(number)
                content = f"{count}:" + "x" * self.dice.randrange(20_000)
                uncertain = self.uncertain.setdefault(name, {})
                uncertain[_digest(content)] = count
                if await self._ask(client, "PUT", "/files", json={"name": name, "content": content}) is not None:
                    del uncertain[_digest(content)]
                    self.stored[name] = _digest(content), count
                self._check_file(name, await self._ask(client, "GET", "/files", params={"name": name}))
                await asyncio.sleep(0.1)

    def _check_file(self, name: str, read: Any) -> None:
        if read is None:
            return
        stored, count = self.stored.get(name, (_digest(""), 0))
        found = _digest(read["content"] or "")
        if found in self.uncertain[name]:
            self.late_writes += self.uncertain[name][found] < count
        elif found != stored:
            self.wrong.append(f"{name} is lost, torn or old")

    async def _ask(self, client: httpx.AsyncClient, method: str, path: str, **sent: Any) -> Any:
        """Ask one of the services; None for an answer that did not come, or was no good one."""
        url = f"http://127.0.0.1:{self.dice.choice(self.proxies).port}{path}"
        try:
            async with asyncio.timeout(DEADLINE):
                answer = await client.request(method, url, **sent)
            if answer.status_code == 200:
                return answer.json()
        except (httpx.HTTPError, TimeoutError):
            pass
        self.failures += 1
        return None

    # --- what goes wrong ---

    async def _chaos(self) -> None:
        accidents = [self._kill, self._kill, self._drain, self._stop, self._outage]
        under_way: set[asyncio.Task[None]] = set()
        while (left := self.ends - time.monotonic()) > 0:
            await asyncio.sleep(min(left, self.dice.uniform(0.5, 3.0)))
            idle = [member for member in [*self.services, *self.publishers] if not member.busy]
            if idle:
                task = asyncio.create_task(self._strike(self.dice.choice(accidents), self.dice.choice(idle)))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
        await asyncio.gather(*under_way)

    async def _strike(self, accident: Callable[[Member], Any], member: Member) -> None:
        member.busy = True
        try:
            await accident(member)
            self.accidents[accident.__name__.strip("_")] += 1
        except Exception as error:
            self.wrong.append(f"{accident.__name__} of {member.name}: {error!r}"[:500])
        finally:
            member.busy = False

    async def _kill(self, member: Member) -> None:
        await member.end(signal.SIGKILL)
        await asyncio.sleep(self.dice.uniform(0, 1))
        await member.start()

    async def _drain(self, member: Member) -> None:
        if member in self.publishers:  # it is a script that ends of it, as it may
            await self._kill(member)
            return
        began = time.monotonic()
        status = await member.end(signal.SIGTERM)
        if status or time.monotonic() - began > GRACE + 2:
            self.wrong.append(f"SIGTERM ended {member.name} with {status} after {time.monotonic() - began:.1f} s")
        await member.start()

    async def _stop(self, member: Member) -> None:
        assert member.process is not None
        member.process.send(signal.SIGSTOP)
        await asyncio.sleep(self.dice.uniform(0.2, 2 * LEASE))
        member.process.send(signal.SIGCONT)

    async def _outage(self, _member: Member) -> None:
        proxy = self.dice.choice(self.proxies)
        await proxy.kill()
        await asyncio.sleep(self.dice.uniform(0.2, 2.0))
        await proxy.restore()

    # --- the report ---

    async def _tell_minutes(self) -> None:
        print("minute  published  handled  duplicates  dead  most RSS  p99 lag  errors  accidents", flush=True)
        minute = 0
        while (left := self.ends - time.monotonic()) > 0:
            await asyncio.sleep(min(left, 60.0))
            minute += 1
            latencies = self._news()
            p99 = sorted(latencies)[len(latencies) * 99 // 100] if latencies else 0.0
            most = max(member.resident_bytes() for member in [*self.services, *self.publishers])
            published = sum(map(len, self._published()))
            print(
                f"{minute:6}  {published:9}  {self._deliveries:7}  {self._deliveries - len(self._ids):10}  "
                f"{len(dead_letters(self.root)):4}  {most / 2**20:5.0f} MB  {p99:5.2f} s  {self._errors():6}  "
                f"{self.accidents.total():9}",
                flush=True,
            )

    def _news(self) -> list[float]:
        """Read what was handled since the last time; return how long each took from publication."""
        latencies = []
        with self.handled.open() as file:
            file.seek(self._read)
            text = file.read()
        text = text[: text.rfind("\n") + 1]
        self._read += len(text)
        for line in text.splitlines():
            _, _, message_id, latency = line.split()
            self._deliveries += 1
            self._ids.add(message_id)
            latencies.append(float(latency))
        return latencies

    def _published(self) -> list[set[int]]:
        return [self.acknowledged, *(set(numbers(file)) for file in self.files)]

    def _errors(self) -> int:
        members = [*self.services, *self.publishers]
        return self.failures + sum((member.before + member.complaints())["publish failed"] for member in members)

    async def _verdict(self) -> list[str]:
        for proxy in self.proxies:
            proxy.odds = {}
        acknowledged = set().union(*self._published())
        poison = {number for number in acknowledged if number % POISON_EVERY == 0}
        ends = time.monotonic() + 120
        while True:
            handled, dead = set(numbers(self.handled)), set(dead_letters(self.root))
            # What was published and not acknowledged may come as well.
            found = problems(
                acknowledged, {one for one in acknowledged | handled | dead if not one % POISON_EVERY}, handled, dead
            )
            if not found or time.monotonic() > ends:
                break
            await asyncio.sleep(0.5)
        duplicates = assert_duplicates_are_flagged(self.handled)
        await self._check_files()
        found += self.wrong
        for member in [*self.services, *self.publishers]:
            if (member.before + member.complaints())["Traceback"]:
                found.append(f"{member.name} printed a stack trace")
        print(
            f"{len(acknowledged)} acknowledged, {len(acknowledged - handled - dead)} lost, {duplicates} redelivered, "
            f"{len(poison & dead)} of {len(poison)} poison dead-lettered, {len(whole_lines(self.handled))} handled, "
            f"{self.late_writes} reads of a file whose writer had gone long before, "
            f"accidents: {', '.join(f'{count} {what}' for what, count in sorted(self.accidents.items()))}",
            flush=True,
        )
        return found

    async def _check_files(self) -> None:
        bearer = make_token(signing_key(self.root), "soak@example.com")
        async with httpx.AsyncClient(headers={"authorization": f"Bearer {bearer}"}, timeout=30) as client:
            for name in self.stored:
                read = await self._ask(client, "GET", "/files", params={"name": name})
                if read is None:
                    self.wrong.append(f"{name} cannot be read")
                self._check_file(name, read)

    async def end(self) -> None:
        """Leave nothing behind."""
        for member in [*self.services, *self.publishers]:
            if member.process is not None:
                member.process.kill()
        for proxy in self.proxies:
            await proxy.kill()


def _digest(content: str) -> bytes:
    return hashlib.sha256(content.encode()).digest()


async def main() -> int:
    """Run the soak and tell what was wrong."""
    parser = argparse.ArgumentParser(description="Everything at once for a while, and then the count.")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    seed = random.randrange(1_000_000) if options.seed is None else options.seed
    print(f"soak of {options.minutes:g} minutes, seed {seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="totoms-soak-", ignore_cleanup_errors=True) as folder:
        soak = Soak(Path(folder), options.minutes * 60, seed)
        try:
            async with asyncio.timeout(options.minutes * 60 + 300):
                found = await soak.run()
        finally:
            await soak.end()
    for problem in found:
        print(f"WRONG: {problem}", flush=True)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
