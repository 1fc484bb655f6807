"""A blog, declared: endpoints that write and read posts, a message, a handler that keeps a signed digest.

POST /blog/posts          store a post and publish `postCreated`
GET  /blog/posts/{slug}   read it
GET  /blog/digest         read what the handler wrote about all posts
"""

import asyncio
import hashlib
import hmac
import json
import re
from typing import Annotated, Any

from fastapi import HTTPException, Path, Request
from pydantic import BaseModel, Field
from starlette.types import ASGIApp

from totoms import (
    APIConfiguration,
    APIEndpoint,
    Bucket,
    CloudStorage,
    ExecutionContext,
    MessageBusConfig,
    MessageBusHandlerConfig,
    MessageBusTopicConfig,
    MessageDestination,
    PreconditionFailed,
    ProcessingResponse,
    ProcessingStatus,
    Resources,
    TotoControllerConfig,
    TotoMessage,
    TotoMessageHandler,
    TotoMicroservice,
    TotoMicroserviceConfiguration,
    UserContext,
    ValidationError,
    toto_delegate,
)

BUCKET = "blog"
Slug = Annotated[str, Path(pattern="^[a-z0-9-]+$", max_length=200)]


class BlogConfig(TotoControllerConfig):
    """The service's own settings: here a secret, read before the first request is taken."""

    digest_key: bytes

    async def load(self) -> "BlogConfig":
        await super().load()
        self.digest_key = (await self.secrets_manager.get_secret_async("digest-key")).encode()
        return self


class NewPost(BaseModel):
    title: str = Field(min_length=1, max_length=200)
    text: str = Field(min_length=1, max_length=100_000)


# The three parameters of every delegate, and a body that FastAPI validates and shows in /docs.
@toto_delegate
async def create_post(
    request: Request, user_context: UserContext, exec_context: ExecutionContext, post: NewPost
) -> dict[str, Any]:
    slug = re.sub(r"[^a-z0-9]+", "-", post.title.lower()).strip("-")
    if not slug:
        raise ValidationError("The title needs a letter or a digit.")
    stored = {"slug": slug, "author": user_context.email, **post.model_dump()}
    storage = exec_context.get_storage(BUCKET)
    try:
        await storage.upload_bytes_async(json.dumps(stored).encode(), f"posts/{slug}.json", if_absent=True)
    except PreconditionFailed:
        raise HTTPException(409, f"There is a post {slug} already.") from None
    # Published with the request's correlation id, so that both can be found in the log.
    message = TotoMessage(type="postCreated", id=slug, msg="A post was created", data={"title": post.title})
    await exec_context.message_bus.publish_message(MessageDestination(topic="posts"), message)
    exec_context.logger.log(exec_context.cid, f"Stored {slug}")
    return {"slug": slug}


@toto_delegate
async def read_post(
    request: Request, user_context: UserContext, exec_context: ExecutionContext, slug: Slug
) -> dict[str, Any]:
    content = await exec_context.get_storage(BUCKET).get_file_content_async(f"posts/{slug}.json")
    if content is None:
        raise HTTPException(404, "There is no such post.")
    return json.loads(content)


@toto_delegate
async def read_digest(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> dict[str, Any]:
    storage = exec_context.get_storage(BUCKET)
    names = await storage.list_files_async("digest/")
    contents = await asyncio.gather(*(storage.get_file_content_async(name) for name in names))
    return {"entries": [json.loads(content) for content in contents if content]}


class PostCreatedHandler(TotoMessageHandler):
    """Writes one digest entry per post, signed. Handling a message twice writes the same entry again."""

    def get_handled_message_type(self) -> str:
        return "postCreated"

    async def process_message(self, message: TotoMessage) -> ProcessingResponse:
        slug, title = message.id, message.data["title"]
        signature = hmac.new(self.config.digest_key, f"{slug}\n{title}".encode(), hashlib.sha256).hexdigest()
        entry = json.dumps({"slug": slug, "title": title, "signature": signature})
        storage = CloudStorage(BUCKET, self.logger, message.cid, environment=self.environment)
        await storage.upload_bytes_async(entry.encode(), f"digest/{slug}.json")
        self.logger.log(message.cid, f"Added {slug} to the digest")
        return ProcessingResponse(status=ProcessingStatus.SUCCESS)


def get_microservice_config() -> TotoMicroserviceConfiguration:
    """Declare the service. Where it runs is left to the variable HYPERSCALER."""
    return TotoMicroserviceConfiguration(
        service_name="blog",
        base_path="/blog",
        custom_config=BlogConfig,
        api_configuration=APIConfiguration(
            api_endpoints=[
                APIEndpoint(method="POST", path="/posts", delegate=create_post),
                APIEndpoint(method="GET", path="/posts/{slug}", delegate=read_post),
                APIEndpoint(method="GET", path="/digest", delegate=read_digest),
            ]
        ),
        message_bus_configuration=MessageBusConfig(
            topics=[MessageBusTopicConfig(logical_name="posts", secret="posts-topic")],
            message_handlers=[MessageBusHandlerConfig(handler_class=PostCreatedHandler)],
        ),
        # Looked for when the service starts: what is missing is named at once, not by the first request.
        resources=Resources(buckets=[Bucket(BUCKET)], secrets=["digest-key"]),
    )


def app() -> ASGIApp:
    """For other servers, with several workers: ``uvicorn --factory service:app --workers 4``."""
    return TotoMicroservice.asgi(get_microservice_config())


if __name__ == "__main__":
    TotoMicroservice.run(get_microservice_config())
