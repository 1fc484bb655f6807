"""Rows of docs/migrating.md that can be held against the code, and what the front pages promise."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import totoms
from totoms import (
    CloudStorage,
    MessageBus,
    MessageBusConfig,
    MessageBusHandlerConfig,
    MessageBusTopicConfig,
    MessageDestination,
    SecretsManager,
    TotoMessage,
    TotoMessageHandler,
    TotoMicroservice,
    TotoMicroserviceConfiguration,
)
from totoms.context import sane_cid
from totoms.testing import TestMicroservice

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "migrating.md").read_text()


@pytest.mark.parametrize("page", ["README.md", "CHANGELOG.md", "docs/migrating.md"])
def test_front_pages_say_who_starts_unchanged(page: str) -> None:
    text = " ".join((ROOT / page).read_text().split())
    assert re.search(r"(starts?) unchanged(?: on 2\.0)?, except those with Gale agents", text)


def test_pages_write_the_command_that_is_always_ours() -> None:
    bare = []
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *ROOT.glob("docs/**/*.md")]:
        for number, line in enumerate(page.read_text().splitlines(), 1):
            if re.search(r"(?<!-m )\btotoms (dlq|token|plugins)\b", line):
                bare.append(f"{page.relative_to(ROOT)}:{number}")
    assert bare == []


ALPHABET = "ABCXYZabcxyz0189._:/+=@~-"


def test_correlation_ids_have_the_alphabet_of_the_page() -> None:
    assert "1 to 128 of `A-Z a-z 0-9 . _ : / + = @ ~ -`" in PAGE
    for cid in (ALPHABET, "a", "x" * 128):
        assert sane_cid(cid) == cid
    for cid in ("", "x" * 129, *(f"a{one}b" for one in " \t,;\"'()[]{}<>|\\!?#$%&*^`é\x00")):
        assert sane_cid(cid) != cid


@pytest.mark.parametrize("name", ["access_aws_secret_version", "access_gcp_secret_version"])
def test_methods_of_the_secrets_manager_that_are_gone(name: str) -> None:
    assert f"`secrets.{name}(name)`" in PAGE
    assert not hasattr(SecretsManager, name)


@pytest.mark.parametrize("name", ["register_message_handler", "on_push_message_received", "on_pull_message_received"])
def test_methods_of_the_message_bus_that_are_gone(name: str) -> None:
    assert name in PAGE
    assert not hasattr(MessageBus, name)


async def test_init_has_no_keyword_of_1_5() -> None:
    with pytest.raises(TypeError, match="init_config"):
        await TotoMicroservice.init(init_config=TotoMicroserviceConfiguration("x"))  # type: ignore[call-arg]


def test_star_import_has_the_names_of_2_0() -> None:
    (row,) = re.findall(r"\| `from totoms import \*` imported (.*?) and all removed names \|", PAGE)
    gone = re.findall(r"`(\w+)`", row)
    assert len(gone) == 8
    assert not set(gone) & set(totoms.__all__)
    assert {"toto_delegate", "UserContext", "ExecutionContext"} <= set(totoms.__all__)


def test_subclasses_of_1_5_cannot_be_constructed() -> None:
    class Files(CloudStorage):
        def upload_file(self, *_: Any, **__: Any) -> str:
            return ""

    class Secrets(SecretsManager):
        def get_secret(self, *_: Any, **__: Any) -> str:
            return ""

    for construct in (lambda: Files("bucket"), lambda: Secrets()):
        with pytest.raises(TypeError, match="abstract"):
            construct()


def test_destination_cannot_be_changed_but_hashed() -> None:
    destination = MessageDestination(topic="posts")
    with pytest.raises(AttributeError):
        destination.topic = "other"  # type: ignore[misc]
    assert {destination} == {MessageDestination(topic="posts")}


async def test_handler_that_returns_a_dictionary_has_failed() -> None:
    class Old(TotoMessageHandler):
        def get_handled_message_type(self) -> str:
            return "created"

        async def process_message(self, message: TotoMessage) -> Any:
            return {"status": "success"}

    bus = MessageBusConfig([MessageBusTopicConfig("posts", "posts-topic")], [MessageBusHandlerConfig(Old)])
    async with TestMicroservice(TotoMicroserviceConfiguration("blog", message_bus_configuration=bus)) as service:
        first = await service.deliver(TotoMessage(type="created"))
        last = await service.deliver(TotoMessage(type="created"), attempt=5)
    assert first.outcome.action.value == "retry"
    assert last.outcome.reason is not None
    assert last.outcome.reason.reason == "attempts_exhausted"


@pytest.mark.parametrize(
    ("variables", "region"),
    [
        ({"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "us-east-1"}, "eu-west-1"),
        ({"AWS_DEFAULT_REGION": "us-east-1"}, "us-east-1"),
        ({}, "eu-north-1"),
    ],
)
def test_region_is_decided_as_the_page_says(
    variables: dict[str, str], region: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    configuration = pytest.importorskip("totoms_aws.configuration")
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert configuration.AWSConfiguration().region == region
