"""The states of a connection: what is counted, which deadline holds, and what ends it. Time passes by command."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from typing import Any

import pytest

from support.clocks import Caller, Line, settle
from totoms import ConfigurationError, ServerConfiguration
from totoms.http.server.channel import unacknowledged
from totoms.http.server.states import RULES, State

GET = b"GET / HTTP/1.1\r\nhost: test\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nhost: test\r\n"
OK = [
    {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]},
    {"type": "http.response.body", "body": b"ok"},
]


class App:
    """Answers when the test says so."""

    def __init__(self, *, reads: bool = True) -> None:
        self.reads = reads
        self.go = asyncio.Event()
        self.received: list[Any] = []
        self.begun = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.begun += 1
        while self.reads:
            message = await receive()
            self.received.append(message)
            if message["type"] == "http.disconnect" or not message["more_body"]:
                break
        await self.go.wait()
        for message in OK:
            await send(message)

    @property
    def disconnected(self) -> bool:
        return bool(self.received) and self.received[-1]["type"] == "http.disconnect"


async def answered(app: App, caller: Caller) -> None:
    app.go.set()
    await settle()
    assert caller.transport.written.endswith(b"\r\n\r\nok")


def test_the_table_has_a_row_for_each_state() -> None:
    assert list(RULES) == list(State)
    fields = set(ServerConfiguration.model_fields)
    for rule in RULES.values():
        assert rule.deadline is None or rule.deadline in fields
        assert rule.rate is None or rule.rate in fields
        assert (rule.deadline is None) == (rule.ending is None)
        assert rule.awaits_client == (rule.deadline is not None), "a deadline runs only while waiting"


# --- heads ---


@pytest.mark.parametrize("start", [b"", b"\r\n", b"GET / HTTP/1.1\r\n"])
async def test_head_has_one_deadline_that_bytes_do_not_move(start: bytes) -> None:
    caller = Line(App()).connect()
    await caller.send(start)
    for _ in range(9):
        await caller.clock.pass_(1)
        await caller.send(b"a: b\r\n" if start.endswith(b"1.1\r\n") else b"\r\n")
    assert caller.state is State.HEAD
    assert not caller.gone
    await caller.clock.pass_(1.01)
    assert caller.transport.written.startswith(b"HTTP/1.1 408 ")
    assert caller.gone


async def test_idle_connection_is_closed_without_a_word() -> None:
    app = App()
    caller = Line(app).connect()
    await caller.send(GET)
    await answered(app, caller)
    assert caller.state is State.IDLE
    await caller.clock.pass_(74)
    await caller.send(GET)
    assert app.begun == 2
    written = caller.transport.written
    await caller.clock.pass_(74.9)
    assert not caller.gone
    await caller.clock.pass_(0.2)
    assert caller.gone
    assert caller.transport.written == written


async def test_next_head_has_its_own_deadline_from_its_first_byte() -> None:
    app = App()
    app.go.set()
    caller = Line(app).connect()
    await caller.send(GET)
    await caller.clock.pass_(70)
    await caller.send(b"GET")
    assert caller.state is State.HEAD
    await caller.clock.pass_(9.9)
    assert not caller.gone
    await caller.clock.pass_(0.2)
    assert b"HTTP/1.1 408 " in caller.transport.written


# --- work ---


async def test_application_at_work_has_no_deadline() -> None:
    app = App()
    caller = Line(app).connect()
    await caller.send(GET)
    await caller.clock.pass_(86_400)
    assert caller.state is State.WORK
    await answered(app, caller)


async def test_body_that_we_paused_is_not_reset() -> None:
    app = App(reads=False)
    caller = Line(app).connect()
    await caller.send(POST + b"content-length: 90000\r\n\r\n" + b"x" * 70_000)
    assert not caller.transport.reading
    await caller.clock.pass_(3600)
    assert caller.state is State.WORK
    assert not caller.gone


async def test_body_that_is_read_after_a_minute_arrives_whole() -> None:
    read = asyncio.Event()
    taken: list[bytes] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await read.wait()
        more = True
        while more:
            message = await receive()
            taken.append(message["body"])
            more = message["more_body"]
        for message in OK:
            await send(message)

    caller = Line(app).connect()
    await caller.send(POST + b"content-length: 90000\r\n\r\n" + b"x" * 70_000)
    await caller.clock.pass_(61)
    read.set()
    await settle()
    assert caller.transport.reading
    assert caller.state is State.BODY
    await caller.clock.pass_(59)
    await caller.send(b"x" * 20_000)
    assert sum(map(len, taken)) == 90_000
    assert caller.transport.written.endswith(b"ok")
    assert caller.state is State.IDLE


# --- bodies ---


async def test_body_that_stops_is_dropped_and_the_application_is_informed() -> None:
    app = App()
    caller = Line(app).connect()
    await caller.send(POST + b"content-length: 10\r\n\r\n{")
    assert caller.state is State.BODY
    await caller.clock.pass_(59.9)
    assert not caller.gone
    await caller.clock.pass_(0.2)
    assert caller.gone
    assert app.disconnected
    assert caller.transport.written == b""


async def test_byte_now_and_then_does_not_keep_a_body_alive() -> None:
    app = App()
    caller = Line(app).connect()
    await caller.send(POST + b"content-length: 100000\r\n\r\n")
    for _ in range(2):
        await caller.clock.pass_(29)
        await caller.send(b"x")
    await caller.clock.pass_(3)
    assert caller.gone
    assert app.disconnected


async def test_slow_but_steady_body_is_taken() -> None:
    app = App()
    caller = Line(app).connect()
    await caller.send(POST + b"content-length: 100000\r\n\r\n")
    for _ in range(100):
        await caller.clock.pass_(2)
        await caller.send(b"x" * 1000)
    assert not app.disconnected
    await answered(app, caller)


async def test_rate_of_zero_limits_each_pause_only() -> None:
    app = App()
    caller = Line(app, min_body_rate=0).connect()
    await caller.send(POST + b"content-length: 100000\r\n\r\n")
    for _ in range(100):
        await caller.clock.pass_(59)
        await caller.send(b"x")
    assert not caller.gone
    await caller.clock.pass_(61)
    assert caller.gone


# --- answers that are not taken ---


@pytest.mark.parametrize("trickle", [0, 1, 1000])
async def test_slow_reader_is_ended(trickle: int) -> None:
    app = App()
    caller = Line(app).connect()
    await caller.send(GET)
    app.go.set()
    await caller.refuse_to_take(10_000_000)
    assert caller.state is State.BLOCKED
    for _ in range(65):
        await caller.clock.pass_(1)
        if caller.gone:
            break
        await caller.take(caller.transport.untaken - trickle)
    else:
        assert trickle == 1000, "it took as much as the rate wants, less than it"
        await caller.clock.pass_(60)
    assert caller.transport.aborted


async def test_reader_that_goes_on_is_served() -> None:
    app = App()
    caller = Line(app).connect()
    await caller.send(GET)
    app.go.set()
    await caller.refuse_to_take(1_000_000)
    for _ in range(190):
        await caller.clock.pass_(1)
        await caller.take(caller.transport.untaken - 5000)
    assert not caller.gone
    await caller.take(0)
    assert caller.state is State.IDLE


async def test_reader_of_a_long_stream_has_its_time_back_whenever_it_took_enough() -> None:
    caller = await reading_a_stream(pieces=200, size=50_000)
    for _ in range(200):
        assert caller.state is State.BLOCKED
        await caller.clock.pass_(5)
        await caller.take(0)
    assert not caller.gone
    assert caller.state is State.IDLE


async def test_reader_that_takes_too_little_of_each_piece_is_ended() -> None:
    caller = await reading_a_stream(pieces=200, size=1_000)
    for _ in range(20):
        await caller.clock.pass_(5)
        await caller.take(0)
    assert caller.transport.aborted


async def test_what_is_written_after_the_first_wait_was_taken_as_well() -> None:
    app = App()
    caller = Line(app).connect()
    await caller.send(GET)
    app.go.set()
    await caller.refuse_to_take(60_000)
    caller.protocol._outbox.write(b"x" * 1_000_000)  # the rest of what the application sent in one turn
    caller.transport.untaken = 1_060_000
    await caller.clock.pass_(59)
    await caller.take(500_000)
    await caller.clock.pass_(50)
    assert not caller.gone


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_what_the_system_still_holds_is_not_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.connect(listener.getsockname())
        writer, _ = listener.accept()
        with writer:
            writer.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    writer.send(b"x" * 65536)
            held = unacknowledged(writer)
            assert held > 0
            reader.settimeout(120)
            while unacknowledged(writer) > held - 1000:
                assert reader.recv(1000)
        assert unacknowledged(writer) == 0


async def test_task_that_is_cancelled_does_not_wait_for_a_slow_reader() -> None:
    line = Line(App(reads=False))
    caller = line.connect()
    await caller.send(GET)
    await caller.refuse_to_take()
    (task,) = line.state.tasks
    task.cancel()
    await settle()
    assert task.done()
    assert caller.gone


async def reading_a_stream(*, pieces: int, size: int) -> Caller:
    """Return a caller that takes each piece only when the test says so."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(pieces):
            caller.transport.untaken += size
            await send({"type": "http.response.body", "body": b"x" * size, "more_body": True})
            caller.protocol._outbox.flush()
            caller.protocol.pause_writing()
        await send({"type": "http.response.body"})

    caller = Line(app).connect()
    await caller.send(GET)
    return caller


