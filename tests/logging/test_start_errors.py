"""What ends the start is in the log as well, as a JSON line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

SERVICE = """
from totoms import TotoControllerConfig, TotoMicroservice, TotoMicroserviceConfiguration
class Config(TotoControllerConfig):
    async def load(self):
        await super().load()
        {load}
{before}
TotoMicroservice.run(TotoMicroserviceConfiguration({arguments}, custom_config=Config), port=0)
"""


def start(*, load: str = "", before: str = "", arguments: str = 'service_name="blog"', **variables: str) -> Any:
    source = SERVICE.format(load=load or "pass", before=before, arguments=arguments)
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=120, env={**os.environ, **variables}
    )
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return done.returncode, [one for one in lines if one["severity"] in ("ERROR", "CRITICAL")], done


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"HYPERSCALER": "nowhere"}, "No plugin for the hyperscaler 'nowhere' is installed"),
        ({"ENVIRONMENT": "prod"}, "The local backend is for development"),
        ({"LOG_LEVEL": "loud"}, "LOG_LEVEL must name a level"),
        ({"JWT_SIGNING_KEY": "short"}, "jwt-signing-key"),
        (
            {"load": "from totoms import ConfigurationError; raise ConfigurationError('Wrong address.')"},
            "Wrong address.",
        ),
    ],
    ids=["plugin", "backend", "level", "secret", "load"],
)
def test_configuration_error_is_a_json_line(how: dict[str, str], says: str) -> None:
    status, (line,), done = start(**how)
    assert status == 2
    assert (line["severity"], line["service"], line["cid"]) == ("CRITICAL", "blog", "init")
    assert says in line["message"]
    assert says in done.stderr.splitlines()[-1]  # and on standard error, for people


def test_error_in_the_declaration_is_a_json_line() -> None:
    status, (line,), _ = start(arguments="service_name=7")
    assert status == 2
    assert line["message"].startswith("TotoMicroserviceConfiguration.service_name: ")


def test_import_error_in_load_is_one_json_line_with_its_traceback() -> None:
    status, (line,), _ = start(load="import no_such_module")
    assert status == 1
    assert line["message"] == "blog cannot start: Config.load() failed"
    assert "ModuleNotFoundError: No module named 'no_such_module'" in line["exception"]


def test_exception_in_a_lifespan_is_a_json_line() -> None:
    before = """
import contextlib
from totoms import APIConfiguration
from fastapi import APIRouter
@contextlib.asynccontextmanager
async def lifespan(app):
    raise RuntimeError("no database")
    yield
"""
    api = "api_configuration=APIConfiguration(routers=[APIRouter(lifespan=lifespan)])"
    status, (line,), _ = start(before=before, arguments=f'service_name="blog", {api}')
    assert status == 1
    assert line["message"] == "blog ends: an exception was not caught"
    assert "RuntimeError: no database" in line["exception"]


def test_log_of_the_program_is_left_alone() -> None:
    status, lines, done = start(before="import logging; logging.basicConfig()", HYPERSCALER="nowhere")
    assert (status, lines) == (2, [])
    assert done.stdout == ""
    assert [line for line in done.stderr.splitlines() if "nowhere" in line] == [done.stderr.splitlines()[-1]]


def test_exception_of_a_program_without_a_service_is_not_logged() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import totoms; raise RuntimeError('x')"], capture_output=True, text=True, timeout=120
    )
    assert done.stdout == ""
    assert "RuntimeError: x" in done.stderr
