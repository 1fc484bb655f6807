"""What the blog opens at start: a cache of posts, which is closed at the end."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest

from support.demos import BLOG
from totoms.testing import TestMicroservice

AUTHOR = {"roles": ["author"]}


@pytest.fixture
def blog(monkeypatch: pytest.MonkeyPatch) -> TestMicroservice:
    monkeypatch.syspath_prepend(BLOG)
    from service import get_microservice_config

    return TestMicroservice(get_microservice_config(), secrets={"digest-key": "test-key"})


async def test_post_that_was_read_comes_from_the_cache_and_the_cache_is_closed(blog: TestMicroservice) -> None:
    async with blog:
        author = blog.client_of("me@example.com", claims=AUTHOR)
        await author.post("/blog/posts", json={"title": "Hello", "text": "World"})
        config: Any = blog.microservice.config
        assert config.cached("hello") is None
        read = (await author.get("/blog/posts/hello")).json()
        await blog.files("blog").delete_file_async("posts/hello.json")
        assert (await author.get("/blog/posts/hello")).json() == read

    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        config.cached("hello")


async def test_blog_is_not_ready_without_its_cache(blog: TestMicroservice) -> None:
    async with blog:
        config: Any = blog.microservice.config
        config.cache.close()
        ready = await blog.client.get("/ready")
        assert ready.status_code == 503
        assert ready.json()["checks"] == {"cache_answers": "ProgrammingError"}
