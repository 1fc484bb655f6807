"""docs/how-to/docker.md: the image is that of examples/deploy, for a service of one's own."""

from __future__ import annotations

import io
import json

from dockerfile_parse import DockerfileParser

from support.pages import DOCS, blocks
from totoms import TotoMicroserviceConfiguration

PAGE = "how-to/docker.md"


def test_image_has_the_rules_of_the_example() -> None:
    (text,) = blocks(PAGE, "dockerfile")
    example = (DOCS.parent / "examples" / "deploy" / "Dockerfile").read_text()
    parsed = DockerfileParser(fileobj=io.BytesIO(text.encode()))
    statements = {part["instruction"]: part["value"] for part in parsed.structure}

    assert json.loads(statements["CMD"]) == ["python", "service.py"]
    assert statements["USER"] == "10001:10001"
    assert all(line in example for line in text.splitlines()[-3:])
    assert "pip install --no-cache-dir --no-index --root-user-action ignore /wheels/*.whl" in example


def test_the_stop_takes_as_long_as_the_page_says() -> None:
    grace = TotoMicroserviceConfiguration(service_name="blog").shutdown_grace
    text = (DOCS / PAGE).read_text()
    assert f"`shutdown_grace` ({grace:g} s)" in text
    assert f"--time {grace + 5:g}" in text