async def test_pipelined_request_waits_until_the_answer_before_it_was_taken() -> None:
    app = App()
    app.go.set()
    caller = Line(app).connect()
    caller.protocol.pause_writing()
    await caller.send(GET * 3)
    assert app.begun == 1
    await caller.take(0)
    assert app.begun == 3


async def test_request_that_begins_while_an_answer_is_not_taken_has_the_deadline_of_slow_readers() -> None:
    app = App()
    app.go.set()
    caller = Line(app).connect()
    caller.transport.untaken = 50_000
    await caller.send(GET)
    assert caller.state is State.IDLE
    caller.protocol.pause_writing()  # what was written at the end of the turn is more than the caller takes
    await caller.send(GET)
    assert caller.state is State.BLOCKED
    await caller.clock.pass_(60.1)
    assert caller.transport.aborted


async def test_closed_connection_whose_rest_is_not_taken_is_reset() -> None:
    app = App()
    app.go.set()
    caller = Line(app).connect()
    caller.transport.untaken = 50_000
    await caller.send(b"GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n")
    assert caller.state is State.CLOSING
    assert not caller.transport.aborted
    await caller.clock.pass_(60.1)
    assert caller.transport.aborted


# --- after the answer ---


async def test_rest_of_a_sized_body_is_discarded_and_the_connection_kept() -> None:
    app = App(reads=False)
    app.go.set()
    caller = Line(app).connect()
    await caller.send(POST + b"content-length: 100000\r\n\r\n")
    assert caller.state is State.DISCARD
    assert not caller.transport.ended
    await caller.send(b"x" * 60_000)
    await caller.send(b"x" * 40_000 + GET)
    assert app.begun == 2
    assert caller.state is State.IDLE


