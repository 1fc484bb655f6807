"""The code that docs/messages.md shows: every block runs, and the first is a service that does what the page says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from totoms import TotoMicroserviceConfiguration
from totoms.testing import TestMicroservice

PAGE = Path(__file__).parents[2] / "docs" / "messages.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)


def run(block: str, name: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> Any:
    """Import a block as a module, in which annotations can be resolved."""
    (folder / f"{name}.py").write_text(block)
    monkeypatch.syspath_prepend(folder)
    return __import__(name)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_block_runs(number: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run(BLOCKS[number], f"messages_page_block_{number}", monkeypatch, tmp_path)


async def test_post_is_published_and_added_to_the_digest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    page = run(BLOCKS[0], "messages_page_service", monkeypatch, tmp_path)
    assert isinstance(page.configuration, TotoMicroserviceConfiguration)
    async with TestMicroservice(page.configuration) as blog:
        answer = await blog.client.post("/blog/posts", json={"title": "Hello World"})
        assert answer.json() == {"slug": "hello-world", "title": "Hello World"}
        await blog.settled()
        (published,) = blog.published
        assert published.data == page.PostCreated(slug="hello-world", title="Hello World")
        content = await blog.files("blog-files").get_file_content_async(f"digest/{published.id}.txt")
        assert content == "Hello World (hello-world)\n"
