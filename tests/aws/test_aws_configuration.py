"""Settings: where on AWS a service runs. Everything else is the SDK's own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from standins.aws.errors import FaultyAWS
from support.aws import kit as aws_kit
from totoms import CloudStorage, TotoEnvironment
from totoms.clients import close_clients
from totoms.errors import ConfigurationError
from totoms_aws import AWSConfiguration, clients


def test_region_and_environment_have_the_defaults_of_old(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "ENVIRONMENT"):
        monkeypatch.delenv(name, raising=False)

    configuration = TotoEnvironment("aws").hyperscaler_configuration

    assert (configuration.region, configuration.environment) == ("eu-north-1", "dev")


@pytest.mark.parametrize(
    ("variables", "region", "environment"),
    [
        ({"AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "eu-west-1"}, "us-east-1", "dev"),
        ({"AWS_DEFAULT_REGION": "eu-west-1", "ENVIRONMENT": "prod"}, "eu-west-1", "prod"),
        ({"AWS_REGION": "", "ENVIRONMENT": ""}, "eu-north-1", "dev"),
    ],
)
def test_variables_are_read(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], region: str, environment: str
) -> None:
    aws_kit.use(monkeypatch, None, **variables)

    configuration = AWSConfiguration()

    assert (configuration.region, configuration.environment) == (region, environment)


def test_arguments_win_and_names_in_code_are_those_of_old(monkeypatch: pytest.MonkeyPatch) -> None:
    aws_kit.use(monkeypatch, None, AWS_REGION="us-east-1")

    assert AWSConfiguration(region="eu-west-1", environment="test").region == "eu-west-1"
    assert AWSConfiguration("eu-west-1", "prod") == AWSConfiguration(region="eu-west-1", environment="prod")
    assert AWSConfiguration("eu-west-1").environment == "dev"
    with pytest.raises(ValueError, match="argument"):
        AWSConfiguration("eu-west-1", "prod", "more")


@pytest.mark.parametrize("region", ["", " ", "eu north 1", "eu-north-1/", "-a", "a-", "x" * 64, "EU.NORTH", None, 1])
def test_what_can_be_no_region_is_a_configuration_error(monkeypatch: pytest.MonkeyPatch, region: Any) -> None:
    with pytest.raises(ConfigurationError, match="AWS_REGION"):
        AWSConfiguration(region=region)
    if region and isinstance(region, str):
        monkeypatch.setenv("AWS_REGION", region)
        with pytest.raises(ConfigurationError, match="AWS_REGION"):
            TotoEnvironment("aws")


@pytest.mark.parametrize("environment", ["", "a b", "ü", "x" * 65, None])
def test_what_can_begin_no_secret_is_a_configuration_error(environment: Any) -> None:
    with pytest.raises(ConfigurationError, match="ENVIRONMENT"):
        AWSConfiguration(environment=environment)


def test_profile_of_the_sdk_is_honoured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    credentials = tmp_path / "credentials"
    credentials.write_text("[mine]\naws_access_key_id = OF-PROFILE\naws_secret_access_key = x\n")
    with FaultyAWS(aws_kit.server()) as faults:
        aws_kit.use(monkeypatch, faults.address, AWS_PROFILE="mine", AWS_SHARED_CREDENTIALS_FILE=str(credentials))
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        configuration = AWSConfiguration(region="eu-west-3")
        CloudStorage("a-bucket", environment=aws_kit.environment(configuration)).exists("key")
        asked = faults.requests[0].headers["authorization"]
    close_clients()

    assert "Credential=OF-PROFILE/" in asked
    assert "/eu-west-3/s3/" in asked


def test_endpoint_of_one_service_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultyAWS(aws_kit.server()) as faults:
        aws_kit.use(monkeypatch, "http://127.0.0.1:1", AWS_ENDPOINT_URL_S3=faults.address)
        configuration = AWSConfiguration(region=aws_kit.REGION)
        assert not CloudStorage("a-bucket", environment=aws_kit.environment(configuration)).exists("key")
        assert len(faults.requests) == 1
    close_clients()


def test_there_is_one_client_for_each_service_and_region(aws: AWSConfiguration) -> None:
    again = AWSConfiguration(region=aws.region, environment="other")

    assert clients.client("s3", aws) is clients.client("s3", again)
    assert clients.client("s3", aws) is not clients.client("sqs", aws)
    assert clients.client("s3", aws) is not clients.client("s3", AWSConfiguration(region="eu-west-1"))


def test_child_that_was_forked_makes_clients_of_its_own(aws: AWSConfiguration) -> None:
    mine = clients.client("s3", aws)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover - another process
        os.write(writing, b"own" if clients.client("s3", aws) is not mine else b"shared")
        os._exit(0)
    os.waitpid(child, 0)

    assert os.read(reading, 10) == b"own"
    os.close(reading)
    os.close(writing)


FOREIGN = ("google.cloud", "azure", "grpc", "totoms_gcp", "totoms_azure", "totoms.local")
REPORT = "; import sys; print(*sys.modules)"


def modules(source: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", source + REPORT],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
        env={**os.environ, "HYPERSCALER": "aws"},
    )
    return set(done.stdout.split())


def test_importing_totoms_loads_no_sdk() -> None:
    loaded = modules("import totoms")

    assert not [name for name in loaded if name.startswith(("boto", "s3transfer", "totoms_aws", *FOREIGN))]


@pytest.mark.parametrize("made", ["SecretsManager()", "CloudStorage('a-bucket')", "MessageBus()"])
def test_service_on_aws_loads_nothing_of_other_clouds(made: str) -> None:
    loaded = modules(f"import totoms; totoms.{made}")

    assert "botocore" in loaded
    assert not [name for name in loaded if name.startswith(FOREIGN)]


def test_settings_alone_load_no_sdk() -> None:
    loaded = modules("import totoms; totoms.TotoEnvironment('aws')")

    assert not [name for name in loaded if name.startswith("boto")]
