"""The demo of an example: started as `make demo` starts it, and the lines that it prints."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import httpx

from standins.ports import free_port
from support.processes import Process

DEMO = Path(__file__).parents[2] / "examples" / "demo" / "run.py"
BLOG = DEMO.parents[1] / "blog"
CURL = re.compile(r"^curl .*$", re.MULTILINE)


class Demo(Process):
    """A running demo, and what its lines do."""

    @property
    def lines_to_paste(self) -> list[str]:
        self.expect("Ctrl-C stops")
        return CURL.findall(self.output)

    @property
    def client(self) -> httpx.Client:
        request = as_request(self.lines_to_paste[0])
        address = httpx.URL(str(request["url"]))
        return httpx.Client(
            base_url=f"http://{address.host}:{address.port}",
            headers={"Authorization": request["headers"]["Authorization"]},
        )


def as_request(line: str) -> dict[str, Any]:
    """What a shell and curl would make of a line."""
    words = shlex.split(line)
    request: dict[str, Any] = {"method": "POST" if "-d" in words else "GET", "headers": {}}
    assert words.pop(0) == "curl"
    while words:
        word = words.pop(0)
        if word == "-H":
            name, _, value = words.pop(0).partition(": ")
            request["headers"][name] = value
        elif word == "-X":
            request["method"] = words.pop(0)
        elif word == "-d":
            request["content"] = words.pop(0)
        elif word != "-s":
            request["url"] = word
    return request


def paste(line: str) -> Any:
    answer = httpx.request(**as_request(line))
    assert answer.is_success, answer.text
    return answer.json()


def start_demo(folder: Path, **env: str) -> Demo:
    """Start it in `folder`, on a free port. Started again there, it finds what was stored."""
    return Demo(DEMO, root=str(folder / "root"), env={"PORT": str(free_port()), **env}, cwd=folder)
