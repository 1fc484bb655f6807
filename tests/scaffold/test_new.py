"""``python -m totoms new``: what it writes runs, passes its tests and is what its own CI asks for."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from dockerfile_parse import DockerfileParser

from support.processes import DEADLINE
from totoms.scaffold.files import Wanted, files_of

OPTIONS = {
    "plain": [],
    "aws": ["--backend=aws"],
    "mongo": ["--mongo"],
    "mongo on azure": ["--backend=azure", "--mongo"],
    "minimal": ["--minimal"],
    "minimal on gcp": ["--minimal", "--backend=gcp"],
}


def totoms(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "totoms", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=DEADLINE, check=False)


@pytest.fixture(params=OPTIONS.values(), ids=OPTIONS)
def service(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The folder of a new service."""
    if "--mongo" in request.param:
        pytest.importorskip("pymongo", reason="not installed: nox -s tests does")
    done = totoms(tmp_path, "new", "orders", *request.param)
    assert done.returncode == 0, done.stderr
    assert "python -m totoms run service:configuration --reload" in done.stdout
    return tmp_path / "orders"


def test_its_tests_pass(service: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error"]
    done = subprocess.run(command, cwd=service, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def test_its_declaration_is_valid(service: Path) -> None:
    done = totoms(service, "manifest", "service:configuration")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["service"]["name"] == "orders"


def test_every_module_is_in_its_wheel_and_every_placeholder_is_filled(service: Path) -> None:
    project = tomllib.loads((service / "pyproject.toml").read_text())
    modules = {path.stem for path in service.glob("*.py") if not path.stem.startswith("test_")}
    assert set(project["tool"]["setuptools"]["py-modules"]) == modules
    for path in service.rglob("*"):
        assert not path.is_file() or "$name" not in path.read_text()


@pytest.mark.parametrize("mongo", [False, True])
def test_image_runs_without_root_and_has_every_module(tmp_path: Path, mongo: bool) -> None:
    files = files_of(Wanted("orders", "aws", mongo))
    (tmp_path / "Dockerfile").write_text(files["Dockerfile"])
    structure = DockerfileParser(path=str(tmp_path / "Dockerfile")).structure
    statements = {part["instruction"]: part["value"] for part in structure}

    assert statements["USER"] == "10001:10001"
    assert json.loads(statements["CMD"]) == ["python", "-m", "totoms", "run", "service:configuration"]
    assert "HYPERSCALER=aws" in statements["ENV"]
    copied = {line.removeprefix("!") for line in files[".dockerignore"].splitlines() if line.startswith("!")}
    assert copied == {"pyproject.toml", *(name for name in files if name.endswith(".py") and "/" not in name)}


@pytest.mark.parametrize("mongo", [False, True])
def test_compose_file_gives_the_service_time_to_drain(mongo: bool) -> None:
    services = yaml.safe_load(files_of(Wanted("orders", mongo=mongo))["compose.yaml"])["services"]
    assert services["orders"]["stop_grace_period"] == "30s"
    assert services["orders"]["ports"] == ["127.0.0.1:8080:8080"]
    assert ("mongo" in services) == mongo == ("MONGO_URL" in services["orders"]["environment"])


def test_workflow_runs_tests_check_and_contract() -> None:
    workflow = yaml.safe_load(files_of(Wanted("orders"))[".github/workflows/ci.yml"])
    commands = [step["run"] for step in workflow["jobs"]["test"]["steps"] if "run" in step]
    assert [command.split()[:4] for command in commands[1:]] == [
        ["python", "-m", "pytest"],
        ["python", "-m", "totoms", "check"],
        ["python", "-m", "totoms", "contract"],
        ["python", "-m", "totoms", "contract"],
    ]


def test_folder_that_has_anything_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "orders").mkdir()
    (tmp_path / "orders" / "mine.txt").write_text("mine")
    done = totoms(tmp_path, "new", "orders")
    assert done.returncode == 2
    assert done.stderr == "totoms: orders is not empty: a new service replaces no file.\n"
    assert [path.name for path in (tmp_path / "orders").iterdir()] == ["mine.txt"]


def test_file_of_that_name_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "orders").write_text("mine")
    done = totoms(tmp_path, "new", "orders")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert (tmp_path / "orders").read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "hint"),
    [("My Orders", "my-orders"), ("orders_v2", "orders-v2"), ("../orders", "orders"), ("", ""), ("2nd", ""), ("-", "")],
)
def test_name_that_is_not_valid_is_refused_with_one_that_is(tmp_path: Path, name: str, hint: str) -> None:
    done = totoms(tmp_path, "new", "--", name)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("totoms: ")
    assert f"such as {hint} (" in line if hint else "such as" not in line
    assert not list(tmp_path.iterdir())


def test_mongo_and_minimal_exclude_each_other(tmp_path: Path) -> None:
    done = totoms(tmp_path, "new", "orders", "--mongo", "--minimal")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
