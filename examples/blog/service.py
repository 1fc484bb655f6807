"""A blog, declared: endpoints that write and read posts, an event, a handler that keeps a signed digest.

POST /blog/posts          store a post and publish `PostCreated`; for authors only
GET  /blog/posts/{slug}   read it
GET  /blog/digest         read what the handler wrote about all posts
"""

import asyncio
import hashlib
import hmac
import re
import sqlite3
from typing import Annotated

from fastapi import HTTPException, Path
from pydantic import BaseModel, Field
from starlette.types import ASGIApp

from totoms import (
    APIConfiguration,
    APIEndpoint,
    Bucket,
    ExecutionContext,
    MessageBusConfig,
    MessageBusHandlerConfig,
    MessageBusTopicConfig,
    MessageDestination,
    PreconditionFailed,
    Requires,
    Resources,
    TotoControllerConfig,
    TotoEvent,
    TotoMessage,
    TotoMicroservice,
    TotoMicroserviceConfiguration,
    UserContext,
    ValidationError,
    toto_delegate,
    toto_handler,
)

BUCKET = "blog"
Slug = Annotated[str, Path(pattern="^[a-z0-9-]+$", max_length=200)]


class PostCreated(TotoEvent, type="postCreated"):
    slug: str
    title: str


class NewPost(BaseModel):
    title: str = Field(min_length=1, max_length=200)
    text: str = Field(min_length=1, max_length=100_000)


class Post(BaseModel):
    slug: str
    author: str | None
    title: str
    text: str


class DigestEntry(BaseModel):
    slug: str
    title: str
    signature: str


class Digest(BaseModel):
    entries: list[DigestEntry]


class BlogConfig(TotoControllerConfig):
    """What the service has in each process: a secret, and a cache of posts."""

    digest_key: bytes
    cache: sqlite3.Connection

    async def load(self) -> "BlogConfig":
        await super().load()
        self.digest_key = (await self.secrets_manager.get_secret_async("digest-key")).encode()
        # Without a name it is a temporary file: many posts need little memory, and closing it deletes them.
        self.cache = sqlite3.connect("", isolation_level=None)
        self.cache.execute("CREATE TABLE posts (slug TEXT PRIMARY KEY, content TEXT NOT NULL)")
        return self

    async def close(self) -> None:
        self.cache.close()

    def cached(self, slug: str) -> str | None:
        """Return a post that this process has read before. Posts never change, so it is up to date."""
        row = self.cache.execute("SELECT content FROM posts WHERE slug = ?", [slug]).fetchone()
        return row[0] if row else None

    def keep(self, slug: str, content: str) -> None:
        """Put a post into the cache."""
        self.cache.execute("INSERT OR IGNORE INTO posts VALUES (?, ?)", [slug, content])


Context = ExecutionContext[BlogConfig]


async def cache_answers(config: BlogConfig) -> None:
    """Raise if the cache cannot be read: then `/ready` answers 503, and names this function."""
    config.cache.execute("SELECT 1 FROM posts LIMIT 1")


# FastAPI validates `post` and shows it in /docs; totoms supplies the caller and the context.
@toto_delegate
async def create_post(user_context: UserContext, exec_context: Context, post: NewPost) -> dict[str, str]:
    slug = re.sub(r"[^a-z0-9]+", "-", post.title.lower()).strip("-")
    if not slug:
        raise ValidationError("The title needs a letter or a digit.")
    stored = Post(slug=slug, author=user_context.email, title=post.title, text=post.text)
    storage = exec_context.get_storage(BUCKET)
    try:
        await storage.upload_bytes_async(stored.model_dump_json().encode(), f"posts/{slug}.json", if_absent=True)
    except PreconditionFailed:
        raise HTTPException(409, f"There is a post {slug} already.") from None
    # Published with the request's correlation id, so that both can be found in the log.
    event = PostCreated(slug=slug, title=post.title)
    await exec_context.message_bus.publish_message(MessageDestination(topic="posts"), event)
    exec_context.logger.log(exec_context.cid, f"Stored {slug}")
    return {"slug": slug}


@toto_delegate
async def read_post(exec_context: Context, slug: Slug) -> Post:
    content = exec_context.config.cached(slug)
    if content is None:
        content = await exec_context.get_storage(BUCKET).get_file_content_async(f"posts/{slug}.json")
        if content is None:
            raise HTTPException(404, "There is no such post.")
        exec_context.config.keep(slug, content)
    return Post.model_validate_json(content)


@toto_delegate
async def read_digest(exec_context: Context) -> Digest:
    storage = exec_context.get_storage(BUCKET)
    names = await storage.list_files_async("digest/")
    contents = await asyncio.gather(*(storage.get_file_content_async(name) for name in names))
    return Digest(entries=[DigestEntry.model_validate_json(content) for content in contents if content])


@toto_handler
async def add_to_digest(message: TotoMessage[PostCreated], exec_context: Context) -> None:
    """Write one signed digest entry. Handling a message twice writes the same entry again."""
    slug, title = message.data.slug, message.data.title
    signature = hmac.new(exec_context.config.digest_key, f"{slug}\n{title}".encode(), hashlib.sha256).hexdigest()
    entry = DigestEntry(slug=slug, title=title, signature=signature).model_dump_json()
    await exec_context.get_storage(BUCKET).upload_bytes_async(entry.encode(), f"digest/{slug}.json")
    exec_context.logger.log(exec_context.cid, f"Added {slug} to the digest")


def get_microservice_config() -> TotoMicroserviceConfiguration:
    """Declare the service. Where it runs is left to the variable HYPERSCALER."""
    return TotoMicroserviceConfiguration(
        service_name="blog",
        base_path="/blog",
        custom_config=BlogConfig,
        api_configuration=APIConfiguration(
            api_endpoints=[
                APIEndpoint(
                    method="POST",
                    path="/posts",
                    delegate=create_post,
                    status_code=201,
                    requires=Requires(roles={"author"}),
                ),
                APIEndpoint(method="GET", path="/posts/{slug}", delegate=read_post),
                APIEndpoint(method="GET", path="/digest", delegate=read_digest),
            ]
        ),
        message_bus_configuration=MessageBusConfig(
            topics=[MessageBusTopicConfig(logical_name="posts", secret="posts-topic", publishes=[PostCreated])],
            message_handlers=[MessageBusHandlerConfig(handler=add_to_digest, topic="posts")],
        ),
        # Looked for when the service starts: what is missing is named at once, not by the first request.
        resources=Resources(buckets=[Bucket(BUCKET)], secrets=["digest-key"]),
        readiness_checks=[cache_answers],
    )


def app() -> ASGIApp:
    """For other servers, with several workers: ``uvicorn --factory service:app --workers 4``."""
    return TotoMicroservice.asgi(get_microservice_config())


if __name__ == "__main__":
    TotoMicroservice.run(get_microservice_config())
