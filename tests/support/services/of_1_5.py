"""A service as they were written for totoms 1.5.0, import line by import line. Not to be modernised."""

# ruff: noqa: UP006, UP035, UP045, ASYNC230 - the style of its time

import asyncio
import os
from dataclasses import dataclass
from typing import Dict, List, Optional

from fastapi import Request
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel
from totoms.auth.TotoToken import new_toto_service_token
from totoms.evt.MessageDestination import MessageDestination
from totoms.evt.TotoMessage import TotoMessage
from totoms.evt.TotoMessageBus import TotoMessageBus
from totoms.evt.TotoMessageHandler import ProcessingResponse, ProcessingStatus, TotoMessageHandler
from totoms.model.exceptions.ValidationError import ValidationError
from totoms.model.ExecutionContext import ExecutionContext
from totoms.model.TotoAPIEndpoint import APIEndpoint
from totoms.model.TotoConfig import TotoControllerConfig
from totoms.model.TotoEnvironment import AWSConfiguration, GCPConfiguration, TotoEnvironment
from totoms.model.UserContext import UserContext
from totoms.secrets.SecretsManager import SecretsManager
from totoms.storage.CloudStorage import CloudStorage
from totoms.TotoDelegateDecorator import toto_delegate
from totoms.TotoLogger import TotoLogger
from totoms.TotoMicroservice import (
    APIConfiguration,
    MessageBusConfig,
    MessageBusHandlerConfig,
    MessageBusTopicConfig,
    TotoMicroservice,
    TotoMicroserviceConfiguration,
    determine_environment,
)


class BlogConfig(TotoControllerConfig):
    def __init__(self, environment: TotoEnvironment):
        super().__init__(environment)
        self.api_key: Optional[str] = None

    async def load(self) -> "BlogConfig":
        await super().load()
        self.api_key = self.secrets_manager.get_secret("blog-api-key")
        self.logger.log("INIT", "Blog configuration loaded")
        return self

    def get_mongo_secret_names(self) -> Optional[Dict[str, str]]:
        if os.environ.get("BLOG_SPELLING") == "generated":
            return {"mongo_user": "blog-mongo-user", "mongo_pswd": "blog-mongo-pswd"}
        return {"user_secret_name": "blog-mongo-user", "pwd_secret_name": "blog-mongo-pswd"}

    def is_path_excluded(self, path: str) -> bool:
        return super().is_path_excluded(path) or path == "/blog/open"


@dataclass
class Summary:
    posts: int
    titles: List[str]


class Preview(BaseModel):
    title: str
    words: int


class PostCreatedHandler(TotoMessageHandler):
    def __init__(self, config: TotoControllerConfig, message_bus: TotoMessageBus, environment: TotoEnvironment):
        super().__init__(config, message_bus, environment)
        self.seen: asyncio.Queue = asyncio.Queue()
        PostCreatedHandler.instance = self

    def get_handled_message_type(self) -> str:
        return "postCreated"

    async def process_message(self, message: TotoMessage) -> ProcessingResponse:
        self.logger.log(message.cid, f"Post created: {message.data.get('title')}")
        if message.data.get("fail"):
            return ProcessingResponse(status=ProcessingStatus.FAILED, error="as asked")
        await self.seen.put(
            {
                "cid": message.cid,
                "id": message.id,
                "title": message.data["title"],
                "hyperscaler": self.environment.hyperscaler,
                "apiKey": self.config.api_key is not None,
                "bus": self.message_bus is TotoMicroservice.get_instance().message_bus,
            }
        )
        return ProcessingResponse(status=ProcessingStatus.SUCCESS, response_payload={"seen": True})


@toto_delegate
async def get_post(request: Request, user_context: UserContext, exec_context: ExecutionContext):
    exec_context.logger.log(exec_context.cid, "Getting a post", "INFO")
    return {
        "id": request.path_params["id"],
        "lang": request.query_params.get("lang"),
        "user": user_context.email,
        "cid": exec_context.cid,
    }


