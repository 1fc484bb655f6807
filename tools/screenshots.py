"""Make screenshots of pages in a real browser: each wide, dark, and as on a phone.

Usage: python tools/screenshots.py FOLDER URL [PATH...]

URL is where to begin, such as the console's address with its token, and each PATH a page of the same server. It needs
`chromium` (Debian's package) and `pip install playwright`. It fails if a page logs an error, loads something from
elsewhere, or is wider than the screen.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from playwright.sync_api import Browser, sync_playwright

SIZES = {"wide": (1280, 860), "dark": (1280, 860), "phone": (360, 760)}


def main(folder: str, url: str, *paths: str) -> int:
    """Make the screenshots, and return how many problems there were."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        sys.exit("There is no chromium on this machine: apt-get install chromium")
    problems: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox"] if os.geteuid() == 0 else []
        )
        for name, (width, height) in SIZES.items():
            problems += shoot(browser, Path(folder), url, paths or ("/",), name, width, height)
        browser.close()
    for problem in problems:
        print(problem)
    return len(problems)


def shoot(
    browser: Browser, folder: Path, url: str, paths: tuple[str, ...], name: str, width: int, height: int
) -> list[str]:
    """Make the screenshots of one size; return the problems."""
    problems: list[str] = []
    scheme = "dark" if name == "dark" else "light"
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    page = context.new_page()
    home = urlsplit(url).netloc
    page.on(
        "console", lambda message: message.type in ("error", "warning") and problems.append(f"{name}: {message.text}")
    )
    page.on(
        "request",
        lambda request: urlsplit(request.url).netloc != home and problems.append(f"{name}: loads {request.url}"),
    )
    page.goto(url)
    for path in paths:
        page.goto(urljoin(url, path))
        page.wait_for_load_state("load")
        wide = page.evaluate("document.documentElement.scrollWidth")
        if wide > width:
            problems.append(f"{name}: {path} is {wide} pixels wide")
        file = (path.strip("/").replace("/", "-").partition("?")[0] or "home").removesuffix(".html")
        page.screenshot(path=folder / f"{file}-{name}.png", full_page=True)
    context.close()
    return problems


if __name__ == "__main__":
    sys.exit(1 if main(*sys.argv[1:]) else 0)
