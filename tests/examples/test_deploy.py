"""The files of examples/deploy: valid, in agreement with the service, and used with the settings that they have."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import kubernetes_validate
import pytest
import yaml
from dockerfile_parse import DockerfileParser

from standins.ports import free_port
from support.aws import kit
from support.processes import Process
from totoms import TotoMicroserviceConfiguration
from totoms.auth.tokens import make_token

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "examples" / "deploy"
KUBERNETES = "1.34"
"""The version whose schemas the manifest is checked against."""


def statements(name: str) -> list[str]:
    """The values of an instruction of the Dockerfile, in order."""
    parser = DockerfileParser(path=str(DEPLOY / "Dockerfile"), cache_content=True)
    return [part["value"] for part in parser.structure if part["instruction"] == name]


def resources() -> dict[str, dict[str, Any]]:
    return {part["kind"]: part for part in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())}


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return found


def test_image_is_slim_and_runs_python_itself_without_root() -> None:
    assert [value.split()[0] for value in statements("FROM")] == ["python:${PYTHON}-slim"] * 2
    (user,) = statements("USER")
    assert all(int(number) > 0 for number in user.split(":"))
    (command,) = statements("CMD")
    assert json.loads(command) == ["python", "service.py"], "the exec form: otherwise a shell gets SIGTERM"


def test_all_that_the_image_copies_is_there_and_not_ignored() -> None:
    allowed = {
        line.removeprefix("!")
        for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
        if line[:1] == "!"
    }
    for value in statements("COPY"):
        *sources, _ = value.split()
        for source in sources:
            assert (ROOT / source).exists(), source
            assert any(pattern == source or pattern.startswith(f"{source}/") for pattern in allowed), source
    for pattern in allowed:
        assert list(ROOT.glob(pattern)), f"{pattern} allows nothing"


def test_manifest_is_valid_for_kubernetes() -> None:
    for resource in resources().values():
        kubernetes_validate.validate(resource, KUBERNETES, strict=True)


def test_wrong_manifest_is_refused() -> None:
    deployment = resources()["Deployment"]
    deployment["spec"]["template"]["spec"]["terminationGracePeriod"] = 40
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, KUBERNETES, strict=True)


def test_kubernetes_waits_until_the_service_has_drained() -> None:
    pod = resources()["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    delay = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain = TotoMicroserviceConfiguration(service_name="blog").shutdown_grace
    readiness = container["readinessProbe"]

    assert pod["terminationGracePeriodSeconds"] >= delay + drain + 5
    assert delay >= readiness["periodSeconds"] * readiness["failureThreshold"]


def test_probes_and_user_are_those_of_the_image() -> None:
    pod = resources()["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    (user,) = statements("USER")
    (port,) = statements("EXPOSE")

    assert f"{pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}" == user
    assert container["ports"] == [{"name": "http", "containerPort": int(port)}]
    assert container["livenessProbe"]["httpGet"]["path"] == "/health"
    assert container["readinessProbe"]["httpGet"]["path"] == "/ready"


def test_compose_gives_the_service_time_to_drain() -> None:
    seconds = int(compose()["services"]["blog"]["stop_grace_period"].removesuffix("s"))
    assert seconds >= TotoMicroserviceConfiguration(service_name="blog").shutdown_grace + 5


def test_compose_has_the_emulator_that_the_tests_run_against() -> None:
    (pinned,) = re.findall(r"^ministack==\S+$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned in compose()["services"]["aws"]["build"]["dockerfile_inline"]


@pytest.mark.cloud
def test_environment_of_compose_runs_the_service(tmp_path: Path) -> None:
    """What the containers would do, as processes: only the address of the emulator is another."""
    services = compose()["services"]
    emulator = kit.server()
    assert services["blog"]["environment"]["AWS_ENDPOINT_URL"] == "http://aws:4566"

    def environment(name: str) -> dict[str, str]:
        return services[name]["environment"] | {"AWS_ENDPOINT_URL": emulator, "HYPERSCALER": "aws"}

    for _ in range(2):  # a second start finds what is there
        subprocess.run(
            [sys.executable, str(DEPLOY / "setup_aws.py")],
            env=os.environ | environment("setup"),
            check=True,
            timeout=120,
        )
    service = Process(
        ROOT / "examples" / "blog" / "service.py",
        root=str(tmp_path),
        env=environment("blog") | {"PORT": str(free_port())},
        cwd=tmp_path,
    )
    try:
        service.expect("Listening on http://0.0.0.0:")
        key = services["setup"]["environment"]["JWT_SIGNING_KEY"]
        token = make_token(key, "me@example.com", claims={"roles": ["author"]})
        with httpx.Client(base_url=f"http://127.0.0.1:{service.port()}", timeout=60) as client:
            assert client.get("/ready").status_code == 200
            stored = client.post(
                "/blog/posts", json={"title": "One", "text": "1"}, headers={"Authorization": f"Bearer {token}"}
            )
        assert stored.status_code == 201, stored.text
        service.expect("Added one to the digest")
        service.send(signal.SIGTERM)
        assert service.wait() == 0
    finally:
        service.kill()


@pytest.mark.slow
def test_engine_builds_the_image_and_runs_it() -> None:
    if (
        shutil.which("docker") is None
        or subprocess.run(["docker", "info"], capture_output=True, check=False).returncode
    ):
        pytest.skip("no engine for containers is running here")
    run = subprocess.run
    run(["docker", "build", "-f", DEPLOY / "Dockerfile", "-t", "totoms-blog-test", ROOT], check=True, timeout=1200)
    user = run(["docker", "run", "--rm", "totoms-blog-test", "id", "-u"], capture_output=True, text=True, check=True)
    assert user.stdout.strip() == "10001"
    run(["docker", "run", "--rm", "--read-only", "totoms-blog-test", "python", "-m", "totoms", "--version"], check=True)
    run(["docker", "run", "--rm", "--read-only", "totoms-blog-test", "python", "-c", "import service"], check=True)
