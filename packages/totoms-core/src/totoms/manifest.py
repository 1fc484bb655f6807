"""The manifest of a service: its declaration as data, for tools that derive contracts, permissions or pictures."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Final, Literal, cast

from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field
from starlette.routing import compile_path

from totoms.controller_config import TotoControllerConfig
from totoms.declaration.api import APIConfiguration
from totoms.declaration.messaging import MessageBusConfig, MessageBusHandlerConfig, MessageBusTopicConfig
from totoms.declaration.requires import Requires
from totoms.declaration.service import TotoMicroserviceConfiguration
from totoms.health import name_of
from totoms.http.access import Access, Decision
from totoms.http.app import create_app
from totoms.logging.logger import TotoLogger
from totoms.messages.events import TotoEvent
from totoms.messages.handler import event_of
from totoms.messages.upcast import understood_versions

VERSION: Final = 1
"""The version of the schema. It grows when a field changes its meaning or is removed, not when one is added."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ManifestService(_Part):
    """The service itself."""

    name: str
    version: str
    description: str
    base_path: str


class ManifestEndpoint(_Part):
    """One endpoint."""

    method: str
    path: str = Field(description="The path template, with the base path.")
    public: bool = Field(description="Whether callers need no token.")
    requires: dict[str, Any] | None = Field(None, description="The scopes, roles and issuers that a caller must have.")
    operation: dict[str, Any] = Field(
        description="Parameters, request body and responses, as an OpenAPI 3.1 operation object. Its references point "
        "into `schemas`. Empty for an endpoint that OpenAPI does not show."
    )


class ManifestEvent(_Part):
    """An event that the service publishes or handles."""

    type: str
    version: int | None = Field(None, description="None for a type without a declared event, whose data is not known.")
    topics: list[str] = Field(description="Logical names; empty for every topic.")
    data: dict[str, Any] | None = Field(None, description="The JSON Schema of the data, if the event is declared.")
    understood: list[int] = Field(description="The versions that a handler reads, older ones by an upcast.")


class ManifestTopic(_Part):
    """A topic."""

    name: str = Field(description="The logical name.")
    secret: str = Field(description="The name of the secret with the provider's identifier.")
    subscription: str | None = Field(
        description="The name of the subscription; None if the service does not subscribe."
    )
    ordered: bool


class ManifestHandler(_Part):
    """A message handler."""

    name: str = Field(description="The module and name of the class or function.")
    type: str = Field(description="The message type; empty if it is known at start only.")
    topics: list[str] = Field(description="Logical names; empty for every topic.")


class ManifestEvents(_Part):
    """The events of a service."""

    consumed: list[ManifestEvent]
    published: list[ManifestEvent] = Field(description="What `publishes` of the topics declares.")


class ManifestResources(_Part):
    """What the service uses in addition to its topics."""

    declared: bool = Field(description="Whether there is a declaration; without one, the lists are empty.")
    buckets: list[str]
    secrets: list[str]


class ManifestCapabilities(_Part):
    """What the service needs of a hyperscaler, in the words of ``python -m totoms plugins --json``."""

    capabilities: list[str]
    messaging: list[str]


class Manifest(_Part):
    """The declaration of a service."""

    manifest: Literal[1] = Field(description="The version of this schema.")
    service: ManifestService
    endpoints: list[ManifestEndpoint]
    events: ManifestEvents
    topics: list[ManifestTopic]
    handlers: list[ManifestHandler]
    resources: ManifestResources
    needs: ManifestCapabilities
    readiness_checks: list[str]
    schemas: dict[str, Any] = Field(description="The JSON Schemas that the endpoints refer to, by name.")


def manifest_of(configuration: TotoMicroserviceConfiguration) -> Manifest:
    """Return the manifest of a service. It needs no hyperscaler and reads no secret.

    Raises:
        ConfigurationError: The declaration is wrong.
    """
    configuration.check()
    endpoints, schemas = _endpoints(configuration)
    bus = configuration.message_bus_configuration or MessageBusConfig()
    resources = configuration.resources
    return Manifest(
        manifest=VERSION,
        service=ManifestService(
            name=configuration.service_name,
            version=configuration.version,
            description=configuration.description,
            base_path=configuration.base_path,
        ),
        endpoints=endpoints,
        events=ManifestEvents(consumed=_consumed(bus), published=_published(bus)),
        topics=[
            ManifestTopic(
                name=topic.logical_name,
                secret=topic.secret,
                subscription=_subscription(configuration.service_name, bus, topic),
                ordered=topic.ordered,
            )
            for topic in bus.topics
        ],
        handlers=[
            ManifestHandler(name=_qualified(handler), type=_type(handler), topics=handler.topics)
            for handler in bus.message_handlers
        ],
        resources=ManifestResources(
            declared=resources is not None,
            buckets=[bucket.name for bucket in resources.buckets] if resources else [],
            secrets=list(resources.secrets) if resources else [],
        ),
        needs=_needs(configuration),
        readiness_checks=[name_of(check) for check in configuration.readiness_checks],
        schemas=schemas,
    )


