"""The console in a real browser, as a person uses it: Chromium of Debian, without a window."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.consoles import WithConsole
from support.emulators import require

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.slow
PAGES = ["/", "/endpoints", "/topics", "/messages", "/dead-letters", "/files", "/secrets", "/logs"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    playwright = pytest.importorskip("playwright.sync_api", reason="not installed: nox -s slow does")
    program = require("chromium", remedy="apt-get install chromium")
    with playwright.sync_playwright() as running:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium's sandbox does not work for root
        chromium = running.chromium.launch(executable_path=program, args=arguments)
        yield chromium
        chromium.close()


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[WithConsole]:
    process = WithConsole(tmp_path, "--write")
    yield process
    process.kill()


@pytest.fixture(params=[(1280, "light"), (1280, "dark"), (360, "light")], ids=["wide", "dark", "phone"])
def page(browser: Browser, shop: WithConsole, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page of the console. At the end nothing has gone wrong in it, and nothing was loaded from elsewhere."""
    width, scheme = request.param
    problems: list[str] = []
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    page.on("console", lambda one: one.type in ("error", "warning") and problems.append(one.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda one: one.url.startswith(shop.origin) or problems.append(f"loads {one.url}"))
    page.goto(shop.address)
    yield page
    context.close()
    assert problems == []


def fits(page: Page) -> bool:
    wide = page.evaluate("document.documentElement.scrollWidth")
    return bool(wide <= page.viewport_size["width"])  # type: ignore[index]


def place(page: Page, item: str) -> None:
    page.goto(page.url.split("/", 3)[0] + "//" + page.url.split("/", 3)[2] + "/endpoints")
    page.locator("summary", has_text="/place").click()
    form = page.locator("details[open] form")
    form.locator("[name=query]").fill(f"item={item}")
    form.get_by_role("button", name="Call").click()
    page.locator("output .tag", has_text="200").wait_for()


def test_every_page_fits_and_its_address_has_no_token(page: Page, shop: WithConsole) -> None:
    assert page.url == f"{shop.origin}/"
    for path in PAGES:
        page.goto(shop.origin + path)
        assert fits(page), path
        page.locator("#live.on").wait_for()


def test_order_is_placed_and_followed(page: Page, shop: WithConsole) -> None:
    page.goto(f"{shop.origin}/messages")
    place(page, "lamp")
    page.goto(f"{shop.origin}/messages")
    page.locator("tbody tr", has_text="handled").wait_for()
    page.get_by_role("link", name="placed").click()
    page.locator("ol.trace li", has_text="process orders").wait_for()
    assert fits(page)


def test_dead_letter_is_replayed(page: Page, shop: WithConsole) -> None:
    place(page, "fail-1")
    page.goto(f"{shop.origin}/dead-letters?subscription=shop-orders")
    page.get_by_role("link", name="placed").click()
    page.get_by_text("fail-1 is sold out").first.wait_for()
    assert fits(page)
    page.get_by_role("button", name="Replay it").click()
    page.wait_for_url("**/dead-letters?subscription=shop-orders")


def test_list_shows_a_new_message_by_itself(page: Page, shop: WithConsole) -> None:
    page.goto(f"{shop.origin}/messages")
    page.locator("#live.on").wait_for()
    other = page.context.new_page()
    other.goto(f"{shop.origin}/endpoints")
    place(other, "chair")
    other.close()
    page.locator("tbody tr", has_text="placed").first.wait_for()


def test_keys_lead_to_pages_and_to_the_search(page: Page, shop: WithConsole) -> None:
    page.keyboard.press("4")
    page.wait_for_url("**/messages")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.name") == "text"
    page.keyboard.press("Escape")


def test_first_key_leads_past_the_menu(page: Page) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
