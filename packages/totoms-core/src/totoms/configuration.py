"""The declaration of a microservice. Validated when it is made; a mistake names its field."""

from __future__ import annotations

import difflib
import inspect
import re
from typing import Annotated, Any, Final, Literal, TypeVar

import pydantic
from pydantic import BaseModel, ConfigDict, Field

from totoms.config import TotoControllerConfig
from totoms.envelope import DeliveryMode, RetryPolicy
from totoms.environment import TotoEnvironment
from totoms.errors import ConfigurationError
from totoms.handlers import TotoMessageHandler

METHODS: Final = ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD")
_PATH: Final = re.compile(r"(/[^\s?#]*)?")
_NAME: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
_Item = TypeVar("_Item")


class _Declaration(BaseModel):
    """Positional arguments work in field order; what is wrong becomes a ConfigurationError."""

    # Built on first use: a program that only imports totoms does not pay for it.
    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, hide_input_in_errors=True, defer_build=True)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        fields = list(type(self).model_fields)
        if len(args) > len(fields):
            raise ConfigurationError(f"{type(self).__name__} takes at most {len(fields)} arguments.")
        try:
            super().__init__(**dict(zip(fields, args, strict=False)), **kwargs)
        except pydantic.ValidationError as error:
            raise ConfigurationError(_explain(type(self).__name__, fields, error)) from None


def _explain(name: str, fields: list[str], error: pydantic.ValidationError) -> str:
    # Only the field and the rule are told: the value may be a secret.
    problems = []
    for problem in error.errors(include_input=False, include_url=False, include_context=False):
        where = ".".join(str(part) for part in problem["loc"]) or "configuration"
        text = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            close = difflib.get_close_matches(str(problem["loc"][-1]), fields, n=1, cutoff=0.5)
            text = "unknown field" + (f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(fields)}")
        problems.append(f"{name}.{where}: {text}")
    return "; ".join(problems)


def _path(value: str) -> str:
    if not _PATH.fullmatch(value) or "//" in value:
        raise ValueError("must start with '/' and hold no '//', '?', '#' or white space")
    if not re.fullmatch(r"(?:[^{}]|\{[A-Za-z_][A-Za-z0-9_]*(?::[a-z]+)?\})*", value):
        raise ValueError("has a malformed {parameter}")
    return value


def _service_name(value: str) -> str:
    if not re.fullmatch(_NAME, value):
        raise ValueError("must be 1 to 128 letters, digits, '.', '_' or '-', the first a letter or digit")
    return value


class APIEndpoint(_Declaration):
    """One HTTP endpoint.

    Attributes:
        method: GET, POST, PUT, DELETE, PATCH, OPTIONS or HEAD.
        path: Below the base path; ``/posts/{id}`` declares a path parameter.
        delegate: A function decorated with ``@toto_delegate``.
    """

    method: Annotated[str, pydantic.BeforeValidator(lambda value: value.upper() if isinstance(value, str) else value)]
    path: Annotated[str, pydantic.AfterValidator(_path)]
    delegate: Any

    @pydantic.field_validator("method")
    @classmethod
    def _known_method(cls, value: str) -> str:
        value = getattr(value, "value", value)
        if value not in METHODS:
            raise ValueError("must be one of " + ", ".join(METHODS))
        return value

    @pydantic.field_validator("delegate")
    @classmethod
    def _callable(cls, value: Any) -> Any:
        if not callable(value):
            raise ValueError("must be a function decorated with @toto_delegate")
        return value


class CORSConfiguration(_Declaration):
    """Cross-origin rules (https://fetch.spec.whatwg.org/#http-cors-protocol). Default: any origin, no credentials.

    Attributes:
        allow_origins: Origins, or ``["*"]``.
        allow_credentials: Whether browsers may send cookies; needs origins by name.
        allow_methods: Methods, or ``["*"]``.
        allow_headers: Request headers, or ``["*"]``.
        max_age: Seconds a browser may remember the answer.
    """

    allow_origins: list[str] = Field(default_factory=lambda: ["*"])
    allow_credentials: bool = False
    allow_methods: list[str] = Field(default_factory=lambda: ["*"])
    allow_headers: list[str] = Field(default_factory=lambda: ["*"])
    max_age: int = 600

    @pydantic.model_validator(mode="after")
    def _no_credentials_for_any(self) -> CORSConfiguration:
        if self.allow_credentials and "*" in self.allow_origins:
            raise ValueError("allow_credentials needs allow_origins by name: any site could act as the user")
        return self


class OIDCIssuer(_Declaration):
    """An OpenID Connect issuer whose ID tokens are accepted (https://openid.net/specs/openid-connect-core-1_0.html).

    Attributes:
        issuer: The exact value of the ``iss`` claim.
        audience: The exact value that the ``aud`` claim must hold.
        jwks_uri: Address of the issuer's public keys (RFC 7517), https.
        user_claim: The claim that becomes `UserContext.email`.
        algorithm: The one signature algorithm accepted.
        require_email_verified: Whether ``email_verified`` must be true.
    """

    issuer: str
    audience: str
    jwks_uri: str
    user_claim: str = "email"
    algorithm: Literal["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"] = "RS256"
    require_email_verified: bool = True

    @pydantic.field_validator("jwks_uri")
    @classmethod
    def _https(cls, value: str) -> str:
        if not re.match(r"https://|http://(127\.0\.0\.1|localhost|\[::1\])[:/]", value):
            raise ValueError("must be https (plain http only to this machine)")
        return value


