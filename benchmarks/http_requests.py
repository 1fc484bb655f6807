"""How many requests a second a delegate answers, compared with plain FastAPI, the same by hand, and totoms 1.5.0.

``python benchmarks/http_requests.py`` starts each service in a process of its own and loads them in turn, round after
round, so that what else the machine does meets all alike; it prints medians, and ratios to plain FastAPI. Load comes
from ``wrk`` where it is installed, else from a small client of our own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HERE = Path(__file__).resolve().parent
CID = "0123456789abcdef0123456789abcdef"  # totoms 1.5.0 insists on one from the caller; so all get it
KEY = "a signing key for benchmarks only, long enough"
PATHS = {"GET": "/bench/item", "POST": "/bench/echo"}
BODY = json.dumps({"data": "x" * 1000})
MANY = 40_000  # more different tokens than are remembered
LABELS = {
    "plain": "FastAPI, plain",
    "typed": "FastAPI, typed",
    "by_hand": "FastAPI, the same by hand",
    "totoms1": "totoms 1.5.0",
    "totoms": "totoms, token remembered",
    "totoms new": "totoms, a new token each time",
}
WRK = """
local tokens = {{}}
for line in io.lines("{tokens}") do tokens[#tokens + 1] = "Bearer " .. line end
local n = 0
wrk.headers["Content-Type"] = "application/json"
wrk.headers["X-Correlation-Id"] = "{cid}"
request = function()
  n = n % #tokens + 1
  wrk.headers["Authorization"] = tokens[n]
  return wrk.format("{method}", nil, wrk.headers, {body})
end
"""


class FakeSecrets(BaseHTTPRequestHandler):
    """Stands in for AWS Secrets Manager, where totoms 1.5.0 looks for its secrets."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))["SecretId"]
        value = KEY if asked.endswith("/jwt-signing-key") else "none"
        body = json.dumps({"Name": asked, "SecretString": value}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/x-amz-json-1.1")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def fake_secrets() -> Iterator[str]:
    """Run the stand-in; gives its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), FakeSecrets)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


def python_with_totoms1(folder: Path) -> str | None:
    """Return the interpreter of an environment with totoms 1.5.0, made on first use; None where it cannot be."""
    python = folder / "bin" / "python"
    if not python.exists():
        try:
            subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
            needed = ["totoms==1.5.0", "uvloop", "httptools"]
            subprocess.run([str(python), "-m", "pip", "install", "--quiet", *needed], check=True)
        except subprocess.CalledProcessError:
            shutil.rmtree(folder, ignore_errors=True)
            return None
    return str(python)


def write_tokens(folder: Path) -> dict[str, Path]:
    """Write a file with one token, and one with many."""
    import jwt

    files = {"one": folder / "one", "many": folder / "many"}
    expires = int(time.time()) + 3600
    for name, count in (("one", 1), ("many", MANY)):
        claims = ({"user": f"u{n}@example.com", "authProvider": "toto", "exp": expires} for n in range(count))
        files[name].write_text("\n".join(jwt.encode(claim, KEY, algorithm="HS256") for claim in claims) + "\n")
    return files


def environment(secrets: str, root: Path) -> dict[str, str]:
    """Return the variables for the services."""
    return {
        **os.environ,
        "AWS_ENDPOINT_URL": secrets,
        "AWS_ACCESS_KEY_ID": "none",
        "AWS_SECRET_ACCESS_KEY": "none",
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1",
        "JWT_SIGNING_KEY": KEY,
        "TOTOMS_LOCAL_ROOT": str(root / "local"),
    }


@contextlib.contextmanager
def service(python: str, variant: str, variables: dict[str, str]) -> Iterator[int]:
    """Run a service; gives its port. Its log goes where a collector would be."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with (
        Path(os.devnull).open("w") as nowhere,
        subprocess.Popen(
            [python, str(HERE / "http_services.py"), variant, str(port)], env=variables, stdout=nowhere, cwd=HERE.parent
        ) as process,
    ):
        try:
            deadline = time.monotonic() + 60
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"{variant} did not start")
                time.sleep(0.05)
            yield port
        finally:
            process.terminate()


def load(port: int, method: str, tokens: Path, seconds: float, folder: Path) -> float:
    """Return requests per second with 32 connections."""
    if shutil.which("wrk") is None:
        return asyncio.run(_load_ourselves(port, method, tokens.read_text().split(), seconds))
    script = folder / f"{method}-{tokens.name}.lua"
    script.write_text(
        WRK.format(tokens=tokens, method=method, cid=CID, body=f"'{BODY}'" if method == "POST" else "nil")
    )
    command = ["wrk", "-t1", "-c32", f"-d{seconds:g}s", "-s", str(script), f"http://127.0.0.1:{port}{PATHS[method]}"]
    run = subprocess.run(command, check=False, capture_output=True, text=True)
    output = run.stdout
    if run.returncode or "Non-2xx" in output or "Socket errors" in output:
        raise SystemExit(f"wrk ended with {run.returncode}: {output}{run.stderr}")
    found = re.search(r"Requests/sec:\s+([\d.]+)", output)
    assert found, output
    return float(found[1])


