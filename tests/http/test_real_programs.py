"""The server with real programs: nginx in front of it, Java's HttpClient and Node's fetch as callers."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import Request

from standins.ports import free_port
from support.emulators import require
from support.http.app import make_service
from support.http.sockets import AUTHORIZED, DEADLINE, TOKEN, Running, read_answer
from totoms import APIEndpoint, ExecutionContext, UserContext, toto_delegate

pytestmark = pytest.mark.slow

LIMIT = 1_000_000
ran: list[str] = []

NGINX = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
events {{}}
http {{
  access_log {folder}/access.log; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  client_max_body_size 100m;
  map $http_upgrade $connection_upgrade {{ default upgrade; '' close; }}
  server {{
    listen 127.0.0.1:{port};
    location /forbidden {{ return 403; }}
    location / {{
      proxy_pass http://127.0.0.1:{upstream}; proxy_http_version 1.1; proxy_set_header Host $host;
      proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;
    }}
  }}
}}
"""

JAVA = """
import java.net.URI;
import java.net.http.*;
import java.util.Arrays;

public class Caller {
    public static void main(String[] args) throws Exception {
        HttpClient client = HttpClient.newHttpClient();  // HTTP/2 by default: offers h2c
        for (String size : Arrays.copyOfRange(args, 2, args.length)) {
            HttpRequest request = HttpRequest.newBuilder(URI.create(args[0]))
                .header("authorization", "Bearer " + args[1])
                .POST(HttpRequest.BodyPublishers.ofString("x".repeat(Integer.parseInt(size)))).build();
            HttpResponse<String> answer = client.send(request, HttpResponse.BodyHandlers.ofString());
            System.out.println(answer.statusCode() + " " + answer.body());
        }
    }
}
"""

NODE = """
const [url, token, ...sizes] = process.argv.slice(2);
for (const size of sizes) {
  const headers = {authorization: "Bearer " + token};
  const answer = await fetch(url, {method: "POST", body: "x".repeat(+size), headers});
  console.log(answer.status + " " + await answer.text());
}
"""


@toto_delegate
async def size(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> Any:
    ran.append(request.url.path)
    return {"size": len(await request.body())}


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    endpoints = [APIEndpoint("POST", "/size", size), APIEndpoint("POST", "/forbidden", size)]
    with Running(make_service(*endpoints, max_body_bytes=LIMIT), max_body_bytes=LIMIT).serving() as running:
        yield running


@pytest.fixture
def nginx(running: Running, tmp_path: Path) -> Iterator[int]:
    program = require("nginx", remedy="apt-get install nginx")
    port = free_port()
    (tmp_path / "nginx.conf").write_text(NGINX.format(folder=tmp_path, port=port, upstream=running.port))
    command = [program, "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf"), "-e", str(tmp_path / "error.log")]
    with subprocess.Popen(command) as process:
        ends = time.monotonic() + DEADLINE
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert process.poll() is None, (tmp_path / "error.log").read_text()
            assert time.monotonic() < ends
        yield port
        process.terminate()


@pytest.mark.parametrize("offer", [b"h2c", b"foo", b"websocket"])
def test_nginx_forbids_what_it_forbids_also_within_a_body(
    offer: bytes, nginx: int, running: Running, tmp_path: Path
) -> None:
    ran.clear()
    smuggled = b"POST /forbidden HTTP/1.1\r\ncontent-length: 0\r\n" + AUTHORIZED + b"\r\n"
    head = b"POST /size HTTP/1.1\r\nconnection: Upgrade\r\nupgrade: " + offer + b"\r\n" + AUTHORIZED
    for _ in range(10):
        with socket.create_connection(("127.0.0.1", nginx), DEADLINE) as caller:
            caller.sendall(head + b"content-length: %d\r\n\r\n" % len(smuggled) + smuggled)
            code, _, body = read_answer(caller)
        assert (code, json.loads(body)["size"]) == (200, len(smuggled))
    assert ran == ["/size"] * 10
    with socket.create_connection(("127.0.0.1", nginx), DEADLINE) as caller:
        caller.sendall(b"POST /forbidden HTTP/1.1\r\ncontent-length: 0\r\n" + AUTHORIZED + b"\r\n")
        assert read_answer(caller)[0] == 403
    assert ran == ["/size"] * 10


def call(command: list[str], running: Running, sizes: list[int]) -> list[list[str]]:
    url = f"http://127.0.0.1:{running.port}/size"
    run = subprocess.run(
        [*command, url, TOKEN, *map(str, sizes)], capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == 0, run.stderr
    return [line.split(" ", 1) for line in run.stdout.splitlines()]


def test_body_of_javas_client_arrives(running: Running, tmp_path: Path) -> None:
    java = require("java", remedy="apt-get install default-jdk-headless")
    (tmp_path / "Caller.java").write_text(JAVA)
    sizes = [5, 70_000, 500_000]
    answers = call([java, str(tmp_path / "Caller.java")], running, sizes)
    assert [(status, json.loads(body)["size"]) for status, body in answers] == [("200", size) for size in sizes]


def test_javas_client_sees_the_413(running: Running, tmp_path: Path) -> None:
    java = require("java", remedy="apt-get install default-jdk-headless")
    (tmp_path / "Caller.java").write_text(JAVA)
    assert [status for status, _ in call([java, str(tmp_path / "Caller.java")], running, [3 * LIMIT, 5])] == [
        "413",
        "200",
    ]


def test_nodes_fetch_sees_the_413(running: Running, tmp_path: Path) -> None:
    node = require("node", remedy="apt-get install nodejs")
    (tmp_path / "caller.mjs").write_text(NODE)
    answers = call([node, str(tmp_path / "caller.mjs")], running, [5, LIMIT + 1, 3 * LIMIT, 20 * LIMIT, 5])
    assert [status for status, _ in answers] == ["200", "413", "413", "413", "200"]
