"""Mails that attack the page of `otpmail dev`: nothing in them runs, and nothing is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from playwright.async_api import expect

from http1 import SEND_MAIL, call

if TYPE_CHECKING:
    from playwright.async_api import Page

MARK = "top.document.title='taken'"
HOSTILE = (
    f"<script>{MARK}</script>",
    f'<img src="x:" onerror="{MARK}">',
    f'<svg onload="{MARK}"><script>{MARK}</script></svg>',
    f'<a id="go" href="javascript:{MARK}">x</a>',
    '<style>@import "https://evil.example/a.css"; body { background: url(https://evil.example/b.png) }</style>',
    '<img src="https://evil.example/pixel.gif"><link rel="stylesheet" href="https://evil.example/c.css">',
    '<link rel="preconnect" href="https://evil.example"><LINK/rel=dns-prefetch href="//evil.example">',
    '<meta http-equiv="refresh" content="0;url=https://evil.example/">',
    '<base href="https://evil.example/"><iframe src="/"></iframe><object data="/"></object>',
    '<form action="/inbox" method="post"><button id="go">x</button></form>',
    '<a id="go" href="/" target="_top">x</a>',
)


@pytest.mark.parametrize("html", [HOSTILE[0], *(pytest.param(html, marks=pytest.mark.full) for html in HOSTILE[1:])])
async def test_nothing_in_a_mail_acts(page: Page, url: str, html: str) -> None:
    """Scripts, handlers, links, styles and forms of a mail do nothing, in its HTML and in its other fields."""
    pages: list[object] = []
    page.context.on("page", lambda opened: pages.append(opened))  # noqa: PLW0108  Playwright marks its handlers
    fields = {"to": ["ada@example.org"], "subject": html, "text": html, "html": f"<p>Hi</p>{html}"}
    await call(url.replace("localhost", "127.0.0.1"), SEND_MAIL, fields)
    frame = page.frame_locator("iframe")
    await expect(frame.locator("p").first).to_have_text("Hi")
    if 'id="go"' in html:
        await frame.locator("#go").click(no_wait_after=True)
    for tab in ("Text", "Headers", "Source", "Recipients", "HTML"):
        await page.get_by_role("button", name=tab, exact=True).click()
    await expect(page.locator("#subject")).to_have_text(html)
    assert await frame.locator("link").count() == 0  # no policy stops the dialling of a preconnect
    assert await page.title() == "otpmail dev: inbox"
    assert await page.locator("main script, main svg, main img, main style").count() == 0
    assert page.url == f"{url}/#/mails/1"
    assert pages == []