class _Silent(TotoLogger):
    """Logs nothing: the manifest is printed to where the log goes."""

    def log(self, *_: Any, **__: Any) -> None:
        """Drop a line."""


class _Runtime:
    """A service that is declared but does not run, for its app."""

    state = "starting"
    message_bus = readiness = None
    environment = SimpleNamespace(hyperscaler_configuration=None)
    awaited_topics: Final[list[str]] = []
    authenticator = True  # the tokens are not known

    def __init__(self, configuration: TotoMicroserviceConfiguration) -> None:
        self.service_name = configuration.service_name
        self.logger = _Silent(configuration.service_name)
        # Only asked which paths need no token.
        self.config = TotoControllerConfig.__new__(configuration.custom_config)


def _endpoints(configuration: TotoMicroserviceConfiguration) -> tuple[list[ManifestEndpoint], dict[str, Any]]:
    api = configuration.api_configuration or APIConfiguration()
    app = create_app(cast(Any, _Runtime(configuration)), api, configuration.base_path)
    document = app.openapi()
    paths = document.get("paths", {})
    requires = {
        (endpoint.method, configuration.base_path + endpoint.path or "/"): endpoint.requires
        for endpoint in api.api_endpoints
    }
    endpoints = [
        ManifestEndpoint(
            method=one.method,
            path=one.path,
            public=one.access is Access.PUBLIC,
            requires=_plain(requires.get((one.method, one.path))),
            operation=_referring(paths.get(compile_path(one.path)[1], {}).get(one.method.lower(), {})),
        )
        for one in app.decisions.known()
        if _is_endpoint(one)
    ]
    return endpoints, _referring(document.get("components", {}).get("schemas", {}))


def _is_endpoint(one: Decision) -> bool:
    return isinstance(one.route, APIRoute) and not getattr(one.route, "head_of_get", False)


def _referring(part: Any) -> Any:
    """Return a part of an OpenAPI document with references into the manifest's schemas."""
    if isinstance(part, dict):
        return {name: _referring(value) for name, value in part.items()}
    if isinstance(part, list):
        return [_referring(value) for value in part]
    return part.replace("#/components/schemas/", "#/schemas/") if isinstance(part, str) else part


def _plain(requires: Requires | None) -> dict[str, Any] | None:
    if requires is None:
        return None
    found: dict[str, Any] = {
        name: sorted(values) for name in ("scopes", "roles", "issuers") if (values := getattr(requires, name))
    }
    if requires.any_of:
        found["any_of"] = [_plain(one) for one in requires.any_of]
    return found


def _consumed(bus: MessageBusConfig) -> list[ManifestEvent]:
    handlers = [(one, _event_of(one)) for one in bus.message_handlers]
    return [
        _event(_type(one), event, one.topics, understood_versions(event) if event else []) for one, event in handlers
    ]


def _published(bus: MessageBusConfig) -> list[ManifestEvent]:
    topics: dict[type[TotoEvent], list[str]] = {}
    for topic in bus.topics:
        for event in topic.publishes or ():
            topics.setdefault(event, []).append(topic.logical_name)
    return [_event(event.__toto_type__, event, names, []) for event, names in topics.items()]


def _event(kind: str, event: type[TotoEvent] | None, topics: list[str], understood: list[int]) -> ManifestEvent:
    mode: Literal["validation", "serialization"] = "validation" if understood else "serialization"
    return ManifestEvent(
        type=kind,
        version=None if event is None else event.__toto_version__,
        topics=topics,
        data=None if event is None else event.model_json_schema(by_alias=True, mode=mode),
        understood=understood,
    )


def _subscription(service_name: str, bus: MessageBusConfig, topic: MessageBusTopicConfig) -> str | None:
    if topic.logical_name not in bus.heard:
        return None
    return topic.subscription or f"{service_name}-{topic.logical_name}"


def _qualified(handler: MessageBusHandlerConfig) -> str:
    subject: Any = handler.handler_class or handler.handler
    return f"{subject.__module__}.{subject.__qualname__}"


def _type(handler: MessageBusHandlerConfig) -> str:
    if handler.function is not None:
        return handler.function.message_type
    assert handler.handler_class is not None
    try:
        found = object.__new__(handler.handler_class).get_handled_message_type()
    except Exception:  # it needs what only __init__ sets
        return ""
    return found if isinstance(found, str) else ""


def _event_of(handler: MessageBusHandlerConfig) -> type[TotoEvent] | None:
    if handler.function is not None:
        return handler.function.event
    return None if handler.handler_class is None else event_of(handler.handler_class)


def _needs(configuration: TotoMicroserviceConfiguration) -> ManifestCapabilities:
    capabilities = ["secrets_manager"]
    messaging: list[str] = []
    if configuration.resources is not None and configuration.resources.buckets:
        capabilities.append("cloud_storage")
    if (bus := configuration.message_bus_configuration) is not None:
        capabilities.append("message_bus")
        if bus.heard and bus.delivery:
            messaging.append(bus.delivery)
        if any(topic.ordered for topic in bus.topics):
            messaging.append("ordering")
    return ManifestCapabilities(capabilities=capabilities, messaging=sorted(messaging))
