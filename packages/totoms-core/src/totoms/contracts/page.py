"""The contract as one HTML page, which loads no other files."""

from __future__ import annotations

import json
from html import escape
from typing import Any, Final

from totoms.contracts.schemas import in_order
from totoms.manifest import Manifest, ManifestEndpoint, ManifestEvent

_STYLE: Final = """
:root { color-scheme: light dark; --line: #8884; --dim: #777; --back: #8881; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.5rem; } .dim { color: var(--dim); }
details { border: 1px solid var(--line); border-radius: 6px; margin: .5rem 0; padding: .5rem .8rem; }
summary { cursor: pointer; overflow-wrap: anywhere; }
summary b { font-family: ui-monospace, monospace; }
pre { background: var(--back); padding: .8rem; border-radius: 6px; overflow: auto; font-size: 13px; }
.tag { font-size: 13px; border: 1px solid var(--line); border-radius: 4px; padding: 0 .4rem; margin-left: .4rem; }
"""


def page_of(manifest: Manifest) -> str:
    """Return the page."""
    service = manifest.service
    endpoints = sorted(manifest.endpoints, key=lambda one: (one.path, one.method))
    parts = [
        f"<h1>{escape(service.name)}</h1><p class=dim>version {escape(service.version)}</p>",
        f"<p>{escape(service.description)}</p>" if service.description else "",
        "<h2>Endpoints</h2>",
        *(_endpoint(one) for one in endpoints if one.operation),
        "<h2>Events that it publishes</h2>",
        *(map(_event, _sorted(manifest.events.published)) or ["<p class=dim>None are declared.</p>"]),
        "<h2>Events that it handles</h2>",
        *(map(_event, _sorted(manifest.events.consumed)) or ["<p class=dim>None.</p>"]),
        "<h2>Schemas</h2>",
        *(_details(f"<b>{escape(name)}</b>", manifest.schemas[name]) for name in sorted(manifest.schemas)),
    ]
    body = "\n".join(part for part in parts if part)
    title = escape(f"{service.name} {service.version}")
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n{body}\n</html>\n"
    )


def _sorted(events: list[ManifestEvent]) -> list[ManifestEvent]:
    return sorted(events, key=lambda one: (one.type, one.version or 0, one.topics))


def _endpoint(endpoint: ManifestEndpoint) -> str:
    tags = _tag("no token needed") if endpoint.public else ""
    for name, value in (endpoint.requires or {}).items():
        shown = ", ".join(map(str, value)) if name != "any_of" else json.dumps(value)
        tags += _tag(f"{name}: {shown}")
    title = escape(str(endpoint.operation.get("summary", "")))
    return _details(f"<b>{escape(endpoint.method)} {escape(endpoint.path)}</b> {title}{tags}", endpoint.operation)


def _event(event: ManifestEvent) -> str:
    version = _tag(f"version {event.version}") if event.version is not None else ""
    topics = ", ".join(event.topics) or "every topic"
    older = [one for one in event.understood if one != event.version]
    understood = _tag(f"also understands {', '.join(map(str, older))}") if older else ""
    return _details(f"<b>{escape(event.type)}</b>{version} on {escape(topics)}{understood}", event.data or {})


def _tag(text: str) -> str:
    return f'<span class="tag">{escape(text)}</span>'


def _details(summary: str, content: Any) -> str:
    shown = escape(json.dumps(in_order(content), indent=2, ensure_ascii=False))
    return f"<details><summary>{summary}</summary><pre>{shown}</pre></details>"
