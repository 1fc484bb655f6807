"""Wrong declarations and their errors: one line with the field and the rule, without the value."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from support.declarations import WrongDeclarations, each, error_of
from totoms import (
    APIEndpoint,
    Bucket,
    LogConfiguration,
    MessageBusConfig,
    Resources,
    TotoMicroserviceConfiguration,
)

BUCKET_RULE = (
    "A bucket name has 3 to 222 lower-case letters, digits, '.', '-' and '_', the first and last a letter or digit, "
    "and no '..'."
)


async def check(config: Any) -> None: ...


def not_async(config: Any) -> None: ...


async def takes_nothing() -> None: ...


async def takes_two(config: Any, other: Any) -> None: ...


class NotAsync:
    def __call__(self, config: Any) -> None: ...


service = partial(TotoMicroserviceConfiguration, service_name="blog")

WRONG: WrongDeclarations = {
    "bucket name": (lambda: Bucket("Blog Files"), f"Bucket.name: {BUCKET_RULE}"),
    "bucket name that is not a string": (lambda: Bucket(7), f"Bucket.name: {BUCKET_RULE}"),  # type: ignore[arg-type]
    "bucket as a string": (
        lambda: Resources(buckets=["blog-files"]),
        'Resources.buckets.0: must be a Bucket, such as Bucket("blog-files")',
    ),
    "bucket twice": (
        lambda: Resources(buckets=[Bucket("blog-files"), Bucket("blog-files")]),
        "Resources.buckets: two buckets 'blog-files'",
    ),
    "secret twice": (
        lambda: Resources(secrets=["database-url", "database-url"]),
        "Resources.secrets: two secrets 'database-url'",
    ),
    "empty secret": (
        lambda: Resources(secrets=["database-url", ""]),
        "Resources.secrets.1: A secret name must be a non-empty string.",
    ),
    "long secret": (
        lambda: Resources(secrets=["x" * 256]),
        "Resources.secrets.0: A secret name has at most 255 characters.",
    ),
    "secret that is not a string": (
        lambda: Resources(secrets=[7]),
        "Resources.secrets.0: Input should be a valid string",
    ),
    "secrets as one string": (
        lambda: Resources(secrets="database-url"),
        "Resources.secrets: Input should be a valid list",
    ),
    "misspelt field of resources": (
        lambda: Resources(bucket=[Bucket("blog-files")]),
        "Resources.bucket: unknown field; did you mean 'buckets'?",
    ),
    "resources as a list": (
        lambda: service(resources=["database-url"]),
        "TotoMicroserviceConfiguration.resources: Input should be a valid dictionary or instance of Resources",
    ),
    "check that is not async": (
        lambda: service(readiness_checks=[not_async]),
        "TotoMicroserviceConfiguration.readiness_checks: not_async must be an async function: "
        "async def check(config) -> None",
    ),
    "check object that is not async": (
        lambda: service(readiness_checks=[NotAsync()]),
        "TotoMicroserviceConfiguration.readiness_checks: NotAsync must be an async function: "
        "async def check(config) -> None",
    ),
    "check that was called": (
        lambda: service(readiness_checks=[7]),
        "TotoMicroserviceConfiguration.readiness_checks: int must be an async function: "
        "async def check(config) -> None",
    ),
    "check without a list": (
        lambda: service(readiness_checks=check),
        "TotoMicroserviceConfiguration.readiness_checks: Input should be a valid list",
    ),
    "check without an argument": (
        lambda: service(readiness_checks=[takes_nothing]),
        "TotoMicroserviceConfiguration.readiness_checks: takes_nothing must take one argument, the service's config",
    ),
    "check with two arguments": (
        lambda: service(readiness_checks=[takes_two]),
        "TotoMicroserviceConfiguration.readiness_checks: takes_two must take one argument, the service's config",
    ),
    "check twice": (
        lambda: service(readiness_checks=[check, check]),
        "TotoMicroserviceConfiguration.readiness_checks: two readiness checks 'check'",
    ),
    "errors of the log": (
        lambda: LogConfiguration(errors="none"),
        "LogConfiguration.errors: Input should be 'text' or 'class'",
    ),
    "log as a string": (
        lambda: service(log="class"),
        "TotoMicroserviceConfiguration.log: Input should be a valid dictionary or instance of LogConfiguration",
    ),
    "lease of zero seconds": (
        lambda: MessageBusConfig(lease=0),
        "MessageBusConfig.lease: Input should be greater than 0",
    ),
    "lease without end": (
        lambda: MessageBusConfig(lease=float("inf")),
        "MessageBusConfig.lease: Input should be a finite number",
    ),
    "arguments out of order": (
        lambda: TotoMicroserviceConfiguration("blog", "/blog"),
        "TotoMicroserviceConfiguration.environment: Input should be a dictionary or an instance of TotoEnvironment "
        "(given as argument 2: name the arguments, as in environment=...)",
    ),
    "method and path out of order": (
        lambda: APIEndpoint("/posts", "GET", check),
        "APIEndpoint.method: must be one of GET, POST, PUT, DELETE, PATCH, OPTIONS, HEAD "
        "(given as argument 1: name the arguments, as in method=...); "
        "APIEndpoint.path: must start with '/' and not contain '//', '?', '#' or white space "
        "(given as argument 2: name the arguments, as in path=...)",
    ),
}


@each(WRONG)
def test_wrong_declaration_is_refused_with_the_field_and_the_rule(declare: Callable[[], object], message: str) -> None:
    assert error_of(declare) == message
