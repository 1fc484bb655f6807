"""Every code block that users were shown as the way to use totoms, in a service: ``python readme.py PART``.

Under each heading stands one block. Slips are mended (`data` for `body`, names that a block leaves to its reader).
Where blocks define one function twice, the functions have names of their own. `test_promised_blocks.py` calls it.
"""

# ruff: noqa: E402, I001, ASYNC230 - the blocks bring their own imports, and open files as they were shown
# mypy: ignore-errors

import asyncio
import os
import sys
from datetime import datetime

from fastapi import Request
from totoms import (
    APIConfiguration,
    APIEndpoint,
    MessageBusConfig,
    MessageBusTopicConfig,
    TotoEnvironment,
    TotoMicroservice,
    TotoMicroserviceConfiguration,
    determine_envrionment,
)

# --- what the blocks leave to their reader ---

from totoms import ExecutionContext, TotoMessageHandler, UserContext, toto_delegate


async def process_blog(blog_url):
    return {"words": 42, "url": blog_url}


async def refresh_topic(topic_name, blog_url, user):
    print(f"refreshed {topic_name} {blog_url} {user}", flush=True)


class AnotherEventHandler(TotoMessageHandler):
    def get_handled_message_type(self):
        return "topicUpdated"

    async def process_message(self, message):
        print(f"updated {message.id} {message.data['name']} cid={message.cid}", flush=True)
        return ProcessingResponse(status=ProcessingStatus.SUCCESS)


@toto_delegate
async def test_refresher(request: Request, user_context: UserContext, exec_context: ExecutionContext):
    return {"key": exec_context.config.jwt_key is not None, "environment": exec_context.environment.hyperscaler}


# --- Create a Toto Delegate ---


@toto_delegate
async def extract_blog_content(request: Request, user_context: UserContext, exec_context: ExecutionContext):
    body = await request.json()

    blog_url = body.get("url")

    result = await process_blog(blog_url)

    return {"status": "success", "data": result}


# --- Register your delegate ---


def get_api_config() -> TotoMicroserviceConfiguration:
    return TotoMicroserviceConfiguration(
        service_name="my-service",
        base_path="/myservice",
        api_configuration=APIConfiguration(
            api_endpoints=[
                APIEndpoint(method="POST", path="/blogs", delegate=extract_blog_content),
            ]
        ),
    )


# --- Create a Message Handler ---

from totoms import TotoMessageHandler, ProcessingResponse, ProcessingStatus, TotoMessage


class TopicRefreshedEventHandler(TotoMessageHandler):
    def get_handled_message_type(self) -> str:
        return "topicRefreshed"

    async def process_message(self, message: TotoMessage) -> ProcessingResponse:
        correlation_id = message.cid
        message_id = message.id

        topic_name = message.data.get("name")
        blog_url = message.data.get("blogURL")
        user = message.data.get("user")

        self.logger.log(correlation_id, f"Processing topic refresh for: {topic_name}")

        await refresh_topic(topic_name, blog_url, user)
        print(f"handled {message_id} with {type(self.message_bus).__name__}", flush=True)

        return ProcessingResponse(status=ProcessingStatus.SUCCESS)


# --- Register a Message Handler ---

from totoms import MessageBusHandlerConfig


def get_messaging_config() -> TotoMicroserviceConfiguration:
    return TotoMicroserviceConfiguration(
        service_name="my-service",
        message_bus_configuration=MessageBusConfig(
            topics=[MessageBusTopicConfig(logical_name="topic-events", secret="topic_events_topic_name")],
            message_handlers=[
                MessageBusHandlerConfig(handler_class=TopicRefreshedEventHandler),
                MessageBusHandlerConfig(handler_class=AnotherEventHandler),
            ],
        ),
    )


# --- Publish Messages ---

from totoms import TotoMessage, MessageDestination


async def publish_topic_update(microservice, topic_id: str, topic_name: str):
    message = TotoMessage(
        type="topicUpdated",
        cid="correlation-id-123",
        id=topic_id,
        data={"name": topic_name, "timestamp": datetime.now().isoformat()},
    )

    destination = MessageDestination(topic="topic-events")

    await microservice.message_bus.publish_message(destination, message)


# --- Getting access to the Message Bus ---


class RepublishingHandler(TotoMessageHandler):
    def get_handled_message_type(self):
        return "requested"

    async def process_message(self, message):
        await self.message_bus.publish_message(MessageDestination(topic="tometopics"), refreshed("handler"))
        return ProcessingResponse(status=ProcessingStatus.SUCCESS)


def refreshed(way):
    return TotoMessage(type="topicRefreshed", data={"name": way, "blogURL": "https://blog.example", "user": "me"})


