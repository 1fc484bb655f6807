"""Memory of a service: idle, and over 100,000 requests and 100,000 messages. ``python -m benchmarks.memory``.

The service is a process of its own; its resident set is read from /proc, so this runs on Linux only. Flat means: what
it holds after the second half is not more than after the first half, except for what the allocator shifts.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
from pathlib import Path

REQUESTS = MESSAGES = 100_000
CONNECTIONS = 16
PUBLISHERS = 64
IDLE_GOAL_MIB = 80
GROWTH_GOAL_MIB = 8


def resident_mib(pid: int) -> float:
    """Return the resident set of a process in MiB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


async def serve() -> None:
    """The service that is measured: one delegate, one handler; `POST /publish?count=` publishes to itself."""
    from fastapi import Request

    from totoms import (
        APIConfiguration,
        APIEndpoint,
        ExecutionContext,
        MessageBusConfig,
        MessageBusHandlerConfig,
        MessageBusTopicConfig,
        MessageDestination,
        ProcessingResponse,
        ProcessingStatus,
        TotoMessage,
        TotoMessageHandler,
        TotoMicroservice,
        TotoMicroserviceConfiguration,
        UserContext,
        toto_delegate,
    )

    handled = 0
    progress = asyncio.Condition()

    @toto_delegate
    async def echo(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> dict[str, object]:
        return {"user": user_context.email, "body": await request.json()}

    @toto_delegate
    async def publish(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> dict[str, int]:
        """Publish `count` messages from many tasks, and answer when all were handled."""
        bus = exec_context.message_bus
        assert bus is not None
        wanted = int(request.query_params["count"])
        numbers = iter(range(wanted))
        goal = handled + wanted

        async def publisher() -> None:
            for number in numbers:
                message = TotoMessage(type="measured", data={"number": number, "filling": "x" * 900})
                await bus.publish_message(MessageDestination(topic="measure"), message)

        await asyncio.gather(*(publisher() for _ in range(PUBLISHERS)))
        async with progress:
            await progress.wait_for(lambda: handled >= goal)
        return {"handled": handled}

    class Measured(TotoMessageHandler):
        def get_handled_message_type(self) -> str:
            return "measured"

        async def process_message(self, message: TotoMessage) -> ProcessingResponse:
            nonlocal handled
            handled += 1
            if handled % 1000 == 0:
                async with progress:
                    progress.notify_all()
            return ProcessingResponse(ProcessingStatus.SUCCESS)

    microservice = await TotoMicroservice.init(
        TotoMicroserviceConfiguration(
            service_name="measured",
            api_configuration=APIConfiguration(
                api_endpoints=[APIEndpoint("POST", "/echo", echo), APIEndpoint("POST", "/publish", publish)]
            ),
            message_bus_configuration=MessageBusConfig(
                topics=[MessageBusTopicConfig("measure", "measure-topic")],
                message_handlers=[MessageBusHandlerConfig(Measured)],
            ),
        )
    )
    await microservice.start(port=0)


async def request(port: int, token: str, count: int, path: str, body: bytes) -> None:
    """Send the same request `count` times on one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\n"
    wire = f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    try:
        for _ in range(count):
            writer.write(wire)
            answer = await reader.readuntil(b"\r\n\r\n")
            status, _, fields = answer.partition(b"\r\n")
            if b" 200 " not in status:
                raise RuntimeError(f"{path}: {status.decode()}")
            length = next(line for line in fields.lower().splitlines() if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.split(b":")[1]))
    finally:
        writer.close()


async def requests(port: int, token: str, count: int) -> None:
    """Send `count` requests over several connections."""
    body = b'{"filling": "' + b"x" * 1000 + b'"}'
    each = count // CONNECTIONS
    await asyncio.gather(*(request(port, token, each, "/echo", body) for _ in range(CONNECTIONS)))


async def measure() -> None:
    """Start the service, load it, and print what it holds at each step."""
    from totoms.auth.tokens import make_token

    key = os.urandom(24).hex()
    token = make_token(key, "bench@example.com", 3600)
    with tempfile.TemporaryDirectory() as root:
        variables = {**os.environ, "TOTOMS_LOCAL_ROOT": root, "JWT_SIGNING_KEY": key, "HYPERSCALER": "local"}
        service = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "benchmarks.memory", "serve", env=variables, stdout=asyncio.subprocess.PIPE
        )
        assert service.stdout is not None
        try:
            port = 0
            while not port:
                line = await service.stdout.readline()
                if not line:
                    raise RuntimeError("the service did not start")
                if b"Listening on http://" in line:
                    port = int(line.split(b"Listening on http://")[1].split(b":")[1].split(b'"')[0])
            drain = asyncio.create_task(service.stdout.read())  # its log lines
            await asyncio.sleep(1)
            idle = report("idle", service.pid)
            await requests(port, token, REQUESTS // 2)
            first = report(f"after {REQUESTS // 2:,} requests", service.pid)
            await requests(port, token, REQUESTS // 2)
            second = report(f"after {REQUESTS:,} requests", service.pid)
            await request(port, token, 1, f"/publish?count={MESSAGES // 2}", b"{}")
            third = report(f"and {MESSAGES // 2:,} messages", service.pid)
            await request(port, token, 1, f"/publish?count={MESSAGES // 2}", b"{}")
            fourth = report(f"and {MESSAGES:,} messages", service.pid)
            service.send_signal(signal.SIGTERM)
            await service.wait()
            await drain
        finally:
            if service.returncode is None:
                service.kill()
    print(f"GOAL {idle:.2f} <= {IDLE_GOAL_MIB} an idle service, MiB")
    for what, count, growth in (("requests", REQUESTS, second - first), ("messages", MESSAGES, fourth - third)):
        print(f"GOAL {max(growth, 0):.2f} <= {GROWTH_GOAL_MIB} growth over the second half of {count:,} {what}, MiB")


def report(when: str, pid: int) -> float:
    """Print and return what the service holds now."""
    mib = resident_mib(pid)
    print(f"{when:<28} {mib:7.1f} MiB", flush=True)
    return mib


if __name__ == "__main__":
    asyncio.run(serve() if sys.argv[1:] == ["serve"] else measure())
