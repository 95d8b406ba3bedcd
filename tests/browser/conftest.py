"""Chromium on the page of `otpmail dev`; see scripts/browser. Without Playwright these tests are not collected."""

from __future__ import annotations

import importlib.util
import re
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from service import Service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Browser, Page

if importlib.util.find_spec("playwright") is None or shutil.which("chromium") is None:
    collect_ignore = ["test_calls.py", "test_page.py", "test_hostile.py"]

    def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
        """Say what was not collected, and how to run it."""
        terminalreporter.write_line(
            "tests/browser: needs Playwright and Chromium; scripts/browser installs and runs it"
        )


_MOST_MS = 20_000
"""How long an expectation may take: a busy machine needs more than the five seconds of Playwright."""

_WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => violations.push(event.violatedDirective));
"""


@pytest.fixture
async def url() -> AsyncIterator[str]:
    """Run `otpmail dev`, and tell where its page is."""
    async with Service(command="dev") as service:
        found = re.search(r"over HTTP on (\S+);", await service.wait_for_output("over HTTP on"))
        assert found is not None
        yield found[1]


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """Run Debian's Chromium."""
    from playwright.async_api import async_playwright, expect

    expect.set_options(timeout=_MOST_MS)
    async with async_playwright() as playwright:
        path = shutil.which("chromium")
        browser = await playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        await browser.close()


def _note_foreign(wrong: list[str], url: str, asked: str) -> None:
    if not asked.startswith((url, "data:")):
        wrong.append(asked)


@pytest.fixture
async def page(browser: Browser, url: str, request: pytest.FixtureRequest) -> AsyncIterator[Page]:
    """Open the page, in the colours of a parameter. An error is a fault, and so is a request elsewhere.

    The page has read the list of no mails, which it does once it gets events.
    """
    from playwright.async_api import expect

    options: dict[str, Any] = {"color_scheme": getattr(request, "param", "light")}
    opened = await browser.new_page(viewport={"width": 1280, "height": 800}, **options)
    await opened.add_init_script(_WATCH)
    wrong: list[str] = []
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("response", lambda one: _note_foreign(wrong, url, one.url))
    # Chromium tells of requests that a policy stopped too, as failures by "csp".
    opened.on("requestfailed", lambda one: None if one.failure == "csp" else _note_foreign(wrong, url, one.url))
    opened.on("dialog", lambda dialog: wrong.append(dialog.message))
    await opened.goto(url)
    await expect(opened.locator("#empty")).to_have_text("No mail yet. Send a code to begin.")
    yield opened
    assert await opened.evaluate("violations") == []
    assert wrong == []
