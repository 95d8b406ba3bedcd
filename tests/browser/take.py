"""Takes the pictures of the page of `otpmail dev`; see scripts/browser."""

from __future__ import annotations

import asyncio
import io
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from PIL import Image
from playwright.async_api import async_playwright, expect

from http1 import SEND_MAIL, call
from service import Service

if TYPE_CHECKING:
    from playwright.async_api import Page

DOCS = Path(__file__).parents[2] / "docs" / "pictures"
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
COLORS = 64


async def fill(page: Page, url: str) -> None:
    """Send a mail, one that is refused, and a code that is open at the end."""
    http = url.replace("localhost", "127.0.0.1")
    await call(http, SEND_MAIL, {"to": ["grace@example.org"], "subject": "Good morning", "text": "The service works."})
    await call(http, SEND_MAIL, {"to": ["550@fail.example"], "subject": "Your invoice", "text": "See the file."})
    await expect(page.locator("#mails a")).to_have_count(2)
    await page.get_by_role("button", name="Send a code").click()
    await expect(page.locator("#code .code")).to_have_text(re.compile(r"\d{6}"))
    await expect(page.frame_locator("iframe").locator("body")).to_be_visible()
    await page.locator("h1 a").focus()
    await page.evaluate("document.activeElement.blur()")


async def take(scheme: Literal["light", "dark"]) -> None:
    """Take a picture of the page of a new service: one that has seen a failure suppresses the address."""
    async with Service(command="dev") as service, async_playwright() as playwright:
        found = re.search(r"over HTTP on (\S+);", await service.wait_for_output("over HTTP on"))
        assert found is not None
        browser = await playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = await browser.new_page(viewport={"width": 1280, "height": 800}, color_scheme=scheme)
        await page.goto(found[1])
        await fill(page, found[1])
        picture = Image.open(io.BytesIO(await page.screenshot())).convert("RGB")
        picture.quantize(COLORS).save(DOCS / f"inbox-{scheme}.png", optimize=True)
        await browser.close()


async def main() -> None:
    """Take a picture in light and one in dark."""
    for scheme in SCHEMES:
        await take(scheme)


if __name__ == "__main__":
    asyncio.run(main())
