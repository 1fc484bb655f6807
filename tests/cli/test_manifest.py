"""``totoms manifest``: the declaration of a service as JSON."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter, Request
from pydantic import BaseModel

from totoms import (
    APIConfiguration,
    APIEndpoint,
    Bucket,
    ConfigurationError,
    ExecutionContext,
    MessageBusConfig,
    MessageBusHandlerConfig,
    MessageBusTopicConfig,
    ProcessingResponse,
    ProcessingStatus,
    Requires,
    Resources,
    TotoControllerConfig,
    TotoEvent,
    TotoMessage,
    TotoMessageHandler,
    TotoMicroserviceConfiguration,
    UserContext,
    toto_delegate,
    toto_handler,
)
from totoms.cli.main import main
from totoms.manifest import Manifest, manifest_of

PAGE = Path(__file__).parents[2] / "docs" / "manifest.md"


class NewPost(BaseModel):
    title: str


@toto_delegate
async def create_post(
    request: Request, user_context: UserContext, exec_context: ExecutionContext, post: NewPost
) -> NewPost:
    return post


@toto_delegate
async def read_post(request: Request, user_context: UserContext, exec_context: ExecutionContext, slug: str) -> NewPost:
    return NewPost(title=slug)


admin = APIRouter(prefix="/admin")


@admin.get("/status")
async def status() -> str:
    return "fine"


class PostHandler(TotoMessageHandler):
    def get_handled_message_type(self) -> str:
        return "postCreated"

    async def process_message(self, message: TotoMessage) -> ProcessingResponse:
        return ProcessingResponse(ProcessingStatus.SUCCESS)


class Needy(PostHandler):
    def get_handled_message_type(self) -> str:
        return str(self.config.secrets_manager.get_secret("type"))


class PostCreated(TotoEvent, type="postCreated", version=2):
    title: str


@toto_handler
async def add_to_digest(message: TotoMessage[PostCreated]) -> None: ...


class TypedHandler(TotoMessageHandler[PostCreated]):
    async def process_message(self, message: TotoMessage[PostCreated]) -> None: ...


class Excluding(TotoControllerConfig):
    def is_path_excluded(self, path: str) -> bool:
        return path.endswith("/open")


async def answers(config: TotoControllerConfig) -> None: ...


def declared(**more: Any) -> TotoMicroserviceConfiguration:
    return TotoMicroserviceConfiguration(
        service_name="blog",
        base_path="/blog",
        custom_config=Excluding,
        api_configuration=APIConfiguration(
            api_endpoints=[
                APIEndpoint(
                    method="POST",
                    path="/posts",
                    delegate=create_post,
                    requires=Requires(scopes={"b", "a"}, any_of=[Requires(roles={"admin"}), Requires(issuers={"i"})]),
                ),
                APIEndpoint(method="GET", path="/posts/{slug}", delegate=read_post, public=True),
                APIEndpoint(method="POST", path="/open", delegate=create_post),
            ],
            routers=[admin],
        ),
        message_bus_configuration=MessageBusConfig(
            topics=[
                MessageBusTopicConfig(logical_name="posts", secret="posts-topic", ordered=True),
                MessageBusTopicConfig(logical_name="audit", secret="audit-topic", subscribe=False),
            ],
            message_handlers=[MessageBusHandlerConfig(handler_class=PostHandler, topic="posts")],
            delivery="pull",
        ),
        resources=Resources(buckets=[Bucket("blog-files")], secrets=["database-url"]),
        readiness_checks=[answers],
        **more,
    )


def test_manifest_has_the_whole_declaration() -> None:
    found = manifest_of(declared()).model_dump(mode="json")
    assert found["manifest"] == 1
    assert (found["service"]["name"], found["service"]["base_path"]) == ("blog", "/blog")
    endpoints = {(one["method"], one["path"]): one for one in found["endpoints"]}
    assert {key: one["public"] for key, one in endpoints.items()} == {
        ("POST", "/blog/posts"): False,
        ("GET", "/blog/posts/{slug}"): True,
        ("POST", "/blog/open"): True,
        ("GET", "/blog/admin/status"): False,
    }
    assert endpoints["POST", "/blog/posts"]["requires"] == {
        "scopes": ["a", "b"],
        "any_of": [{"roles": ["admin"]}, {"issuers": ["i"]}],
    }
    assert endpoints["GET", "/blog/admin/status"]["operation"]["responses"]["200"]
    operation = endpoints["POST", "/blog/posts"]["operation"]
    assert operation["requestBody"]["content"]["application/json"]["schema"] == {"$ref": "#/schemas/NewPost"}
    assert found["schemas"]["NewPost"]["properties"]["title"]["type"] == "string"
    assert found["topics"] == [
        {"name": "posts", "secret": "posts-topic", "subscription": "blog-posts", "ordered": True},
        {"name": "audit", "secret": "audit-topic", "subscription": None, "ordered": False},
    ]
    assert found["handlers"] == [
        {"name": f"{__name__}.PostHandler", "type": "postCreated", "topics": ["posts"]},
    ]
    assert found["events"]["consumed"] == [
        {"type": "postCreated", "version": None, "topics": ["posts"], "data": None, "understood": []},
    ]
    assert found["resources"] == {"declared": True, "buckets": ["blog-files"], "secrets": ["database-url"]}
    assert found["needs"] == {
        "capabilities": ["secrets_manager", "cloud_storage", "message_bus"],
        "messaging": ["ordering", "pull"],
    }
    assert found["readiness_checks"] == ["answers"]


def test_events_have_versions_and_schemas() -> None:
    bus = MessageBusConfig(
        topics=[
            MessageBusTopicConfig(logical_name="posts", secret="posts-topic", publishes=[PostCreated]),
            MessageBusTopicConfig(logical_name="audit", secret="audit-topic", publishes=[PostCreated]),
        ],
        message_handlers=[
            MessageBusHandlerConfig(handler=add_to_digest, topic="posts"),
            MessageBusHandlerConfig(handler_class=TypedHandler, topic="audit"),
        ],
    )
    found = manifest_of(TotoMicroserviceConfiguration(service_name="blog", message_bus_configuration=bus))
    assert [(one.type, one.version, one.topics) for one in found.events.published] == [
        ("postCreated", 2, ["posts", "audit"])
    ]
    assert [(one.type, one.version, one.topics) for one in found.events.consumed] == [
        ("postCreated", 2, ["posts"]),
        ("postCreated", 2, ["audit"]),
    ]
    for event in (*found.events.published, *found.events.consumed):
        assert event.data is not None
        assert event.data["properties"]["title"]["type"] == "string"
    assert [handler.name for handler in found.handlers] == [f"{__name__}.add_to_digest", f"{__name__}.TypedHandler"]


def test_references_stay_within_the_manifest() -> None:
    found = manifest_of(declared()).model_dump(mode="json")
    references = set(re.findall(r'"\$ref": "#/([^"]+)"', json.dumps([found["endpoints"], found["schemas"]])))
    assert {reference.removeprefix("schemas/") for reference in references} <= set(found["schemas"])


def test_smallest_declaration_has_a_manifest() -> None:
    found = manifest_of(TotoMicroserviceConfiguration(service_name="blog"))
    assert found.endpoints == found.topics == found.handlers == []
    assert not found.resources.declared
    assert found.needs.capabilities == ["secrets_manager"]


def test_type_that_only_a_running_handler_knows_is_empty() -> None:
    bus = MessageBusConfig(
        topics=[MessageBusTopicConfig(logical_name="posts", secret="posts-topic")],
        message_handlers=[MessageBusHandlerConfig(handler_class=Needy)],
    )
    found = manifest_of(TotoMicroserviceConfiguration(service_name="blog", message_bus_configuration=bus))
    assert [handler.type for handler in found.handlers] == [""]


def test_wrong_declaration_has_none() -> None:
    endpoints: list[APIEndpoint] = []
    api = APIConfiguration(api_endpoints=endpoints)
    configuration = TotoMicroserviceConfiguration(service_name="blog", api_configuration=api)
    endpoints += [APIEndpoint(method="POST", path="/posts", delegate=create_post)] * 2
    with pytest.raises(ConfigurationError, match="two endpoints 'POST /posts'"):
        manifest_of(configuration)


def write_service(folder: Path) -> None:
    (folder / "declared_here.py").write_text(
        "print('imported')\n"
        "from totoms import TotoMicroserviceConfiguration\n"
        "configuration = TotoMicroserviceConfiguration(service_name='blog')\n"
        "def made(): return configuration\n"
        "async def awaited(): return configuration\n"
        "class inner: configuration = configuration\n"
        "number = 7\n"
        "def broken(): raise KeyError('gone')\n"
    )


@pytest.mark.parametrize("name", ["configuration", "made", "inner.configuration"])
def test_command_prints_json_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    write_service(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "declared_here", raising=False)
    assert main(["manifest", f"declared_here:{name}"]) == 0
    printed = capsys.readouterr()
    assert Manifest.model_validate_json(printed.out).service.name == "blog"
    assert printed.err == "imported\n"


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("declared_here", "'declared_here' must have the form MODULE:NAME, such as service:configuration."),
        ("nowhere:x", "nowhere:x cannot be loaded: ModuleNotFoundError: No module named 'nowhere'"),
        ("declared_here:nothing", "declared_here:nothing cannot be loaded: AttributeError: "),
        ("declared_here:number", "declared_here:number is a int, not a TotoMicroserviceConfiguration."),
        ("declared_here:awaited", "declared_here:awaited is a coroutine, not a TotoMicroserviceConfiguration."),
        ("declared_here:broken", "declared_here:broken cannot be loaded: KeyError: 'gone'"),
    ],
)
def test_invalid_configuration_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], place: str, message: str
) -> None:
    write_service(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "declared_here", raising=False)
    assert main(["manifest", place]) == 2
    line = capsys.readouterr().err.removeprefix("imported\n")
    assert line.startswith(f"totoms: {message}")
    assert line.count("\n") == 1


def test_command_prints_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["manifest", "--schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert set(schema["properties"]) == set(Manifest.model_fields)


def test_page_names_every_field() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", PAGE.read_text(), re.MULTILINE)
    assert [name for name, _ in rows] == list(Manifest.model_fields)
    text = dict(rows)
    for name, field in Manifest.model_fields.items():
        kinds = [field.annotation, *getattr(field.annotation, "__args__", ())]
        for kind in kinds:
            for inner in getattr(kind, "model_fields", {}):
                assert f"`{inner}`" in text[name], f"{name}.{inner} is not on the page"


def test_example_of_the_repository_has_a_manifest() -> None:
    folder = Path(__file__).parents[2] / "examples" / "blog"
    arguments = [sys.executable, "-m", "totoms", "manifest", "service:get_microservice_config"]
    done = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert Manifest.model_validate_json(done.stdout).service.name == "blog"
