"""The page of `otpmail dev` in Chromium: by keyboard, for everybody, and with the focus where it was."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from axe_playwright_python.async_playwright import Axe  # type: ignore[import-untyped,import-not-found,unused-ignore]
from playwright.async_api import expect

from http1 import SEND_CODE, SEND_MAIL, call

if TYPE_CHECKING:
    from playwright.async_api import Page

ADA = "ada@example.org"


async def _send(url: str, subject: str, to: str = ADA) -> None:
    await call(url.replace("localhost", "127.0.0.1"), SEND_MAIL, {"to": [to], "subject": subject, "text": "Hi there"})


async def test_a_code_is_sent_read_and_validated_by_keyboard(page: Page) -> None:
    """A newcomer gets a code, reads it and validates it without a mouse and without leaving the page."""
    await page.get_by_label("Address").focus()
    await page.keyboard.press("Enter")
    await _six_digits(page)
    await page.get_by_role("button", name="Put it into the form").focus()
    await page.keyboard.press("Enter")
    await expect(page.get_by_label("Code", exact=True)).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.locator("#answer")).to_contain_text("RESULT_VALID")


async def _six_digits(page: Page) -> None:
    """Wait for the code of the mail that is open."""
    await expect(page.locator("#code .code")).to_have_text(re.compile(r"\d{6}"))


@pytest.mark.parametrize("page", ["light", "dark"], indirect=True)
async def test_axe_finds_nothing(page: Page, url: str) -> None:
    """Empty, with a code open, and with each part of a mail: axe-core has no finding, in light and dark."""
    await _without_findings(page)
    await _send(url, "Refused", "550@fail.example")
    await page.get_by_role("button", name="Send a code").click()
    await _six_digits(page)
    await page.get_by_text("The same call in code").click()
    for tab in ("HTML", "Text", "Headers", "Source", "Attachments", "Recipients"):
        await page.get_by_role("button", name=tab, exact=True).click()
        await _without_findings(page)
    await page.locator("#mails button.refused").click()
    await expect(page.locator("#people")).to_contain_text("550 5.1.1 there is no such mailbox")
    await _without_findings(page)


async def _without_findings(page: Page) -> None:
    found = await Axe().run(page, options={"iframes": False})  # the frame of a mail runs no script
    assert found.violations_count == 0, found.generate_report()


async def test_the_focus_stays(page: Page, url: str) -> None:
    """Neither a tab, nor the phone's width, nor a mail that comes takes the focus away."""
    await page.get_by_role("button", name="Send a code").click()
    await _six_digits(page)
    for name in ("Phone", "Dark", "Text", "HTML"):
        await page.get_by_role("button", name=name, exact=True).focus()
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("button", name=name, exact=True)).to_be_focused()
    first = page.locator("#mails button", has_text="code")
    await first.focus()
    await _send(url, "Hello")
    await expect(page.locator("#mails button")).to_have_count(2)
    await expect(first).to_be_focused()


async def test_mails_open_after_a_deletion(page: Page, url: str) -> None:
    """Deleting opens the next mail. Once none is left, the next one that comes opens."""
    await _send(url, "One")
    await expect(page.locator("#subject")).to_have_text("One")
    await _send(url, "Two")
    await expect(page.locator("#mails button")).to_have_count(2)
    await page.keyboard.press("k")
    await expect(page.locator("#subject")).to_have_text("Two")
    await page.keyboard.press("Delete")
    await expect(page.locator("#subject")).to_have_text("One")
    await page.get_by_role("button", name="Delete all").click()
    await expect(page.locator("#none")).to_be_visible()
    await _send(url, "Three")
    await expect(page.locator("#subject")).to_have_text("Three")


async def test_a_page_reads_the_list_once(page: Page, url: str) -> None:
    """A mail that comes costs the page one line of the list, which the event carries, and no list anew."""
    await _send(url, "First")
    await expect(page.locator("#subject")).to_have_text("First")
    asked: list[str] = []
    page.on("request", lambda one: asked.append(one.url))
    for number in range(10):
        await _send(url, f"Mail {number}")
    await expect(page.locator("#mails button")).to_have_count(11)
    assert [one for one in asked if one.endswith("/inbox")] == []
    await page.get_by_label("Search mails").fill("mail 7")
    await expect(page.locator("#mails button:visible")).to_have_count(1)


async def test_an_answer_that_is_no_json_is_shown(page: Page) -> None:
    """An answer of the door in plain text, such as 403, stands in the page."""
    await page.route(f"**{SEND_CODE}", lambda route: route.fulfill(status=403, body="403 Forbidden: another origin\n"))
    await page.get_by_role("button", name="Send a code").click()
    await expect(page.locator("#answer")).to_have_text("403: 403 Forbidden: another origin")


async def test_the_page_says_why_nothing_was_sent(page: Page) -> None:
    """The page shows the relay's reply; a second time it shows that the address is suppressed, which has no code."""
    await page.get_by_label("Address").fill("550+suppressed@fail.example")
    await page.get_by_role("button", name="Send a code").click()
    await expect(page.locator("#answer")).to_have_text("The mail is STATE_FAILED: 550 5.1.1 there is no such mailbox")
    await page.get_by_role("button", name="Send a code").click()
    await expect(page.locator("#answer")).to_have_text(
        re.compile("^The mail is STATE_FAILED: nothing was sent, since ")
    )


async def test_a_service_with_callers_asks_for_a_token(page: Page) -> None:
    """Where calls need a token, the page has a field for it. It sends the token, and keeps it nowhere else."""
    body = '{"code": "unauthenticated", "message": "no token"}'
    await page.route(f"**{SEND_CODE}", lambda route: route.fulfill(status=401, body=body))
    await page.get_by_role("button", name="Send a code").click()
    token = page.get_by_label("Token of a caller")
    await expect(token).to_be_focused()
    await token.fill("secret-token")
    async with page.expect_request(f"**{SEND_CODE}") as asked:
        await page.get_by_role("button", name="Send a code").click()
    assert (await (await asked.value).all_headers())["authorization"] == "Bearer secret-token"
    assert "secret-token" not in (await page.content())
    stored = "Object.keys(localStorage).length + Object.keys(sessionStorage).length + document.cookie.length"
    assert await page.evaluate(stored) == 0


async def test_html_has_the_width_of_a_desktop(page: Page) -> None:
    """At 1280 pixels the mail's HTML is at least 800 wide, and 360 as on a phone."""
    await page.get_by_role("button", name="Send a code").click()
    await _six_digits(page)
    wide = await page.locator("iframe").bounding_box()
    assert wide is not None
    assert wide["width"] >= 800
    await page.get_by_role("button", name="Phone", exact=True).click()
    narrow = await page.locator("iframe").bounding_box()
    assert narrow is not None
    assert narrow["width"] == 360
