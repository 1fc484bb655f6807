"""The recipe for Gale agents in docs/migrating.md, run as it is written, with a broker that records what it is sent."""

from __future__ import annotations

import json
import queue
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest

from support.processes import Process
from totoms.auth.tokens import make_token

PAGE = Path(__file__).parents[2] / "docs" / "migrating.md"
KEY = "a-key-of-a-service-of-its-time-0123456789"


def recipe() -> str:
    (found,) = re.findall(r'```python\n("""A Gale agent.*?)```', PAGE.read_text(), re.DOTALL)
    return str(found)


@dataclass
class Broker:
    """Answers like the broker, and keeps what it was asked."""

    status: int = 200
    asked: queue.SimpleQueue[dict[str, Any]] = field(default_factory=queue.SimpleQueue)
    address: str = ""

    def serve(self) -> ThreadingHTTPServer:
        broker = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                broker.asked.put(
                    {
                        "line": f"{self.command} {self.path}",
                        "cid": self.headers["x-correlation-id"],
                        "claims": jwt.decode(self.headers["authorization"].split()[1], KEY, algorithms=["HS256"]),
                        "body": json.loads(body),
                    }
                )
                answer = b'{"modifiedCount":1}'
                self.send_response(broker.status)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            do_POST = do_PUT  # noqa: N815 - the name that the base class calls

            def log_message(self, format: str, *args: Any) -> None: ...

        return ThreadingHTTPServer(("127.0.0.1", 0), Handler)


@pytest.fixture
def broker() -> Iterator[Broker]:
    made = Broker()
    server = made.serve()
    made.address = f"http://127.0.0.1:{server.server_address[1]}/galebroker"
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield made
    server.shutdown()
    server.server_close()


def start(broker: Broker, folder: Path, base_url: str = "https://agents.example/myservice") -> Process:
    source = folder / "agent.py"
    source.write_text(recipe())
    variables = {
        "HYPERSCALER": "local",
        "PORT": "0",
        "JWT_SIGNING_KEY": KEY,
        "GALE_BROKER_URL": broker.address,
        "SERVICE_BASE_URL": base_url,
    }
    return Process(source, root=str(folder / "root"), env=variables)


INCOMING = {
    "conversationId": "conversation-1",
    "messageId": "message-1",
    "actor": "user",
    "agentId": "my-agent",
    "message": "Hello",
    "extras": {"subjectEmail": "me@example.com"},
}


@pytest.mark.parametrize("base_url", ["https://agents.example/myservice/", "https://agents.example"])
def test_agent_is_registered_asked_and_answers(broker: Broker, tmp_path: Path, base_url: str) -> None:
    process = start(broker, tmp_path, base_url)
    try:
        port = process.port()
        registered = broker.asked.get(timeout=30)
        assert (registered["line"], registered["cid"]) == ("PUT /galebroker/catalog/agents", "Gale-registerAgent")
        assert registered["claims"]["user"] == "toto-service"
        assert registered["body"] == {
            "agentDefinition": {
                "name": "My agent",
                "agentId": "my-agent",
                "agentType": "conversational",
                "description": None,
                "endpoint": {
                    "baseURL": "https://agents.example/myservice",
                    "messagesPath": "/agents/my-agent/messages",
                    "infoPath": "/agents/my-agent/info",
                },
            }
        }

        address = f"http://127.0.0.1:{port}/myservice/agents/my-agent/messages"
        with httpx.Client(timeout=30) as client:
            assert client.post(address, json=INCOMING).status_code == 401
            headers = {"authorization": f"Bearer {make_token(KEY, 'toto-service')}"}
            answer = client.post(address, json=INCOMING, headers=headers)
            incomplete = {name: value for name, value in INCOMING.items() if name != "actor"}
            assert client.post(address, json=incomplete, headers=headers).status_code == 422

        posted = broker.asked.get(timeout=30)
        assert (posted["line"], posted["cid"]) == ("POST /galebroker/messages", "conversation-1")
        stream = posted["body"].pop("stream")
        assert posted["body"].pop("messageId") not in ("", "message-1")
        common = {"conversationId": "conversation-1", "actor": "agent", "agentId": "my-agent"}
        assert posted["body"] == {**common, "message": "Working on it"}
        assert (stream["sequenceNumber"], stream["last"]) == (1, False)

        assert answer.status_code == 200
        assert answer.json() == {
            **common,
            "messageId": "message-1",
            "message": "You said: Hello",
            "stream": {"streamId": stream["streamId"], "sequenceNumber": 2, "last": True},
        }
        assert broker.asked.empty()
    finally:
        process.kill()


def test_agent_serves_though_the_broker_refuses_it(broker: Broker, tmp_path: Path) -> None:
    broker.status = 500
    process = start(broker, tmp_path)
    try:
        assert httpx.get(f"http://127.0.0.1:{process.port()}/health", timeout=30).status_code == 200
        assert "The agent is not registered: HTTPStatusError" in process.output
    finally:
        process.kill()


def test_recipe_is_as_short_as_it_is_called() -> None:
    assert 100 <= len(recipe().splitlines()) <= 150
