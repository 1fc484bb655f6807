"""What `import totoms` and the start of a service cost, compared with FastAPI's.

``python benchmarks/imports.py`` starts many interpreters in turn and prints medians and ratios.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
KEY = "a signing key for benchmarks only, long enough"

IMPORTS = {
    "fastapi": "import fastapi",
    "totoms": "import totoms.service",
    "FastAPI and boto3": "import fastapi, boto3",
    "totoms with AWS": "import totoms.service, totoms_aws.messages.bus, totoms_aws.storage.storage, totoms_aws.secrets",
    "FastAPI and Google's": (
        "import fastapi, google.cloud.storage, google.cloud.secretmanager_v1, google.pubsub_v1.services.publisher, "
        "google.pubsub_v1.services.subscriber"
    ),
    "totoms with Google Cloud": (
        "import totoms.service, totoms_gcp.messages.bus, totoms_gcp.storage.storage, totoms_gcp.secrets"
    ),
    "FastAPI and Azure's": (
        "import fastapi, azure.servicebus.aio, azure.storage.blob, azure.keyvault.secrets, azure.identity"
    ),
    "totoms with Azure": (
        "import totoms.service, totoms_azure.messages.bus, totoms_azure.storage.storage, totoms_azure.secrets"
    ),
}
PAIRS = (
    ("totoms with AWS", "FastAPI and boto3"),
    ("totoms with Google Cloud", "FastAPI and Google's"),
    ("totoms with Azure", "FastAPI and Azure's"),
)

COMMANDS = {
    "--help": ("--help",),
    "token": ("token", "--user", "me@example.com"),
    "dlq list": ("dlq", "list", "blog-posts"),
    "dlq subscriptions": ("dlq", "subscriptions"),
    "dlq --help": ("dlq", "--help"),
}
"""What an operator waits for, on the local backend: with an empty store, so that all of it is our own time."""

SERVICES = {
    "FastAPI on uvicorn": """
import sys, uvicorn
from fastapi import FastAPI
app = FastAPI()
@app.get("/item")
async def item():
    return {"a": 1}
uvicorn.run(app, port=int(sys.argv[1]), access_log=False, log_level="warning")
""",
    "totoms": """
import asyncio, sys
from fastapi import Request
from totoms import *
@toto_delegate
async def item(request: Request, user_context: UserContext, exec_context: ExecutionContext):
    return {"a": 1}
async def main():
    configuration = TotoMicroserviceConfiguration(
        service_name="bench",
        api_configuration=APIConfiguration(api_endpoints=[APIEndpoint("GET", "/item", item)]),
    )
    await (await TotoMicroservice.init(configuration)).start(int(sys.argv[1]))
asyncio.run(main())
""",
}


def written_bytecode() -> dict[str, str]:
    """Return the environment, in which Python may keep compiled modules: else each start would compile ours anew."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def time_import(code: str) -> float:
    """Return the seconds that `code` takes in a new interpreter, without starting and ending that."""
    program = f"import time\nbegun = time.perf_counter()\n{code}\nprint(time.perf_counter() - begun)"
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, env=written_bytecode()
    )
    return float(done.stdout)


def time_command(arguments: tuple[str, ...], root: str) -> float:
    """Return the processor's seconds that ``python -m totoms`` takes, with starting and ending the interpreter."""
    variables = {**written_bytecode(), "TOTOMS_LOCAL_ROOT": root, "HYPERSCALER": "local"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "totoms", *arguments], check=False, capture_output=True, env=variables)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def time_first_answer(code: str, token: str, root: str) -> float:
    """Return the seconds from the start of a process to the first answer of the service in it."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    variables = {**written_bytecode(), "JWT_SIGNING_KEY": KEY, "TOTOMS_LOCAL_ROOT": root, "HYPERSCALER": "local"}
    request = (
        f"GET /item HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n".encode()
    )
    begun = time.perf_counter()
    with subprocess.Popen([sys.executable, "-c", code, str(port)], env=variables, stdout=subprocess.DEVNULL) as process:
        try:
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as caller:
                    caller.sendall(request)
                    answer = caller.recv(4096)
                    if answer:
                        break
                if process.poll() is not None or time.perf_counter() - begun > 60:
                    raise SystemExit("the service did not start")
                time.sleep(0.001)
            taken = time.perf_counter() - begun
        finally:
            process.kill()
    if b" 200 " not in answer:
        raise SystemExit(answer.decode())
    return taken


def measure(rounds: int) -> dict[str, float]:
    """Return medians in seconds: of the imports, and of the first answers."""
    import jwt

    token = jwt.encode({"user": "me", "authProvider": "toto", "exp": int(time.time()) + 3600}, KEY, algorithm="HS256")
    imports: dict[str, list[float]] = {name: [] for name in IMPORTS}
    starts: dict[str, list[float]] = {name: [] for name in SERVICES}
    commands: dict[str, list[float]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory() as root:
        for number in range(rounds + 1):
            for name, code in IMPORTS.items():
                taken = time_import(code)
                if number:  # the first round warms the file cache and writes the bytecode
                    imports[name].append(taken)
            for name, arguments in COMMANDS.items():
                taken = time_command(arguments, root)
                if number:
                    commands[name].append(taken)
            for name, code in SERVICES.items():
                taken = time_first_answer(code, token, root)
                if number:
                    starts[name].append(taken)
    found = {f"import {name}": statistics.median(times) for name, times in imports.items()}
    found |= {f"command {name}": statistics.median(times) for name, times in commands.items()}
    found |= {f"start {name}": statistics.median(times) for name, times in starts.items()}
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    found = measure(parser.parse_args().rounds)
    for name, seconds in found.items():
        print(f"{name:28}{seconds * 1000:8.0f} ms")
    imported = found["import totoms"] / found["import fastapi"]
    answered = found["start totoms"] / found["start FastAPI on uvicorn"]
    print(f"GOAL {imported:.2f} <= 1.15 import totoms, of import fastapi")
    for ours, bare in PAIRS:
        ratio = found[f"import {ours}"] / found[f"import {bare}"]
        print(f"GOAL {ratio:.2f} <= 1.15 import {ours}, of {bare} clients")
    slowest = max(found[f"command {name}"] for name in COMMANDS)
    print(f"GOAL {slowest:.2f} <= 1 seconds of the processor for a command about dead letters")
    print(f"GOAL {answered:.2f} <= 1.2 cold start to the first answer, of plain FastAPI on uvicorn")


if __name__ == "__main__":
    main()