@pytest.mark.parametrize("length", [b"content-length: 100000", b"transfer-encoding: chunked"])
async def test_discarding_has_one_deadline(length: bytes) -> None:
    app = App(reads=False)
    app.go.set()
    caller = Line(app).connect()
    await caller.send(POST + length + b"\r\n\r\n")
    for _ in range(9):
        await caller.clock.pass_(1)
        await caller.send(b"1")
    assert caller.state is State.DISCARD
    assert not caller.gone
    await caller.clock.pass_(1.1)
    assert caller.gone


@pytest.mark.parametrize(
    ("length", "most"), [(b"content-length: 1000000000", 100_000), (b"transfer-encoding: chunked", 2**20)]
)
async def test_discarding_has_a_limit_in_bytes(length: bytes, most: int) -> None:
    app = App(reads=False)
    app.go.set()
    caller = Line(app).connect()
    await caller.send(POST + length + b"\r\n\r\n")
    assert b"connection: close" in caller.transport.written
    assert caller.transport.ended, "the caller sees the end of its answer at once"
    sent = 0
    while caller.transport.reading:
        await caller.send(b"x" * 10_000)
        sent += 10_000
    assert most < sent <= most + 10_000
    await caller.clock.pass_(2.1)
    assert caller.gone


async def test_only_so_many_connections_discard_at_a_time() -> None:
    app = App(reads=False)
    app.go.set()
    line = Line(app, max_discarding=3)
    callers = [line.connect() for _ in range(5)]
    for caller in callers:
        await caller.send(POST + b"content-length: 10\r\n\r\n")
    assert [caller.gone for caller in callers] == [True, True, False, False, False]
    await callers[2].send(b"x" * 10)
    assert callers[2].state is State.IDLE


