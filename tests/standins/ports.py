"""Ports for servers that take a port as an argument, and for servers that stop and start again on their port."""

from __future__ import annotations

import socket


def free_port() -> int:
    """Return a free port, reserved with `reserve`."""
    return reserve(0)


def reserve(port: int) -> int:
    """Keep the system from assigning a port to another process for a minute, and return it.

    A connection that was closed here first stays in the state TIME-WAIT. As long as it does, its port is not among
    those that the system chooses from, but a server that sets SO_REUSEADDR, as all of ours do, can still listen
    there. Without that, of several processes that test one may be given the port of a server that another is just
    starting or has stopped for a while, and either would talk to the other's server.

    Args:
        port: A free port; 0 for any.

    Raises:
        OSError: The port is in use.
    """
    with socket.create_server(("127.0.0.1", port)) as listening:
        port = listening.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as connection:
            ours = False
            while not ours:  # clients of a server that was stopped may try to come back meanwhile
                accepted, client = listening.accept()
                accepted.close()
                ours = client == connection.getsockname()
            connection.recv(1)
    return port