@toto_delegate
async def test_pubsub(request: Request, user_context: UserContext, exec_context: ExecutionContext):
    destination = MessageDestination(topic="tometopics")
    await exec_context.message_bus.publish_message(destination, refreshed("delegate"))
    await TotoMicroservice.get_instance().message_bus.publish_message(destination, refreshed("singleton"))
    await microservice.message_bus.publish_message(destination, refreshed("instance"))
    await exec_context.message_bus.publish_message(destination, TotoMessage(type="requested"))
    return {"published": 4}


# --- Load Secrets ---

from totoms import SecretsManager


def load_secrets():
    secrets = SecretsManager()

    api_key = secrets.get_secret("api-key")
    database_url = secrets.get_secret("database-url")
    return api_key, database_url


# --- Custom Configurations ---

from totoms.model.TotoConfig import TotoControllerConfig
from typing import Optional, Dict  # noqa: UP035 - as shown


class TomeScraperConfig(TotoControllerConfig):
    def get_mongo_secret_names(self) -> Optional[Dict[str, str]]:  # noqa: UP006, UP045 - as shown
        return None

    async def load(self):
        await super().load()
        self.api_key = self.secrets_manager.get_secret("api-key")
        return self


# --- Overview ---


def get_overview_config():
    return TotoMicroserviceConfiguration(
        service_name="toto-ms-tome-scraper",
        base_path="/tomescraper",
        environment=TotoEnvironment(
            hyperscaler=os.getenv("HYPERSCALER", "aws").lower(), hyperscaler_configuration=determine_envrionment()
        ),
        custom_config=TomeScraperConfig,
        api_configuration=APIConfiguration(
            api_endpoints=[
                APIEndpoint(method="POST", path="/blogs", delegate=extract_blog_content),
                APIEndpoint(method="POST", path="/test/refresher", delegate=test_refresher),
                APIEndpoint(method="POST", path="/test/pubsub", delegate=test_pubsub),
            ]
        ),
        message_bus_configuration=MessageBusConfig(
            topics=[MessageBusTopicConfig(logical_name="tometopics", secret="tome_topics_topic_name")],
            message_handlers=[
                MessageBusHandlerConfig(handler_class=TopicRefreshedEventHandler),
                MessageBusHandlerConfig(handler_class=RepublishingHandler),
            ],
        ),
    )


# --- Using Cloud Storage: getting an instance, then each operation ---

from fastapi import Request
from totoms import toto_delegate, ExecutionContext, UserContext, ValidationError


@toto_delegate
async def handle_file_upload(request: Request, user_context: UserContext, exec_context: ExecutionContext):
    bucket_name = request.query_params.get("bucket")

    if not bucket_name:
        raise ValidationError("Missing 'bucket' query parameter.")

    storage = exec_context.get_storage(bucket_name)

    # Uploading Files
    local_file_path = "./hello.txt"

    with open(local_file_path, "w") as f:
        f.write("Hello, Toto!")

    destination_path = "my-folder/hello.txt"
    storage.upload_file(local_file_path, destination_path)

    exec_context.logger.log(exec_context.cid, f"Uploaded file to {destination_path}")

    # Downloading Files
    source_path = "my-folder/hello.txt"
    local_destination = "./downloaded_hello.txt"

    storage.download_file(source_path, local_destination)

    exec_context.logger.log(exec_context.cid, f"Downloaded file to {local_destination}")

    # Listing Files
    files = storage.list_files("my-folder/")

    exec_context.logger.log(exec_context.cid, f"Files in bucket: {files}")

    for file_path in files:
        exec_context.logger.log(exec_context.cid, f"  - {file_path}")

    # Getting File Content
    file_path = "my-folder/hello.txt"
    content = storage.get_file_content(file_path)

    exec_context.logger.log(exec_context.cid, f"File content: {content}")

    # Deleting Files
    file_path = "my-folder/hello.txt"
    storage.delete_file(file_path)

    exec_context.logger.log(exec_context.cid, f"Deleted file: {file_path}")

    return {"files": files, "content": content, "left": storage.list_files("my-folder/")}


def get_storage_config():
    return TotoMicroserviceConfiguration(
        service_name="files",
        api_configuration=APIConfiguration(
            api_endpoints=[APIEndpoint(method="POST", path="/files", delegate=handle_file_upload)]
        ),
    )


# --- the service ---

PARTS = {
    "overview": get_overview_config,
    "api": get_api_config,
    "messaging": get_messaging_config,
    "storage": get_storage_config,
}


async def main(part):
    global microservice
    get_microservice_config = PARTS[part]

    microservice = await TotoMicroservice.init(get_microservice_config())
    if part == "overview":
        print(f"secrets {load_secrets()} {microservice.config.api_key}", flush=True)
    if part == "messaging":
        asyncio.get_running_loop().create_task(publish_when_ready())
    await microservice.start(port=0)


async def publish_when_ready():
    while microservice.state != "ready":
        await asyncio.sleep(0.01)
    await publish_topic_update(microservice, "topic-7", "Python")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