class APIConfiguration(_Declaration):
    """The HTTP side of a service.

    Attributes:
        api_endpoints: The endpoints.
        cors: Cross-origin rules; None for no CORS at all.
        oidc_issuers: Issuers whose tokens are accepted besides the service's own and Google's.
        max_body_bytes: Larger request bodies are refused with 413.
    """

    api_endpoints: list[APIEndpoint] = Field(default_factory=list)
    cors: CORSConfiguration | None = Field(default_factory=CORSConfiguration)
    oidc_issuers: list[OIDCIssuer] = Field(default_factory=list)
    max_body_bytes: Annotated[int, Field(gt=0)] = 10 * 1024 * 1024

    @pydantic.field_validator("api_endpoints", "oidc_issuers", mode="before")
    @classmethod
    def _none_is_empty(cls, value: Any) -> Any:
        return [] if value is None else value

    @pydantic.field_validator("api_endpoints")
    @classmethod
    def _distinct(cls, value: list[APIEndpoint]) -> list[APIEndpoint]:
        _refuse_duplicates("endpoint", [f"{endpoint.method} {endpoint.path}" for endpoint in value])
        return value


class MessageBusTopicConfig(_Declaration):
    """A topic the service publishes to and, when it has handlers, subscribes to.

    Attributes:
        logical_name: The name it has in code.
        secret: The name of the secret that holds the provider's identifier of it.
        subscription: The name of the service's subscription; by default ``{service_name}-{logical_name}``.
        ordered: Whether messages with one ordering key are handled in order.
    """

    logical_name: Annotated[str, Field(min_length=1)]
    secret: Annotated[str, Field(min_length=1)]
    subscription: Annotated[str, Field(min_length=1)] | None = None
    ordered: bool = False


class MessageBusHandlerConfig(_Declaration):
    """A message handler.

    Attributes:
        handler_class: A subclass of `TotoMessageHandler`, constructed once with (config, message_bus, environment).
    """

    handler_class: type[TotoMessageHandler]

    @pydantic.field_validator("handler_class", mode="before")
    @classmethod
    def _is_handler(cls, value: Any) -> Any:
        if not (inspect.isclass(value) and issubclass(value, TotoMessageHandler)):
            raise ValueError("must be a subclass of TotoMessageHandler")
        missing = sorted(getattr(value, "__abstractmethods__", ()))
        if missing:
            raise ValueError(f"{value.__name__} does not implement {', '.join(missing)}")
        return value


class MessageBusConfig(_Declaration):
    """The messaging side of a service.

    Attributes:
        topics: The topics it publishes to and subscribes to.
        message_handlers: What reacts, by message type.
        delivery: ``"push"`` or ``"pull"``; left out, the backend's habit.
        create_subscriptions: Whether missing subscriptions are made at start; if not, infrastructure is never touched.
        max_concurrency: Messages handled at the same time, per subscription (PULL) and for the push endpoint.
        retry: Attempts and backoff before a message is dead-lettered.
        handler_timeout: Seconds after which a handler is cancelled and the message comes again.
    """

    topics: list[MessageBusTopicConfig] = Field(default_factory=list)
    message_handlers: list[MessageBusHandlerConfig] = Field(default_factory=list)
    delivery: DeliveryMode | None = None
    create_subscriptions: bool = True
    max_concurrency: Annotated[int, Field(gt=0, le=10_000)] = 16
    retry: RetryPolicy = Field(default_factory=RetryPolicy)
    handler_timeout: Annotated[float, Field(gt=0)] = 3600.0

    @pydantic.field_validator("topics", "message_handlers", mode="before")
    @classmethod
    def _none_is_empty(cls, value: Any) -> Any:
        return [] if value is None else value

    @pydantic.field_validator("topics")
    @classmethod
    def _distinct_topics(cls, value: list[MessageBusTopicConfig]) -> list[MessageBusTopicConfig]:
        _refuse_duplicates("topic", [topic.logical_name for topic in value])
        return value

    @pydantic.field_validator("message_handlers")
    @classmethod
    def _distinct_handlers(cls, value: list[MessageBusHandlerConfig]) -> list[MessageBusHandlerConfig]:
        _refuse_duplicates(
            "handler", [f"{handler.handler_class.__module__}.{handler.handler_class.__qualname__}" for handler in value]
        )
        return value


class TotoMicroserviceConfiguration(_Declaration):
    """A whole microservice.

    Attributes:
        service_name: Names it in logs, in ``/health`` and in its subscriptions.
        base_path: Prefix of every endpoint, such as ``/blog``; none by default.
        environment: Where it runs; left out, ``HYPERSCALER`` decides, else ``local``.
        custom_config: A subclass of `TotoControllerConfig`.
        api_configuration: HTTP endpoints.
        message_bus_configuration: Topics and message handlers.
        shutdown_grace: Seconds that running requests and handlers may take to finish after SIGTERM.
    """

    service_name: Annotated[str, pydantic.AfterValidator(_service_name)]
    environment: TotoEnvironment | None = None
    custom_config: type[TotoControllerConfig] = TotoControllerConfig
    base_path: Annotated[str, pydantic.AfterValidator(_path)] = ""
    api_configuration: APIConfiguration | None = None
    message_bus_configuration: MessageBusConfig | None = None
    shutdown_grace: Annotated[float, Field(ge=0)] = 25.0

    @pydantic.field_validator("base_path", mode="before")
    @classmethod
    def _normal_base_path(cls, value: Any) -> Any:
        return "" if value is None else value.rstrip("/") if isinstance(value, str) else value


def _refuse_duplicates(what: str, names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two {what}s {name!r}")
