"""With nothing but the core's wheel installed: a service starts, answers, handles a message and stops.

Run by `nox -s core_only` in an environment that holds the wheel and what it requires. Nothing of the repository is
imported, so what passes here passes on a user's machine.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from importlib.metadata import distributions
from pathlib import Path

FOREIGN = ("boto3", "botocore", "google.cloud", "google.auth", "azure", "totoms_aws", "totoms_gcp", "totoms_azure")
TEST_TOOLS = {"pytest", "hypothesis", "httpx", "moto", "nox", "ruff", "mypy"}
DEADLINE = 30.0

SERVICE = """
import asyncio, sys
from totoms import *

@toto_delegate
async def shout(request, user_context, exec_context):
    await exec_context.message_bus.publish_message(MessageDestination(topic="shouts"), TotoMessage(type="shouted"))
    return {"user": user_context.email, "foreign": [n for n in FOREIGN if n in sys.modules]}

class Heard(TotoMessageHandler):
    def get_handled_message_type(self):
        return "shouted"

    async def process_message(self, message):
        print("heard", flush=True)
        return ProcessingResponse(status=ProcessingStatus.SUCCESS)

async def main():
    microservice = await TotoMicroservice.init(TotoMicroserviceConfiguration(
        service_name="core-only",
        api_configuration=APIConfiguration(api_endpoints=[APIEndpoint("POST", "/shout", shout)]),
        message_bus_configuration=MessageBusConfig(
            topics=[MessageBusTopicConfig("shouts", "shouts-topic")],
            message_handlers=[MessageBusHandlerConfig(Heard)])))
    await microservice.start(port=int(sys.argv[1]))

asyncio.run(main())
"""


def run(*command: str, folder: str) -> str:
    """Run a command that must succeed and return what it printed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, timeout=DEADLINE)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout.strip()


def answer(request: urllib.request.Request) -> dict[str, object]:
    """Ask until the service is there, and return its answer."""
    deadline = time.monotonic() + DEADLINE
    while True:
        try:
            with urllib.request.urlopen(request, timeout=DEADLINE) as response:  # noqa: S310 - to this machine
                result: dict[str, object] = json.load(response)
                return result
        except ConnectionError as error:
            refused: OSError = error
        except urllib.error.URLError as error:
            if not isinstance(error.reason, ConnectionError):
                raise
            refused = error
        if time.monotonic() > deadline:
            sys.exit(f"The service did not start: {refused}")
        time.sleep(0.05)


def main() -> None:
    """Check, and exit with 1 and a line at the first thing that is wrong."""
    installed = {distribution.metadata["Name"].lower() for distribution in distributions()}
    if extra := installed & TEST_TOOLS:
        sys.exit(f"This environment holds more than the core needs: {', '.join(sorted(extra))}")
    with tempfile.TemporaryDirectory() as folder:
        loaded = run(sys.executable, "-c", "import sys, totoms; print(*sys.modules)", folder=folder).split()
        if foreign := [name for name in FOREIGN if name in loaded]:
            sys.exit(f"import totoms loads {', '.join(foreign)}")
        print("installed backends:", run(sys.executable, "-m", "totoms", "plugins", folder=folder).replace("\n", " | "))
        token = run(sys.executable, "-m", "totoms", "token", "--user", "me@example.com", folder=folder)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        (Path(folder) / "service.py").write_text(f"FOREIGN = {FOREIGN!r}\n{SERVICE}")
        service = subprocess.Popen(
            [sys.executable, "service.py", str(port)],
            cwd=folder,
            stdout=subprocess.PIPE,
            text=True,
            env={key: value for key, value in os.environ.items() if key != "HYPERSCALER"},
        )
        try:
            address = f"http://127.0.0.1:{port}"
            health = answer(urllib.request.Request(f"{address}/health"))  # noqa: S310
            if health.get("apiName") != "core-only":
                sys.exit(f"/health answered {health}")
            said = answer(
                urllib.request.Request(  # noqa: S310
                    f"{address}/shout", data=b"{}", headers={"Authorization": f"Bearer {token}"}, method="POST"
                )
            )
            if said != {"user": "me@example.com", "foreign": []}:
                sys.exit(f"/shout answered {said}")
            assert service.stdout is not None
            if not any(line.strip() == "heard" for line in service.stdout):
                sys.exit("The message was not handled.")
            service.send_signal(signal.SIGTERM)
            if status := service.wait(DEADLINE):
                sys.exit(f"After SIGTERM the service ended with status {status}.")
        finally:
            service.kill()
    print("The core alone starts, answers, handles a message and stops.")


if __name__ == "__main__":
    main()