@toto_delegate
async def create_post(request: Request, user_context: UserContext, exec_context: ExecutionContext):
    body = await request.json()
    if not body.get("title"):
        raise ValidationError("Missing title")
    message = TotoMessage(
        timestamp="2025.01.31 10:00:00",
        cid=exec_context.cid,
        id="post-1",
        type="postCreated",
        msg="A post was created",
        data={"title": body["title"]},
    )
    await exec_context.message_bus.publish_message(MessageDestination(topic="posts"), message)
    return {"published": True}


@toto_delegate
async def upload(request: Request, user_context: UserContext, exec_context: ExecutionContext):
    form = await request.form()
    file = form["file"]
    content = await file.read()
    with open(form["scratch"], "wb") as scratch:
        scratch.write(content)
    storage: CloudStorage = exec_context.get_storage("blog-files")
    storage.upload_file(form["scratch"], f"uploads/{file.filename}")
    return {
        "name": file.filename,
        "files": storage.list_files("uploads/"),
        "content": storage.get_file_content(f"uploads/{file.filename}"),
        "missing": storage.get_file_content("uploads/never"),
    }


@toto_delegate
async def summary(request: Request, user_context: UserContext, exec_context: ExecutionContext):
    return Summary(posts=1, titles=["first"])


@toto_delegate
async def preview(request: Request, user_context: UserContext, exec_context: ExecutionContext):
    return Preview(title="first", words=3)


@toto_delegate
async def raw(request: Request, user_context: UserContext, exec_context: ExecutionContext):
    return PlainTextResponse("raw text", status_code=201)


@toto_delegate
async def open_to_all(request: Request, user_context: UserContext, exec_context: ExecutionContext):
    return {"open": True}


@toto_delegate
async def settings(request: Request, user_context: UserContext, exec_context: ExecutionContext):
    config: BlogConfig = exec_context.config
    token = new_toto_service_token(config)
    return {
        "mongo": [config.mongo_host, config.mongo_user, config.mongo_pwd],
        "secret": SecretsManager(exec_context.environment).get_secret("blog-api-key") == config.api_key,
        "key": config.jwt_key is not None,
        "serviceToken": token.count("."),
        "cloud": isinstance(config.environment.hyperscaler_configuration, (AWSConfiguration, GCPConfiguration)),
    }


@toto_delegate
async def seen(request: Request, user_context: UserContext, exec_context: ExecutionContext):
    return await asyncio.wait_for(PostCreatedHandler.instance.seen.get(), 120)


def get_microservice_config() -> TotoMicroserviceConfiguration:
    return TotoMicroserviceConfiguration(
        service_name="toto-ms-blog",
        base_path="/blog",
        environment=TotoEnvironment(
            hyperscaler=os.getenv("HYPERSCALER", "aws").lower(), hyperscaler_configuration=determine_environment()
        ),
        custom_config=BlogConfig,
        api_configuration=APIConfiguration(
            api_endpoints=[
                APIEndpoint(method="GET", path="/posts/{id}", delegate=get_post),
                APIEndpoint(method="POST", path="/posts", delegate=create_post),
                APIEndpoint(method="POST", path="/uploads", delegate=upload),
                APIEndpoint(method="GET", path="/summary", delegate=summary),
                APIEndpoint(method="GET", path="/preview", delegate=preview),
                APIEndpoint(method="GET", path="/raw", delegate=raw),
                APIEndpoint(method="GET", path="/open", delegate=open_to_all),
                APIEndpoint(method="GET", path="/settings", delegate=settings),
                APIEndpoint(method="GET", path="/seen", delegate=seen),
            ]
        ),
        message_bus_configuration=MessageBusConfig(
            topics=[MessageBusTopicConfig(logical_name="posts", secret="blog_posts_topic_name")],
            message_handlers=[MessageBusHandlerConfig(handler_class=PostCreatedHandler)],
        ),
    )


async def main():
    microservice = await TotoMicroservice.init(get_microservice_config())
    TotoLogger.get_instance().log("INIT", f"Made {microservice.microservice_configuration.service_name}")
    await microservice.start(port=int(os.getenv("PORT", "8080")))


if __name__ == "__main__":
    asyncio.run(main())
