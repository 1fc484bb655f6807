"""``python -m totoms plugins``: list the installed hyperscaler plugins."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from totoms.errors import PluginError
from totoms.logging.describe import printable
from totoms.plugins.discovery import installed
from totoms.plugins.loader import CAPABILITIES, load


@click.command
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def plugins(as_json: bool) -> None:
    """List the installed hyperscaler plugins with their distributions and capabilities.

    Each plugin is imported. One that cannot be used is listed with the reason, and the exit status is still 0.
    """
    found = [_describe(plugin.name, plugin.distribution, plugin.version) for plugin in installed()]
    if as_json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
        return
    rows = [("NAME", "DISTRIBUTION", "VERSION", "CAPABILITIES")]
    for plugin in found:
        can = ", ".join(plugin["capabilities"])
        if plugin["messaging"]:
            can += f" ({', '.join(plugin['messaging'])})"
        rows.append((plugin["name"], plugin["distribution"], plugin["version"], plugin["error"] or can))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        sys.stdout.write("  ".join([*cells, row[3]]) + "\n")


def _describe(name: str, distribution: str, version: str) -> dict[str, Any]:
    capabilities: list[str] = []
    messaging: list[str] = []
    problem = None
    try:
        backend = load(name)
        capabilities = [capability for capability in CAPABILITIES if getattr(backend, capability) is not None]
        if backend.message_bus is not None:
            messaging = sorted(backend.message_bus.capabilities)
    except PluginError as error:
        problem = f"cannot be used: {printable(error.message)}"
    return {
        "name": name,
        "distribution": distribution,
        "version": version,
        "capabilities": capabilities,
        "messaging": messaging,
        "error": problem,
    }
