"""NATS on this machine, for the demo: a nats-server, with what an operator would make."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from example import Needs


@contextlib.contextmanager
def nats(needs: Needs) -> Iterator[None]:
    """Run a nats-server, which keeps its data, with what `needs` names."""
    from totoms_nats.configuration import NatsConfiguration
    from totoms_nats.testing.operator import Operator
    from totoms_nats.testing.server import NatsServer, find

    if find() is None:
        sys.exit("There is no nats-server on this machine: apt-get install nats-server")
    folder = Path(os.environ.get("TOTOMS_LOCAL_ROOT", ".totoms")) / "nats"
    folder.mkdir(parents=True, exist_ok=True)
    with NatsServer(folder) as server:
        os.environ["NATS_URL"] = server.url
        operator = Operator(NatsConfiguration())
        for secret, topic in needs.topics.items():
            operator.make_topic(topic)
            operator.make_secret(secret, topic.encode())
        for bucket in needs.buckets:
            operator.make_bucket(bucket)
        for name, value in needs.random_secrets().items():
            operator.make_secret(name, value.encode())
        yield