async def _load_ourselves(port: int, method: str, known: list[str], seconds: float) -> float:
    body = BODY if method == "POST" else ""
    done = 0
    until = time.monotonic() + seconds

    async def connection(number: int) -> None:
        nonlocal done
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        at = number * 1000
        while time.monotonic() < until:
            at += 1
            head = f"{method} {PATHS[method]} HTTP/1.1\r\nhost: 127.0.0.1\r\nx-correlation-id: {CID}\r\n"
            head += f"authorization: Bearer {known[at % len(known)]}\r\n"
            writer.write(f"{head}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode())
            answer = (await reader.readuntil(b"\r\n\r\n")).lower()
            if b" 200 " not in answer.split(b"\r\n", 1)[0]:
                raise SystemExit(answer.decode())
            await reader.readexactly(int(answer.split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0]))
            done += 1
        writer.close()

    await asyncio.gather(*(connection(number) for number in range(32)))
    return done / seconds


def app_alone(python: str, variant: str, variables: dict[str, str], tokens: Path) -> dict[str, float]:
    """Return microseconds per request of the app without sockets."""
    command = [python, str(HERE / "http_services.py"), variant, "app"]
    with Path(os.devnull).open("w") as nowhere:
        process = subprocess.run(
            command,
            env={**variables, "BENCH_TOKENS": str(tokens)},
            stdout=nowhere,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            cwd=HERE.parent,
        )
    if process.returncode:
        raise SystemExit(process.stderr)
    found: dict[str, float] = json.loads(process.stderr.strip().splitlines()[-1])
    return found


def measure(seconds: float, rounds: int, totoms1: str | None) -> dict[str, dict[str, float]]:
    """Return, for each variant, requests per second (``GET``, ``POST``) and µs of the app alone (``app GET`` ...)."""
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as temporary, fake_secrets() as secrets, contextlib.ExitStack() as stack:
        folder = Path(temporary)
        tokens = write_tokens(folder)
        variables = environment(secrets, folder)
        pythons = dict.fromkeys(("plain", "typed", "by_hand", "totoms"), sys.executable)
        if totoms1 is not None:
            pythons["totoms1"] = totoms1
        variants = [name for name in LABELS if name.removesuffix(" new") in pythons]
        for name in variants:
            bare = name.removesuffix(" new")
            alone = app_alone(pythons[bare], bare, variables, tokens["many" if name != bare else "one"])
            found[name] = {f"app {method}": time_ for method, time_ in alone.items()}
        ports = {name: stack.enter_context(service(python, name, variables)) for name, python in pythons.items()}
        samples: dict[tuple[str, str], list[float]] = {}
        for _ in range(rounds):
            for method in PATHS:
                for name in variants:
                    bare = name.removesuffix(" new")
                    rate = load(ports[bare], method, tokens["many" if name != bare else "one"], seconds, folder)
                    samples.setdefault((name, method), []).append(rate)
        for (name, method), rates in samples.items():
            found[name][method] = statistics.median(rates)
    return found


def print_table(found: dict[str, dict[str, float]]) -> None:
    """Print what was measured, with ratios to plain FastAPI."""
    print(f"{'':32}{'GET/s':>9}{'ratio':>7}{'POST/s':>9}{'ratio':>7}{'app GET':>10}{'app POST':>10}")
    base = found["plain"]
    for name, row in found.items():
        ratios = {method: row[method] / base[method] for method in PATHS}
        print(
            f"{LABELS[name]:32}{row['GET']:9.0f}{ratios['GET']:7.2f}{row['POST']:9.0f}{ratios['POST']:7.2f}"
            f"{row['app GET']:7.1f} µs{row['app POST']:7.1f} µs"
        )


GOALS = [
    ("totoms", "plain", "GET", 2.0),
    ("totoms", "plain", "POST", 2.6),
    ("totoms", "by_hand", "GET", 4),
    ("totoms", "by_hand", "POST", 4),
    ("totoms", "totoms1", "GET", 4),
    ("totoms", "totoms1", "POST", 4),
    ("totoms new", "plain", "GET", 1),
    ("totoms new", "plain", "POST", 1),
]


def print_goals(found: dict[str, dict[str, float]]) -> None:
    """Print a line for each goal, as `run.py` reads them."""
    for name, other, method, goal in GOALS:
        if other in found:
            ratio = found[name][method] / found[other][method]
            print(f"GOAL {ratio:.2f} >= {goal} {method}, {LABELS[name]}, of {LABELS[other]}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=1, help="of load for each figure and round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--totoms1", help="a Python with totoms 1.5.0; by default one is made under .nox")
    options = parser.parse_args()
    totoms1 = options.totoms1 or python_with_totoms1(HERE.parent / ".nox" / "bench-totoms1")
    if totoms1 is None:
        print("totoms 1.5.0 could not be installed: it is left out.")
    found = measure(options.seconds, options.rounds, totoms1)
    print_table(found)
    print_goals(found)


if __name__ == "__main__":
    main()
