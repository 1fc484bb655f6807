"""docs/how-to/kubernetes.md: its manifest is valid, a part of the whole one, and its seconds add up."""

from __future__ import annotations

from typing import Any

import kubernetes_validate
import yaml

from support.pages import DOCS, blocks
from totoms import TotoMicroserviceConfiguration

PAGE = "how-to/kubernetes.md"


def deployment() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(blocks(PAGE, "yaml")[0])
    return found


def is_part(part: Any, whole: Any) -> bool:
    if isinstance(part, dict):
        return all(name in whole and is_part(value, whole[name]) for name, value in part.items())
    if isinstance(part, list):
        return len(part) == len(whole) and all(map(is_part, part, whole))
    return bool(part == whole)


def test_manifest_is_valid() -> None:
    kubernetes_validate.validate(deployment(), "1.34", strict=True)


def test_manifest_is_a_part_of_the_complete_one() -> None:
    documents = yaml.safe_load_all((DOCS.parent / "examples" / "deploy" / "kubernetes.yaml").read_text())
    (complete,) = [document for document in documents if document["kind"] == "Deployment"]
    assert is_part(deployment(), complete)


def test_seconds_add_up() -> None:
    pod = deployment()["spec"]["template"]["spec"]
    sleep = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    grace = TotoMicroserviceConfiguration(service_name="blog").shutdown_grace
    text = (DOCS / PAGE).read_text()
    for seconds in (f"**{sleep}**", f"**{grace:g}**", f"sum, {sleep + grace + 5:g}."):
        assert seconds in text
    assert pod["terminationGracePeriodSeconds"] == sleep + grace + 5
