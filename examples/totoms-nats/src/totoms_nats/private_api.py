"""What nats-py and nats-server do not promise, and this package uses: why, and what happens without it.

The tests in ``tests/test_nats_private_api.py`` fail when one of them has changed.
"""

from __future__ import annotations

from nats.aio.client import Client


def keep_reconnecting(client: Client) -> None:
    """Have a connected client reconnect from now on.

    A client that may reconnect also repeats its first connect, so it would retry wrong credentials forever instead of
    reporting them. nats-py reads the option again whenever a connection breaks. Should it stop doing so, the client
    closes with the first break, and `Connection.client` makes a new one.
    """
    client.options["allow_reconnect"] = True


def is_denied_publish(error: Exception) -> bool:
    """Return whether the server denied the client permission to publish to a subject.

    nats-py has no class for it, and the request itself gets no answer. Unrecognised, the request times out and is
    reported as `Unavailable` instead of `AccessDenied`.
    """
    return "permissions violation for publish" in str(error).lower()


def is_refused_login(error: Exception) -> bool:
    """Return whether the server refused the credentials at connect.

    nats-py raises its base class with the server's text. Unrecognised, it is reported as `Unavailable` instead of
    `AccessDenied`.
    """
    return "authorization violation" in str(error).lower()