# --- 100-continue ---


async def test_continue_is_sent_when_the_application_reads() -> None:
    app = App()
    caller = Line(app).connect()
    await caller.send(POST + b"content-length: 2\r\nexpect: 100-continue\r\n\r\n")
    assert caller.transport.written == b"HTTP/1.1 100 Continue\r\n\r\n"
    await caller.send(b"{}")
    await answered(app, caller)


async def test_final_answer_without_reading_comes_without_a_continue() -> None:
    app = App(reads=False)
    app.go.set()
    caller = Line(app).connect()
    await caller.send(POST + b"content-length: 2\r\nexpect: 100-continue\r\n\r\n")
    assert caller.transport.written.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close" in caller.transport.written


async def test_body_that_comes_by_itself_needs_no_continue() -> None:
    app = App()
    caller = Line(app).connect()
    await caller.send(POST + b"content-length: 2\r\nexpect: 100-continue\r\n\r\n{}")
    await answered(app, caller)
    assert b"100 Continue" not in caller.transport.written


# --- making room ---


async def test_those_that_wait_longest_for_their_caller_make_room() -> None:
    app = App()
    line = Line(app, max_connections=3)
    worker, slow = line.connect(), line.connect()
    await worker.send(GET)
    await line.clock.pass_(1)
    await slow.send(b"GET / HTTP/1.1\r\n")
    idle = line.connect()
    await line.clock.pass_(1)
    newcomer = line.connect()
    await settle()
    assert slow.gone
    assert not worker.gone
    await newcomer.send(GET)
    line.connect()
    await settle()
    assert idle.gone
    assert len(line.state.connections) == 3


async def test_newcomer_is_refused_when_all_are_at_work() -> None:
    line = Line(App(), max_connections=2)
    for _ in range(2):
        await line.connect().send(GET)
    caller = line.connect()
    await settle()
    assert caller.transport.written.startswith(b"HTTP/1.1 503 ")


# --- the end ---


async def test_shutdown_closes_what_waits_and_lets_what_runs_finish() -> None:
    app = App()
    line = Line(app)
    fresh, worker, idle = (line.connect() for _ in range(3))
    app.go.set()
    await idle.send(GET)
    app.go.clear()
    await worker.send(GET)
    for caller in (fresh, worker, idle):
        caller.protocol.shutdown()
    await settle()
    assert (fresh.gone, worker.gone, idle.gone) == (True, False, True)
    await answered(app, worker)
    assert b"connection: close" in worker.transport.written
    assert worker.gone
    assert not line.state.connections
    assert line.state.total_requests == 2


async def test_while_winding_down_each_answer_announces_the_end() -> None:
    app = App()
    line = Line(app)
    line.kind.shared.winding_down = True
    caller = line.connect()
    await caller.send(GET)
    await answered(app, caller)
    assert b"connection: close" in caller.transport.written
    assert caller.gone


async def test_caller_that_leaves_is_reported_to_the_application() -> None:
    app = App()
    caller = Line(app).connect()
    await caller.send(POST + b"content-length: 10\r\n\r\n{")
    caller.transport.lose()
    await settle()
    assert app.disconnected
    app.go.set()
    await settle()
    assert caller.transport.written == b""
    assert caller.state is State.CLOSED


@pytest.mark.parametrize("field", ["keep_alive", "header_timeout", "max_header_bytes", "max_discarding"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "soon"])
def test_limit_that_makes_no_sense_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"ServerConfiguration.{field}"):
        ServerConfiguration(**{field: value})
