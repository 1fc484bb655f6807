"""The log under other servers: their lines come in our form, and no request is logged twice."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from standins.ports import free_port
from support.processes import DEADLINE, Process

PAGE = (Path(__file__).parents[2] / "docs/operations/logs.md").read_text()
COMMANDS = {words[0]: words[1:] for words in map(shlex.split, re.findall(r"^(?:uvicorn|gun|gran).* --.*$", PAGE, re.M))}
(CONFIG,) = re.findall(r'^```json\n(\{\n  "version": 1.*?)^```$', PAGE, re.MULTILINE | re.DOTALL)
SERVICE = """
import logging
from fastapi import Request
from totoms import *

@toto_delegate
async def read(request: Request, user_context: UserContext, exec_context: ExecutionContext):
    logging.getLogger("store").info("Reading", extra={"invoice": 7})
    return {}

def app():
    endpoints = [APIEndpoint("GET", "/posts/{slug}", read, public=True)]
    return TotoMicroservice.asgi(
        TotoMicroserviceConfiguration(
            service_name="blog", version="1.4.0", api_configuration=APIConfiguration(api_endpoints=endpoints)
        )
    )
"""
Start = Callable[..., list[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Run a server until it has answered two requests; returns the lines of its output."""
    processes: list[Process] = []

    def run(
        name: str, *, without: tuple[str, ...] = (), more: tuple[str, ...] = (), service: str = SERVICE
    ) -> list[str]:
        pytest.importorskip(name, reason="not installed: nox -s tests does")
        (tmp_path / "service.py").write_text(service)
        (tmp_path / "logging.json").write_text(CONFIG)
        port = free_port()
        words = [word.replace("8080", str(port)) for word in COMMANDS[name]]
        words[words.index("--workers") + 1] = "1"
        for option in without:
            place = words.index(option)
            del words[place : place + 2]
        variables = {"HYPERSCALER": "local", "PYTHONPATH": str(tmp_path)}
        process = Process("-m", name, *words, *more, root=str(tmp_path / "root"), env=variables, cwd=tmp_path)
        processes.append(process)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            deadline = time.monotonic() + DEADLINE
            while True:
                with contextlib.suppress(httpx.TransportError):
                    assert client.get("/ready").status_code == 200
                    break
                assert time.monotonic() < deadline, process.output
                time.sleep(0.05)
            for slug in ("one", "two"):
                assert client.get(f"/posts/{slug}").status_code == 200
        process.expect("GET /posts/two .*200")
        process.send(signal.SIGTERM)
        process.wait()
        return [line for line in process.lines if line]

    yield run
    for process in processes:
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            process.send(signal.SIGTERM)
            process.wait(5)
        process.kill()


def parsed(lines: list[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines if line.startswith("{")]


def of_requests(lines: list[str]) -> list[str]:
    return [line for line in lines if "/posts/one" in line or "/posts/two" in line]


def assert_service_logs_once(lines: list[str]) -> None:
    one, two = parsed(of_requests(lines))
    assert len(of_requests(lines)) == 2
    assert (one["route"], two["route"]) == ("/posts/{slug}", "/posts/{slug}")
    readings = [line for line in parsed(lines) if line["message"] == "Reading"]
    assert [(line["logger"], line["invoice"], line["version"]) for line in readings] == [("store", 7, "1.4.0")] * 2
    assert [line["cid"] for line in readings] == [one["cid"], two["cid"]]


WORKERS = {
    "uvicorn": ("--log-config", ["Started server process", "Application startup complete", "Shutting down"], ()),
    "gunicorn": ("--log-config-json", ["Started server process", "Shutting down"], ("--access-logfile", "-")),
    "granian": ("--log-config", ["Started worker-1", "Stopping worker-1"], ("--access-log",)),
}


@pytest.mark.parametrize("name", WORKERS)
def test_lines_of_a_worker_come_in_the_same_form(start: Start, name: str) -> None:
    option, own, more = WORKERS[name]
    lines = start(name, without=(option,), more=more)
    assert_service_logs_once(lines)
    for text in own:
        (line,) = [line for line in parsed(lines) if text in line["message"]]
        assert (line["severity"], line["service"], line["version"]) == ("INFO", "blog", "1.4.0")


@pytest.mark.parametrize("name", WORKERS)
def test_all_lines_come_in_the_same_form_with_the_documented_file(start: Start, name: str) -> None:
    lines = start(name)
    assert [line for line in lines if not line.startswith("{")] == []
    assert_service_logs_once(lines)


def test_server_that_sets_up_its_log_after_the_service_is_adopted_too(tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(SERVICE)
    port = free_port()
    (tmp_path / "main.py").write_text(f"""
import asyncio, httpx, uvicorn, service
from totoms import TotoMicroservice
service.TotoMicroservice.asgi = lambda configuration: configuration

async def main():
    app = (await TotoMicroservice.init(service.app())).app
    server = uvicorn.Server(uvicorn.Config(app, port={port}))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    async with httpx.AsyncClient(base_url="http://127.0.0.1:{port}") as client:
        for slug in ("one", "two"):
            await client.get("/posts/" + slug)
    server.should_exit = True
    await serving

asyncio.run(main())
""")
    process = Process("main.py", root=str(tmp_path / "root"), env={"HYPERSCALER": "local"}, cwd=tmp_path)
    try:
        assert process.wait() == 0
    finally:
        process.kill()
    lines = [line for line in process.lines if line and '"logger":"httpx"' not in line]
    assert_service_logs_once(lines)
    assert [line for line in parsed(lines) if line["message"] == "Application startup complete."]


def test_access_log_of_the_server_stays_where_the_service_has_none(start: Start) -> None:
    service = SERVICE.replace("version=", "log=LogConfiguration(requests=False), version=")
    lines = start("uvicorn", without=("--log-config",), service=service)
    one, two = parsed(of_requests(lines))
    assert one["logger"] == two["logger"] == "uvicorn.access"
    assert 'GET /posts/one HTTP/1.1" 200' in one["message"]


def test_formatter_of_the_program_stays(start: Start, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("import logging\nclass Own(logging.Formatter): ...\n")
    own = {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"own": {"()": "own.Own", "format": "own %(message)s"}},
        "handlers": {"own": {"class": "logging.StreamHandler", "formatter": "own"}},
        "loggers": {"uvicorn": {"handlers": ["own"], "level": "INFO"}},
    }
    (tmp_path / "own.json").write_text(json.dumps(own))
    lines = start("uvicorn", without=("--log-config",), more=("--log-config", "own.json"))
    assert "own Application startup complete." in lines
    assert_service_logs_once(lines)


def test_reason_for_not_starting_is_a_json_line(tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(SERVICE)
    variables = {"HYPERSCALER": "nowhere", "PYTHONPATH": str(tmp_path)}
    arguments = ["--factory", "service:app", "--port", str(free_port())]
    process = Process("-m", "uvicorn", *arguments, root=str(tmp_path / "root"), env=variables, cwd=tmp_path)
    try:
        assert process.wait() != 0
    finally:
        process.kill()
    (line,) = [line for line in parsed(process.lines) if "nowhere" in line["message"]]
    assert line["severity"] == "ERROR"
    assert line["message"].startswith("No plugin for the hyperscaler 'nowhere' is installed")
