"""The settings of Google Cloud, and the clients of a process."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import google_crc32c
import pytest

from support.gcp.secrets import PROJECT, GCPSecretsHarness, secrets_of_a_test
from support.gcp.storage import write_account
from totoms import SecretsManager, TotoEnvironment
from totoms.errors import ConfigurationError, NotFound
from totoms_gcp import GCPConfiguration, clients
from totoms_gcp.messages.clients import make_publisher, make_subscriber, make_topic_client
from totoms_gcp.messages.publisher import _publish_thread

FOREIGN = ("boto", "azure", "totoms_aws", "totoms_azure", "totoms.local")


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GCP_PID", "GOOGLE_CLOUD_PROJECT", "ENVIRONMENT"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("variables", "project"),
    [
        ({"GCP_PID": "ours", "GOOGLE_CLOUD_PROJECT": "googles"}, "ours"),
        ({"GOOGLE_CLOUD_PROJECT": "googles"}, "googles"),
        ({"GCP_PID": "", "GOOGLE_CLOUD_PROJECT": "googles"}, "googles"),
        ({"GCP_PID": "example.com:of-a-domain"}, "example.com:of-a-domain"),
    ],
)
def test_project_is_read_from_variables(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], project: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert TotoEnvironment("gcp").hyperscaler_configuration.project_id == project


def test_argument_wins_and_may_be_given_as_in_1_5(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GCP_PID", "of-the-variable")

    assert GCPConfiguration("of-code") == GCPConfiguration(project_id="of-code")
    assert GCPConfiguration("of-code").project_id == "of-code"


@pytest.mark.parametrize("project", ["", None, "a/b", "A b", "-a", "a-", "x" * 101, 1, "ü"])
def test_what_is_not_a_project_is_a_configuration_error(project: Any) -> None:
    with pytest.raises(ConfigurationError, match="GCP_PID"):
        GCPConfiguration(project_id=project)


def test_service_without_a_project_ends_with_one_line() -> None:
    source = "import totoms; totoms.TotoEnvironment.from_variables()"
    done = run(source, HYPERSCALER="gcp")

    assert done.returncode == 2
    assert done.stderr.strip().count("\n") == 0
    assert "GCP_PID" in done.stderr


def run(source: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=300, env={**os.environ, **variables}
    )


def modules(source: str) -> set[str]:
    done = run(source + "; import sys; print(*sys.modules)", HYPERSCALER="gcp", GCP_PID="a-project")
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_importing_totoms_loads_no_sdk() -> None:
    loaded = modules("import totoms")

    assert not [name for name in loaded if name.startswith(("google", "grpc", "totoms_gcp", *FOREIGN))]


@pytest.mark.parametrize("made", ["SecretsManager()", "CloudStorage('a-bucket')", "MessageBus()"])
def test_service_on_gcp_loads_nothing_of_other_clouds(made: str) -> None:
    loaded = modules(f"import totoms; totoms.{made}")

    assert "google.api_core" in loaded
    assert not [name for name in loaded if name.startswith(FOREIGN)]


def test_settings_alone_load_no_sdk() -> None:
    loaded = modules("import totoms; totoms.TotoEnvironment('gcp')")

    assert not [name for name in loaded if name.startswith(("google", "grpc"))]


def test_one_client_serves_all_threads_and_managers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(clients.FILES_EMULATOR, "http://127.0.0.1:1")
    with secrets_of_a_test() as harness:
        assert clients.secrets() is clients.secrets()
        assert clients.files("a-project") is clients.files("a-project")
        assert clients.files("a-project") is not clients.files("another-project")
        assert harness.manager() is not harness.manager()


def test_child_that_was_forked_makes_clients_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(clients.FILES_EMULATOR, "http://127.0.0.1:1")
    mine = clients.files("a-project")
    answer = in_a_fork(lambda: b"own" if clients.files("a-project") is not mine else b"shared")
    clients.registry.close()

    assert answer == b"own"


def test_child_that_was_forked_after_something_was_published_hands_over_to_a_thread_of_its_own() -> None:
    for _ in range(2):  # with the second the thread has said that it is idle
        _publish_thread.submit(int).result(10)
    answer = in_a_fork(lambda: b"%d" % len(wait([_publish_thread.submit(int)], 5.0).done))

    assert answer == b"1"


async def test_child_that_was_forked_after_a_secret_was_read_reads_secrets() -> None:
    with secrets_of_a_test() as harness:
        await harness.set_secret("name", b"value")
        answer = run(READER, GCP_PID="project-one", SECRET_MANAGER_EMULATOR_HOST=address(harness)).stdout

    assert answer.split() == ["value"] * 4


READER = """
import os, totoms
environment = totoms.TotoEnvironment('gcp')
print(totoms.SecretsManager(environment).get_secret('name'), flush=True)
for _ in range(2):
    child = os.fork()
    if child == 0:
        print(totoms.SecretsManager(environment).get_secret('name', version='1'), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
print(totoms.SecretsManager(environment).get_secret('name', version='1'))
"""


def address(harness: GCPSecretsHarness) -> str:
    return f"127.0.0.1:{harness.server.port}"


def in_a_fork(work: Any) -> bytes:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover - another process
        os.write(writing, work())
        os._exit(0)
    os.waitpid(child, 0)
    answer = os.read(reading, 100)
    os.close(reading)
    os.close(writing)
    return answer


async def test_regional_secrets_are_read_from_their_location() -> None:
    with secrets_of_a_test() as harness:
        parent = f"projects/{PROJECT}/locations/europe-west1"
        secret = harness.operator.create_secret(parent=parent, secret_id="a-secret", secret={})
        payload = {"data": b"regional", "data_crc32c": google_crc32c.value(b"regional")}
        harness.operator.add_secret_version(parent=secret.name, payload=payload)
        settings = GCPConfiguration(project_id=PROJECT, secrets_location="europe-west1")
        assert await SecretsManager(TotoEnvironment("gcp", settings)).get_secret_async("a-secret") == "regional"
        with pytest.raises(NotFound):
            await harness.manager().get_secret_async("a-secret")


def test_locational_endpoints_are_called(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(write_account(tmp_path / "key.json")))
    for name in ("PUBSUB_EMULATOR_HOST", clients.SECRETS_EMULATOR):
        monkeypatch.delenv(name, raising=False)
    endpoint = "europe-west1-pubsub.googleapis.com:443"
    for make in (make_subscriber, make_topic_client, make_publisher):
        assert make(endpoint).transport.host == endpoint
        assert make("").transport.host == "pubsub.googleapis.com:443"
    clients.registry.close()
    host = "secretmanager.europe-west1.rep.googleapis.com:443"
    assert clients.secrets("europe-west1").transport.host == host
    assert clients.secrets().transport.host == "secretmanager.googleapis.com:443"
    clients.registry.close()


@pytest.mark.parametrize("setting", ["pubsub_endpoint", "secrets_location"])
@pytest.mark.parametrize("value", ["https://x.example", "a b", "x/y", "ü"])
def test_what_is_not_a_place_is_a_configuration_error(setting: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=setting):
        GCPConfiguration(project_id="a-project", **{setting: value})
