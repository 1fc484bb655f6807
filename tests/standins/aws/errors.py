"""A server between the SDK and AWS, or instead of it, that answers with errors, loses answers, or keeps them back.

It speaks HTTP, and puts an error into the form of the protocol that the request is in: XML for S3, JSON for SQS and
Secrets Manager, the Query protocol's XML for SNS. What no rule is about goes on to the server behind it, if there is
one.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlsplit

_NOT_PASSED_ON = ("connection", "transfer-encoding", "content-length", "expect", "date", "server")
_BETWEEN_POLLS = 0.04


@dataclass(frozen=True)
class Request:
    """One request of the SDK."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def operation(self) -> str:
        """What the SDK calls it, where the request says so: ``GetSecretValue``, ``Publish``."""
        target = self.headers.get("x-amz-target", "")
        return target.rpartition(".")[2] or parse_qs(self.body.decode("latin-1")).get("Action", [""])[0]


@dataclass
class Rule:
    """What becomes of some requests.

    Attributes:
        matches: Which they are.
        status, code: An error to answer with.
        answer: What is answered in its place, with the status.
        lose: The request is passed on, and its answer lost: the connection is closed.
        cut: The request is passed on; of its answer's body so many bytes come, then the connection is closed.
        chunked: The body comes in one chunk, its length unknown before.
        hold: The answer is kept back until this is set.
        times: How often it applies; None for always.
        seen: The requests it applied to.
    """

    matches: Callable[[Request], bool] = lambda _request: True
    status: int = 0
    code: str = ""
    answer: bytes = b""
    lose: bool = False
    cut: int | None = None
    chunked: bool = False
    hold: threading.Event | None = None
    times: int | None = None
    seen: list[Request] = field(default_factory=list)


class FaultyAWS:
    """See the module. Use it as a context manager.

    Args:
        behind: The address of the server behind it.
    """

    def __init__(self, behind: str | None = None) -> None:
        self._behind = urlsplit(behind).netloc if behind else None
        self.rules: list[Rule] = []
        self.requests: list[Request] = []
        self.away = False
        """Connections are closed as soon as a request comes."""
        self.longest_poll: float | None = None
        """Seconds after which a poll of SQS that finds nothing is answered; None for as long as it asks for, which is a
        whole second at least."""
        self._lock = threading.Lock()
        standin = self

        class Handler(_Handler):
            faults = standin

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> FaultyAWS:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for rule in self.rules:
            if rule.hold is not None:
                rule.hold.set()
        self._server.shutdown()
        self._server.server_close()

    def rule(self, **settings: Any) -> Rule:
        """Add a rule; the last one that matches applies."""
        made = Rule(**settings)
        with self._lock:
            self.rules.append(made)
        return made

    def rule_for(self, request: Request) -> Rule | None:
        """Return the rule that applies, which is one time less then."""
        with self._lock:
            self.requests.append(request)
            for rule in reversed(self.rules):
                if (rule.times is None or rule.times > len(rule.seen)) and rule.matches(request):
                    rule.seen.append(request)
                    return rule
        return None

    def ask(self, request: Request) -> tuple[int, list[tuple[str, str]], bytes]:
        """Pass a request on and return what was answered."""
        if self._behind is None:
            return 501, [], b""
        if self.longest_poll is None or request.operation != "ReceiveMessage":
            return self._ask(request)
        asked = json.loads(request.body)
        until = time.monotonic() + min(asked.get("WaitTimeSeconds", 0), self.longest_poll)
        at_once = replace(request, body=json.dumps({**asked, "WaitTimeSeconds": 0}).encode())
        while True:
            answer = self._ask(at_once)
            if time.monotonic() >= until or answer[0] != 200 or b'"Messages"' in answer[2]:
                return answer
            time.sleep(_BETWEEN_POLLS)

    def _ask(self, request: Request) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(str(self._behind), timeout=60)
        try:
            connection.putrequest(request.method, request.path, skip_host=True, skip_accept_encoding=True)
            for name, value in request.headers.items():
                if name not in ("expect", "connection", "content-length", "transfer-encoding"):
                    connection.putheader(name, value)
            connection.putheader("content-length", str(len(request.body)))
            connection.endheaders(request.body)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that went away."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    faults: FaultyAWS

    def handle_one_request(self) -> None:
        """Answer whatever method it is."""
        self.raw_requestline = self.rfile.readline(65537)
        if not self.raw_requestline or not self.parse_request() or self.faults.away:
            self.close_connection = True
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length") or 0))
        request = Request(self.command, self.path, headers, body)
        rule = self.faults.rule_for(request)
        if rule is not None and rule.hold is not None:
            rule.hold.wait(120)
        if rule is not None and rule.answer:
            status, answered, content = rule.status, [("content-type", "text/xml")], rule.answer
        elif rule is not None and rule.status:
            status, answered, content = _error(request, rule.status, rule.code)
        else:
            status, answered, content = self.faults.ask(request)
        if rule is not None and rule.lose:
            self.close_connection = True
            return
        self._answer(status, answered, content, rule or Rule())

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes, rule: Rule) -> None:
        length = next((value for name, value in headers if name.lower() == "content-length"), str(len(content)))
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in _NOT_PASSED_ON:
                self.send_header(name, value)
        if rule.chunked:
            self.send_header("transfer-encoding", "chunked")
        else:
            self.send_header("content-length", length if self.command == "HEAD" else str(len(content)))
        self.end_headers()
        if rule.chunked:
            self.wfile.write(b"%x\r\n" % len(content))
        if self.command != "HEAD":
            self.wfile.write(content[: rule.cut])
        if rule.chunked and rule.cut is None:
            self.wfile.write(b"\r\n0\r\n\r\n")
        self.wfile.flush()
        self.close_connection = self.close_connection or rule.cut is not None


def _error(request: Request, status: int, code: str) -> tuple[int, list[tuple[str, str]], bytes]:
    if "x-amz-target" in request.headers:
        document = json.dumps({"__type": code, "message": "as the test says"})
        return status, [("content-type", "application/x-amz-json-1.1"), ("x-amzn-requestid", "1")], document.encode()
    inside = f"<Code>{code}</Code><Message>as the test says</Message>"
    if request.body.startswith(b"Action="):
        text = f"<ErrorResponse><Error><Type>Sender</Type>{inside}</Error><RequestId>1</RequestId></ErrorResponse>"
    else:
        text = f"<Error>{inside}<RequestId>1</RequestId></Error>"
    return status, [("content-type", "text/xml")], b"" if request.method == "HEAD" else text.encode()
