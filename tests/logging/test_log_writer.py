"""`BatchHandler`: lines are written soon, at once when they matter, and never lost where that can be helped."""

from __future__ import annotations

import asyncio
import io
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from totoms.logging import handler as log_writer_module
from totoms.logging.handler import BATCH_LINES, BatchHandler

DEADLINE = 120.0


class Output(io.StringIO):
    """A stream that tells when it was written to."""

    def __init__(self) -> None:
        super().__init__()
        self.written = threading.Event()
        self.threads: list[str] = []

    def write(self, text: str) -> int:
        count = super().write(text)
        self.threads.append(threading.current_thread().name)
        self.written.set()
        return count


@pytest.fixture
def output() -> Output:
    return Output()


@pytest.fixture
def handler(output: Output) -> BatchHandler:
    return BatchHandler(output)


def info(handler: BatchHandler, text: str = "line") -> None:
    handler.add(text, logging.INFO)


async def eventually(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():
            await asyncio.sleep(0.001)


async def test_line_is_written_soon_by_the_loop(handler: BatchHandler, output: Output) -> None:
    info(handler, "one")
    info(handler, "two")
    assert output.getvalue() == ""
    await eventually(output.written.is_set)
    assert output.getvalue() == "one\ntwo\n"
    assert output.threads == ["MainThread"]


def test_line_is_written_soon_without_a_loop(handler: BatchHandler, output: Output) -> None:
    info(handler)
    assert output.written.wait(DEADLINE)
    assert output.getvalue() == "line\n"
    assert output.threads == ["totoms-log"]


def test_line_is_written_when_the_loop_ended_before_its_turn(handler: BatchHandler, output: Output) -> None:
    async def log_and_end() -> None:
        info(handler, "from the loop")

    asyncio.run(log_and_end())
    assert output.written.wait(DEADLINE)
    assert output.getvalue() == "from the loop\n"
    output.written.clear()
    info(handler, "after it")
    assert output.written.wait(DEADLINE)


@pytest.mark.parametrize("level", [logging.WARNING, logging.ERROR, logging.CRITICAL])
async def test_what_matters_is_written_at_once_with_all_before_it(
    level: int, handler: BatchHandler, output: Output
) -> None:
    info(handler, "before")
    handler.add("serious", level)
    assert output.getvalue() == "before\nserious\n"


async def test_large_batch_is_written_at_once(handler: BatchHandler, output: Output) -> None:
    for _ in range(BATCH_LINES + 1):
        info(handler)
    assert output.getvalue().count("\n") == BATCH_LINES + 1


async def test_flush_writes(handler: BatchHandler, output: Output) -> None:
    info(handler)
    handler.flush()
    assert output.getvalue() == "line\n"


async def test_closed_by_logging_config_it_goes_on_in_batches(handler: BatchHandler, output: Output) -> None:
    info(handler, "before")
    handler.close()
    assert output.getvalue() == "before\n"
    info(handler, "after")
    assert output.getvalue() == "before\n"
    await eventually(lambda: output.getvalue() == "before\nafter\n")


def test_lines_of_many_threads_are_all_there_and_whole(handler: BatchHandler, output: Output) -> None:
    def write(number: int) -> None:
        for count in range(2000):
            info(handler, f"{number}-{count}")

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    handler.flush()
    found = output.getvalue().splitlines()
    assert sorted(found) == sorted(f"{number}-{count}" for number in range(8) for count in range(2000))
    for number in range(8):
        own = [line for line in found if line.startswith(f"{number}-")]
        assert own == [f"{number}-{count}" for count in range(2000)]


class Closed(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


@pytest.mark.parametrize("stream", [Closed(), None], ids=["broken pipe", "closed"])
def test_closed_output_does_not_affect_the_service(stream: Any) -> None:
    if stream is None:
        stream = io.StringIO()
        stream.close()
    handler = BatchHandler(stream)
    handler.add("line", logging.ERROR)
    handler.add("line", logging.INFO)
    handler.flush()


def test_missing_standard_output_does_not_affect_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    handler = BatchHandler()
    handler.add("line", logging.ERROR)


def test_output_that_cannot_spell_a_character_gets_an_escape() -> None:
    raw = io.BytesIO()
    handler = BatchHandler(io.TextIOWrapper(raw, encoding="ascii"))
    handler.add("é", logging.ERROR)
    assert raw.getvalue() == b"\\xe9\n"


def test_error_in_a_formatter_is_not_raised_to_the_caller(capsys: pytest.CaptureFixture[str]) -> None:
    handler = BatchHandler(io.StringIO())
    handler.emit(logging.LogRecord("x", logging.INFO, "", 0, "%d", ("not a number",), None))
    assert "not a number" in capsys.readouterr().err


@pytest.fixture
def pipe() -> Iterator[tuple[Any, Any]]:
    """A pipe that is not read until the test reads it."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb", buffering=0) as reader, os.fdopen(writing, "w") as writer:
        yield reader, writer


async def test_reader_that_is_slow_does_not_hold_up_the_loop(pipe: tuple[Any, Any]) -> None:
    reader, writer = pipe
    handler = BatchHandler(writer)
    line = "x" * 100
    async with asyncio.timeout(DEADLINE):
        for number in range(20_000):  # 2 MB into a pipe of 64 KB
            handler.add(line, logging.WARNING if number % 100 == 0 else logging.INFO)
            if number % 1000 == 0:
                await asyncio.sleep(0)
    received = 0

    def read() -> None:
        nonlocal received
        while received < 20_000 * 101:
            received += len(reader.read(65536))

    await asyncio.wait_for(asyncio.to_thread(read), DEADLINE)
    assert received == 20_000 * 101


async def test_unread_lines_are_bounded_and_counted(pipe: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_writer_module, "MAX_LINES", 2000)
    reader, writer = pipe
    handler = BatchHandler(writer)
    for _ in range(50_000):
        handler.add("x" * 100, logging.INFO)
    assert len(handler._lines) <= 2000
    text = b""

    def read() -> None:
        nonlocal text
        while b"dropped" not in text:
            text += reader.read(65536)

    await asyncio.wait_for(asyncio.to_thread(read), DEADLINE)
    kept, dropped = text.count(b"xx\n"), int(text.split(b" log lines were dropped")[0].rsplit(b"\n", 1)[1])
    assert kept + dropped == 50_000


# --- processes ---

PROGRAM = """
import asyncio, logging, os, sys
from totoms import TotoLogger
from totoms.logging.setup import configure_logging, flush_logging
configure_logging(json=False)
logger = TotoLogger("p")
{body}
"""


def run(body: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM.format(body=body)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        **options,
    )


def test_lines_are_written_at_exit() -> None:
    done = run("logger.log('c', 'last words')")
    assert done.stdout.count("last words") == 1
    assert (done.returncode, done.stderr) == (0, "")


def test_lines_of_a_loop_are_written_at_exit() -> None:
    done = run("async def main(): logger.log('c', 'last words')\nasyncio.run(main())")
    assert done.stdout.count("last words") == 1


def test_lines_are_written_when_the_program_fails() -> None:
    done = run("logger.log('c', 'last words')\nraise SystemExit(3)")
    assert done.stdout.count("last words") == 1
    assert done.returncode == 3


def test_lines_logged_at_exit_are_written() -> None:
    done = run("import atexit\nlogger.log('c', 'first')\natexit.register(lambda: logger.log('c', 'at exit'))")
    assert "first" in done.stdout
    assert "at exit" in done.stdout


def test_warning_is_written_before_the_process_is_killed() -> None:
    done = run("logger.log('c', 'before')\nlogger.log('c', 'serious', 'WARNING')\nos.kill(os.getpid(), 9)")
    assert "before" in done.stdout
    assert "serious" in done.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_forked_child_writes_its_own_lines_and_not_its_parents() -> None:
    body = """
logger.log('c', 'of the parent')
child = os.fork()
logger.log('c', 'of the child' if child == 0 else 'after the fork')
flush_logging()
if child == 0:
    os._exit(0)
os.waitpid(child, 0)
"""
    done = run(body)
    for text in ("of the parent", "of the child", "after the fork"):
        assert done.stdout.count(text) == 1, done.stdout


def test_reader_that_went_away_does_not_affect_the_service() -> None:
    body = "import time\nfor n in range(2000): logger.log('c', 'x' * 1000, 'ERROR')\nsys.stderr.write('alive')"
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(body=body)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        told = process.stderr.read()
        process.wait(120)
    assert told.startswith("alive")
