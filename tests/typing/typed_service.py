"""Read by type checkers only: a service as users write it, with the types they may rely on."""

from collections.abc import Sequence
from typing import Any, assert_type

from fastapi import FastAPI, Request

import totoms
from totoms import (
    APIConfiguration,
    APIEndpoint,
    BackendError,
    Bucket,
    CloudStorage,
    CORSConfiguration,
    Delivery,
    ExecutionContext,
    HyperscalerConfiguration,
    LogConfiguration,
    MessageBus,
    MessageBusConfig,
    MessageBusHandlerConfig,
    MessageBusTopicConfig,
    MessageDestination,
    OIDCIssuer,
    ProcessingResponse,
    ProcessingStatus,
    Resources,
    RetryPolicy,
    SecretsManager,
    TotoControllerConfig,
    TotoEnvironment,
    TotoLogger,
    TotoMessage,
    TotoMessageHandler,
    TotoMicroservice,
    TotoMicroserviceConfiguration,
    UserContext,
    ValidationError,
    toto_delegate,
)


class BlogConfig(TotoControllerConfig):
    api_key: str = ""

    async def load(self) -> "BlogConfig":
        await super().load()
        self.api_key = await self.secrets_manager.get_secret_async("api-key")
        return self

    def get_mongo_secret_names(self) -> dict[str, str] | None:
        return {"user_secret_name": "mongo-user", "pwd_secret_name": "mongo-pwd"}

    async def close(self) -> None:
        self.api_key = ""


async def key_is_there(config: BlogConfig) -> None:
    assert_type(config.api_key, str)


def in_full() -> TotoMicroserviceConfiguration:
    return TotoMicroserviceConfiguration(
        service_name="blog",
        custom_config=BlogConfig,
        resources=Resources(buckets=[Bucket("blog-files")], secrets=["api-key"]),
        readiness_checks=[key_is_there],
        log=LogConfiguration(errors="class"),
    )


@toto_delegate
async def read_key(user_context: UserContext, exec_context: ExecutionContext[BlogConfig]) -> str:
    assert_type(exec_context.config, BlogConfig)
    return exec_context.config.api_key


@toto_delegate
async def create_post(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> dict[str, Any]:
    body = await request.json()
    if not body.get("title"):
        raise ValidationError("Missing title")
    assert_type(exec_context.logger, TotoLogger)
    assert_type(exec_context.cid, str)
    assert_type(exec_context.config, Any)  # bare, it may be any class of the service's own
    assert_type(exec_context.environment, TotoEnvironment)
    assert_type(user_context.email, str | None)
    storage = exec_context.get_storage("posts")
    assert_type(storage, CloudStorage)
    assert_type(storage.get_file_content("a.txt"), str | None)
    assert_type(storage.list_files("a/"), list[str])
    if exec_context.message_bus:
        message = TotoMessage(type="postCreated", data=body)
        assert_type(await exec_context.message_bus.publish_message(MessageDestination(topic="posts"), message), str)
    return {"status": "created"}


@toto_delegate
def in_a_thread(request: Request, user_context: UserContext, exec_context: ExecutionContext, limit: int = 10) -> int:
    return limit


class PostCreatedHandler(TotoMessageHandler):
    def get_handled_message_type(self) -> str:
        return "postCreated"

    async def process_message(self, message: TotoMessage) -> ProcessingResponse:
        assert_type(message.cid, str)
        assert_type(message.delivery, Delivery | None)
        assert_type(self.config, Any)  # bare, it may be any class of the service's own
        assert_type(self.message_bus, MessageBus)
        assert_type(self.environment, TotoEnvironment)
        self.logger.log(message.cid, "Handling", "WARNING")
        return ProcessingResponse(status=ProcessingStatus.SUCCESS)


def configuration() -> TotoMicroserviceConfiguration:
    return TotoMicroserviceConfiguration(
        service_name="blog",
        base_path="/blog",
        environment=TotoEnvironment("local"),
        custom_config=BlogConfig,
        api_configuration=APIConfiguration(
            api_endpoints=[
                APIEndpoint(method="POST", path="/posts", delegate=create_post),
                APIEndpoint(method="GET", path="/posts", delegate=in_a_thread),
            ],
            cors=CORSConfiguration(allow_origins=["https://blog.example"], allow_credentials=True),
            oidc_issuers=[OIDCIssuer(issuer="https://id.example", audience="blog", jwks_uri="https://id.example/keys")],
        ),
        message_bus_configuration=MessageBusConfig(
            topics=[MessageBusTopicConfig(logical_name="posts", secret="posts_topic", ordered=True)],
            message_handlers=[MessageBusHandlerConfig(handler_class=PostCreatedHandler)],
            delivery="pull",
            retry=RetryPolicy(max_attempts=3),
        ),
    )


async def main() -> None:
    microservice = await TotoMicroservice.init(configuration())
    assert_type(microservice, TotoMicroservice)
    assert_type(TotoMicroservice.get_instance(), TotoMicroservice)
    assert_type(microservice.app, FastAPI)
    assert_type(microservice.message_bus, MessageBus)
    assert_type(SecretsManager().get_secret("api-key"), str)
    assert_type(CloudStorage("posts"), CloudStorage)
    assert_type(totoms.__version__, str)
    await microservice.start(port=8080)


async def publish_many(bus: MessageBus, messages: Sequence[TotoMessage]) -> None:
    results = await bus.publish_messages(MessageDestination(topic="posts"), messages)
    assert_type(results, list[str | BackendError])


def settings(environment: TotoEnvironment) -> HyperscalerConfiguration:
    given: HyperscalerConfiguration = environment.hyperscaler_configuration
    return given
