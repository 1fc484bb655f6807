"""The blog for `make demo`: what it needs in a cloud, and three lines to paste."""

import json
import re
import shlex
from datetime import datetime

import example

from service import get_microservice_config
from totoms import SecretsManager, TotoMicroserviceConfiguration
from totoms.auth.tokens import make_token


class Example(example.Example):
    """The blog."""

    needs = example.Needs(topics={"posts-topic": "blog-posts"}, buckets=["blog"], secrets=["digest-key"])

    def configuration(self) -> TotoMicroserviceConfiguration:
        """See `example.Example`."""
        return get_microservice_config()

    async def announcement(self, address: str) -> str:
        """Return three curl lines, each good on its own."""
        key = await SecretsManager().get_secret_async("jwt-signing-key")
        token = make_token(key, "me@example.com", 24 * 3600, {"roles": ["author"]})
        # A title of its own each time, so that the lines work on a blog that is there already.
        title = f"Hello at {datetime.now():%H:%M:%S}"
        slug = re.sub("[^a-z0-9]+", "-", title.lower())
        caller = f"-H 'Authorization: Bearer {token}'"
        body = json.dumps({"title": title, "text": "My first post."})
        post = f"-H 'Content-Type: application/json' -d {shlex.quote(body)}"
        lines = [
            "Store a post, read it, and read the digest that a message handler wrote:",
            f"curl -s {caller} {post} {address}/blog/posts",
            f"curl -s {caller} {address}/blog/posts/{slug}",
            f"curl -s {caller} {address}/blog/digest",
        ]
        return "\n\n".join(lines)
