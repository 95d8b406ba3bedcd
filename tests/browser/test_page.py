"""The page of `otpmail dev` in Chromium: by keyboard, for everybody, and with the focus where it was."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import pytest
from axe_playwright_python.async_playwright import Axe  # type: ignore[import-untyped,import-not-found,unused-ignore]
from playwright.async_api import expect

from http1 import SEND_CODE, SEND_MAIL, call
from service import Service

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.async_api import Browser, Page, Route

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
    await expect(page.locator("#answer")).to_have_text("valid: the code is right, and used up")


async def _six_digits(page: Page) -> None:
    """Wait for the code of the mail that is open."""
    await expect(page.locator("#code .code")).to_have_text(re.compile(r"\d{6}"))


async def test_the_answer_is_that_of_the_latest_call(page: Page) -> None:
    """A new call takes the answer before it away at once, and the late answer of an older call is not shown."""
    answer, go_on, late = page.locator("#answer"), asyncio.Event(), asyncio.Event()
    await page.get_by_role("button", name="Send a code").click()
    await expect(answer).to_have_text("The mail is relayed: 250 2.6.0 caught")

    async def answer_late(route: Route) -> None:
        """Send the code, and hand its answer over once the test says so."""
        response = await route.fetch()
        await go_on.wait()
        await route.fulfill(response=response)
        late.set()

    await page.route("**/SendCode", answer_late, times=1)
    await page.get_by_role("button", name="Send a code").click()
    await expect(answer).to_have_text("sending …")
    await page.get_by_label("Code", exact=True).fill("1")
    await page.get_by_role("button", name="Check").click()
    await expect(answer).to_have_text("wrong code, 5 attempts left")
    go_on.set()
    await late.wait()
    await page.wait_for_timeout(200)
    await expect(answer).to_have_text("wrong code, 5 attempts left")


@pytest.mark.parametrize("page", ["light", "dark"], indirect=True)
async def test_axe_finds_nothing(page: Page, url: str) -> None:
    """Empty, with a code open, and with each part of a mail: axe-core has no finding, in light and dark."""
    await _without_findings(page)
    await page.get_by_text("Purpose and language").click()
    await _without_findings(page)
    await _send(url, "Refused", "550@fail.example")
    await page.get_by_role("link", name="Help").click()
    await page.get_by_role("button", name="Send a code").click()
    await _six_digits(page)
    for tab in ("HTML", "Text", "Headers", "Source", "Recipients"):
        await page.get_by_role("button", name=tab, exact=True).click()
        await _without_findings(page)
    await page.locator("#mails a", has_text="Refused").click()
    await expect(page.locator("#refused")).to_contain_text("550 5.1.1 there is no such mailbox")
    await _without_findings(page)
    await page.get_by_label("Search mails").fill("no such words")
    await expect(page.locator("#empty")).to_have_text('No mail has "no such words".')
    await _without_findings(page)
    await page.get_by_role("button", name="Delete all").click()
    await _without_findings(page)
    await page.keyboard.press("Escape")
    await page.get_by_role("button", name="Delete", exact=True).click()
    await expect(page.get_by_role("button", name="Undo")).to_be_visible()
    await _without_findings(page)
    await page.get_by_role("button", name="Undo").click()
    await expect(page.locator("#subject")).to_have_text("Refused")
    await page.set_viewport_size({"width": 360, "height": 740})
    await _without_findings(page)
    await page.get_by_role("link", name="All mails").click()
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
    first = page.locator("#mails a", has_text="code")
    await first.focus()
    await _send(url, "Hello")
    await expect(page.locator("#mails a")).to_have_count(2)
    await expect(first).to_be_focused()


async def test_mails_open_after_a_deletion(page: Page, url: str) -> None:
    """Deleting opens the next mail. Once none is left, the next one that comes opens."""
    await _send(url, "One")
    await expect(page.locator("#subject")).to_have_text("One")
    await _send(url, "Two")
    await expect(page.locator("#mails a")).to_have_count(2)
    await page.keyboard.press("k")
    await expect(page.locator("#subject")).to_have_text("Two")
    await page.keyboard.press("Delete")
    await expect(page.locator("#subject")).to_have_text("One")
    await page.get_by_role("button", name="Delete all").click()
    await page.get_by_role("dialog").get_by_role("button", name="Delete all").click()
    await expect(page.locator("#start")).to_be_visible()
    await _send(url, "Three")
    await expect(page.locator("#subject")).to_have_text("Three")


async def test_a_mail_that_was_deleted_is_put_back(page: Page, url: str) -> None:
    """The key and the button put the mail back to its place, and open it. One press of a key deletes one mail."""
    for subject in ("One", "Two", "Three"):
        await _send(url, subject)
    mails, undo = page.locator("#mails strong"), page.get_by_role("button", name="Undo")
    await expect(mails).to_have_text(["Three", "Two", "One"])
    await page.get_by_role("link", name="Two").click()
    for press in (page.keyboard.press("u"), undo.click()):
        await expect(page.locator("#subject")).to_have_text("Two")
        await page.keyboard.down("Delete")
        await page.keyboard.down("Delete")  # as a key that is held
        await page.keyboard.up("Delete")
        await expect(mails).to_have_text(["Three", "One"])
        await expect(page.locator("#undo")).to_contain_text("Deleted: Two")
        await expect(page.get_by_role("status").last).to_have_text("Deleted. The key u puts it back.")  # not hidden
        await press
        await expect(mails).to_have_text(["Three", "Two", "One"])
        await expect(page.locator("#undo")).to_be_hidden()
    await expect(page.locator("#subject")).to_have_text("Two")
    await page.get_by_role("button", name="Delete", exact=True).click()
    await expect(mails).to_have_text(["Three", "One"])
    await page.request.delete(f"{url}/inbox")
    await expect(mails).to_have_count(0)
    await undo.click()
    await expect(page.locator("#status")).to_have_text("The mail is gone: others were deleted after it.")


async def test_why_a_mail_is_not_put_back_stays(page: Page, url: str) -> None:
    """A list that was on its way does not take away the words that a mail is gone."""
    for subject in ("One", "Two"):
        await _send(url, subject)
    await expect(page.locator("#mails a")).to_have_count(2)
    held: asyncio.Queue[Route] = asyncio.Queue()
    await page.route("**/inbox", held.put, times=1)
    await page.get_by_role("button", name="Delete", exact=True).click()
    async with asyncio.timeout(20):
        list_of_one = await held.get()  # the deletion has the list loaded
    await page.request.delete(f"{url}/inbox")
    async with page.expect_response(lambda response: response.request.method == "PUT"):
        await page.keyboard.press("u")
    await list_of_one.continue_()
    await expect(page.locator("#mails a")).to_have_count(0)
    await expect(page.locator("#status")).to_have_text("The mail is gone: others were deleted after it.")


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("had", ["link", "button", "nothing"])
async def test_the_only_mail_is_put_back(page: Page, url: str, width: int, had: str) -> None:
    """Once no mail is left, Undo has the focus: the key u puts the mail back, and is no text of the search."""
    await page.set_viewport_size({"width": width, "height": 800})
    await _send(url, "One")
    await page.locator("#mails a").click()
    await expect(page.locator("#open")).to_be_visible()
    if had == "link" and width == 1280:
        await page.locator("#mails a").focus()
    elif had == "nothing":
        await page.evaluate("document.activeElement.blur()")
    if had == "button":
        await page.get_by_role("button", name="Delete", exact=True).press("Enter")
    else:
        await page.keyboard.press("Delete")
    await expect(page.locator("#mails a")).to_have_count(0)
    await expect(page.get_by_role("button", name="Undo")).to_be_focused()
    async with page.expect_request(lambda asked: asked.method == "PUT"):
        await page.keyboard.press("u")
    await expect(page.locator("#subject")).to_have_text("One")
    await expect(page.locator("#search")).to_have_value("")
    await expect(page.locator("#status")).to_have_text("1 mail, 0 unread")
    await expect(page.locator("#mails a" if width == 1280 else "#subject")).to_be_focused()


async def test_a_mail_is_put_back_while_the_list_is_loaded(page: Page, url: str) -> None:
    """The list that was asked for before the mail was put back lacks it; the mail is opened by the next one."""
    await page.set_viewport_size({"width": 400, "height": 800})
    await _send(url, "One")
    await page.locator("#mails a").click()
    await expect(page.locator("#open")).to_be_visible()
    held: asyncio.Queue[Route] = asyncio.Queue()
    await page.route("**/inbox", held.put, times=1)
    await page.keyboard.press("Delete")
    async with asyncio.timeout(20):
        old = await held.get()  # the deletion has the list loaded
    answer = await old.fetch()
    async with page.expect_response(lambda response: response.request.method == "PUT"):
        await page.keyboard.press("u")
    await old.fulfill(response=answer)
    await expect(page.locator("#status")).to_have_text("1 mail, 0 unread")
    await expect(page.locator("#subject")).to_be_focused()


async def test_the_offer_to_put_a_mail_back_ends(page: Page, url: str) -> None:
    """After a while the offer goes, but not while it has the focus."""
    await page.clock.install()
    await page.reload()
    await expect(page.locator("#empty")).to_have_text("No mail yet. Send a code to begin.")  # the list was read
    await _send(url, "One")
    await expect(page.locator("#subject")).to_have_text("One")
    await page.keyboard.press("Delete")
    undo = page.get_by_role("button", name="Undo")
    await expect(undo).to_be_focused()
    await page.clock.run_for(20_000)
    await expect(undo).to_be_focused()
    await page.keyboard.press("/")
    await page.clock.run_for(20_000)
    await expect(undo).to_be_hidden()


async def test_a_mail_that_takes_time_is_not_the_one_before(page: Page, url: str) -> None:
    """While a large mail is read, its subject stands above it at once, and nothing of the mail before."""
    await _send(url, "Small")
    await expect(page.locator("#subject")).to_have_text("Small")
    go_on = asyncio.Event()

    async def answer_late(route: Route) -> None:
        """Hand the mail over once the test says so."""
        await go_on.wait()
        await route.continue_()

    await page.route("**/mails/2", answer_late)
    await _send(url, "Large")
    await page.get_by_role("link", name="Large").click()
    await expect(page.locator("#subject")).to_have_text("Large")
    await expect(page.locator("#panel")).to_have_text("loading …")
    await expect(page.get_by_role("button", name="Text", exact=True)).to_be_hidden()
    go_on.set()
    await expect(page.locator("#panel")).to_have_text("Hi there")


async def test_a_mail_that_is_asked_for_twice_is_shown_once(page: Page, url: str) -> None:
    """The second answer neither takes the mail away that the first one has brought, nor the focus in it."""
    await _send(url, "Small")
    await expect(page.locator("#subject")).to_have_text("Small")
    await _send(url, "Large")
    await expect(page.locator("#mails a")).to_have_count(2)
    held: asyncio.Queue[Route] = asyncio.Queue()
    await page.route("**/mails/2", held.put)
    await page.clock.install(time=0)
    await page.clock.pause_at(1000)
    async with asyncio.timeout(20):
        await page.keyboard.press("k")
        first = await held.get()
        await page.keyboard.press("k")  # there is no mail above it
        second = await held.get()
    await first.continue_()
    await expect(page.locator("#subject")).to_have_text("Large")
    await expect(page.locator("#panel")).to_have_text("Hi there")
    await page.locator("#panel pre").focus()
    await page.clock.run_for(1000)
    await expect(page.locator("#panel pre")).to_be_focused(timeout=1)
    async with page.expect_response("**/mails/2") as answered:
        await second.continue_()
    await (await answered.value).finished()
    await page.wait_for_timeout(100)
    await expect(page.locator("#panel pre")).to_be_focused(timeout=1)


async def test_a_link_in_a_mail_opens_a_tab(page: Page, url: str) -> None:
    """A person can follow a link. The page that it opens learns neither of the inbox, nor where it came from."""
    html = f'<!doctype html><a href="{url}/mails/1/source?link">Reset</a>'
    fields = {"to": [ADA], "subject": "Reset", "html": html.replace("/mails/1/source", "/openapi.json")}
    await call(url.replace("localhost", "127.0.0.1"), SEND_MAIL, fields)
    async with page.context.expect_page() as opening:
        await page.frame_locator("iframe").get_by_role("link").click()
    opened = await opening.value
    await expect(opened).to_have_url(f"{url}/openapi.json?link")  # it may be there before its page is
    await opened.wait_for_load_state()
    assert await opened.evaluate("[window.opener, document.referrer]") == [None, ""]
    await expect(page.frame_locator("iframe").get_by_role("link")).to_be_visible()


async def test_delete_all_asks_first(page: Page, url: str) -> None:
    """Enter and Escape keep the mails, and so does the key that deletes one; only the named button deletes them."""
    await _send(url, "One")
    await _send(url, "Two")
    mails, dialog = page.locator("#mails a"), page.get_by_role("dialog")
    await expect(mails).to_have_count(2)
    await page.get_by_label("Search mails").fill("Two")
    await expect(page.locator("#status")).to_have_text("1 of 2 mails")
    button = page.get_by_role("button", name="Delete all")
    for key in ("Enter", "Escape"):
        await button.focus()
        await page.keyboard.press("Enter")
        await expect(dialog.get_by_role("heading")).to_have_text("Delete all 2 mails?")
        await expect(dialog).to_contain_text("1 of them")
        await expect(dialog.get_by_role("button", name="Keep them")).to_be_focused()
        await page.keyboard.press("Delete")
        await page.keyboard.press(key)
        await expect(dialog).to_be_hidden()
        await expect(button).to_be_focused()
    assert len((await (await page.request.get(f"{url}/inbox")).json())["mails"]) == 2
    await page.keyboard.press("Enter")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await expect(page.locator("#status")).to_have_text("No mail yet.")
    assert (await (await page.request.get(f"{url}/inbox")).json())["mails"] == []


async def test_a_mail_that_comes_while_the_list_is_read_stays(page: Page, url: str) -> None:
    """A list that was read before a mail came does not take that mail away."""
    old = await page.evaluate("fetch('/inbox').then((answer) => answer.text())")
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def answer_late(route: Route) -> None:
        """Answer with the list of before, once the mail has come."""
        asked.set()
        await go_on.wait()
        await route.fulfill(body=old, content_type="application/json")

    await page.route("**/inbox", answer_late, times=1)
    await page.reload()
    await asked.wait()  # by a page that gets events
    await _send(url, "Hello")
    await expect(page.locator("#mails a")).to_have_count(1)
    go_on.set()
    await expect(page.locator("#status")).to_have_text("1 mail, 0 unread")
    await page.wait_for_timeout(200)
    await expect(page.locator("#mails a")).to_have_count(1)


async def test_a_page_reads_the_list_once(page: Page, url: str) -> None:
    """A mail that comes costs the page one line of the list, which the event carries, and no list anew."""
    await _send(url, "First")
    await expect(page.locator("#subject")).to_have_text("First")
    asked: list[str] = []
    page.on("request", lambda one: asked.append(one.url))
    for number in range(10):
        await _send(url, f"Mail {number}")
    await expect(page.locator("#mails a")).to_have_count(11)
    assert [one for one in asked if one.endswith("/inbox")] == []
    await page.get_by_label("Search mails").fill("mail 7")
    await expect(page.locator("#mails a:visible")).to_have_count(1)


async def test_a_mail_is_unread_until_somebody_opens_it(page: Page, browser: Browser, url: str) -> None:
    """The list and the title count unread mails, also in another page and after a reload."""
    await _send(url, "One")
    await expect(page.locator("#subject")).to_have_text("One")
    await _send(url, "Two")
    await expect(page.locator("#status")).to_have_text("2 mails, 1 unread")
    await expect(page).to_have_title("(1) otpmail dev: inbox")
    other = await browser.new_page()
    await other.goto(f"{url}/#/help")
    await expect(other.locator("#mails a.unread")).to_have_count(1)
    await expect(other.locator("#mails a.unread")).to_have_text(re.compile("^Unread: Two"))
    await page.keyboard.press("k")
    await expect(page.locator("#mails a.unread")).to_have_count(0)
    await expect(page).to_have_title("otpmail dev: inbox")
    await expect(other.locator("#mails a.unread")).to_have_count(0)
    await other.reload()
    await expect(other.locator("#status")).to_have_text("2 mails, 0 unread")


async def test_an_address_leads_to_a_mail(page: Page, url: str) -> None:
    """A mail has a URL, the back button returns to the one before, and a mail that has gone is said to have."""
    await _send(url, "One")
    await expect(page.locator("#subject")).to_have_text("One")
    await _send(url, "Two")
    await page.locator("#mails a", has_text="Two").click()
    await expect(page).to_have_url(f"{url}/#/mails/2")
    await page.reload()
    await expect(page.locator("#subject")).to_have_text("Two")
    await page.go_back()
    await expect(page.locator("#subject")).to_have_text("One")
    await page.goto(f"{url}/#/mails/77")
    await expect(page.locator("#gone")).to_be_visible()
    await expect(page.locator("#open")).to_be_hidden()


async def test_the_search_reads_whole_mails(page: Page, url: str) -> None:
    """A word far down in a text is found, and Escape ends the search."""
    text = "words " * 2000 + "needle in a haystack"
    await call(url.replace("localhost", "127.0.0.1"), SEND_MAIL, {"to": [ADA], "subject": "Long", "text": text})
    await _send(url, "Short")
    await expect(page.locator("#mails a")).to_have_count(2)
    await page.keyboard.press("/")
    await page.keyboard.type("HAYSTACK needle")
    await expect(page.locator("#mails a:visible")).to_have_count(1)
    await expect(page.locator("#mails a:visible")).to_have_text(re.compile("Long"))
    await _send(url, "Another")
    await expect(page.locator("#status")).to_have_text("1 of 3 mails")
    await page.keyboard.press("Escape")
    await expect(page.locator("#mails a:visible")).to_have_count(3)


@pytest.mark.parametrize("width", [360, 1280])
async def test_many_files_leave_room_for_the_mail(page: Page, url: str, width: int) -> None:
    """Fifty files with long names scroll in a box of a few lines, none is cut off, and the text stands below."""
    await page.set_viewport_size({"width": width, "height": 740})
    files = [{"filename": f"{'long name ' * 6}{number}.pdf", "content": "AAAA" * 1000} for number in range(50)]
    fields = {"to": [ADA], "subject": "Files", "text": "Hi there", "attachments": files}
    await call(url.replace("localhost", "127.0.0.1"), SEND_MAIL, fields)
    await page.locator("#mails a").click()
    await expect(page.locator("#files a")).to_have_count(50)
    await expect(page.locator("#panel pre")).to_be_in_viewport()
    right = "Math.max(...Array.from(document.querySelectorAll('#files a'), (one) => one.getBoundingClientRect().right))"
    assert await page.evaluate(right) <= width


async def test_what_a_mail_has_is_seen(page: Page, url: str) -> None:
    """Files stand in the list and above the text, a mail without HTML opens as text, and Hebrew runs to the left."""
    file = {"filename": "report.pdf", "contentType": "application/pdf", "content": "AAAA" * 1000}
    fields = {"to": [ADA], "subject": "\u05e9\u05dc\u05d5\u05dd", "text": "Hi there", "attachments": [file]}
    await call(url.replace("localhost", "127.0.0.1"), SEND_MAIL, fields)
    await expect(page.locator("#mails a")).to_contain_text("ada@example.org · 1 file")
    await expect(page.locator("#files a")).to_have_text("report.pdf3.0 kB")
    await expect(page.locator("#panel pre")).to_have_text("Hi there\n")
    await expect(page.get_by_role("button", name="HTML", exact=True)).to_be_hidden()
    assert await page.evaluate("getComputedStyle(document.getElementById('subject')).direction") == "rtl"
    assert await page.evaluate("getComputedStyle(document.querySelector('#mails strong')).direction") == "rtl"


async def test_a_phone_shows_the_list_or_a_mail(page: Page, url: str) -> None:
    """At 360 pixels the list and a mail are a page each. The way back keeps the place, and nothing overflows."""
    await page.set_viewport_size({"width": 360, "height": 740})
    search = await page.get_by_label("Search mails").bounding_box()
    assert search is not None
    assert search["width"] > 150
    await _send(url, "One")
    await page.locator("#mails a").click()
    await expect(page.locator("#subject")).to_be_focused()
    await expect(page.locator("#side")).to_be_hidden()
    assert await page.evaluate("document.documentElement.scrollWidth") == 360
    await page.get_by_role("link", name="All mails").click()
    await expect(page.locator("#mails a")).to_be_focused()
    await expect(page.locator("#mail")).to_be_hidden()
    assert await page.evaluate("document.documentElement.scrollWidth") == 360


async def test_the_purpose_of_a_code(page: Page) -> None:
    """The form sends and checks a code of the purpose, in the language, and shows the call with them."""
    await page.get_by_text("Purpose and language").click()
    await page.get_by_label("Purpose", exact=True).fill("reset")
    await page.get_by_label("Language", exact=True).fill("de")
    await expect(page.locator("#call")).to_contain_text('"purpose":"reset","locale":"de"')
    await page.get_by_role("button", name="Send a code").click()
    await expect(page.locator("#subject")).to_contain_text("Passwort")
    await page.get_by_role("button", name="Put it into the form").click()
    await page.keyboard.press("Enter")
    await expect(page.locator("#answer")).to_have_text("valid: the code is right, and used up")


async def test_a_code_of_letters(browser: Browser, tmp_path: Path) -> None:
    """The page shows it with dashes, as the mail does. It is valid with them, and as its button fills it in."""
    file = tmp_path / "callers.toml"
    file.write_text('[anonymous]\nmethods = ["otpmail.v1.OtpService"]\n[anonymous.profiles."*"]\nletters = 12\n')
    async with Service(command="dev", CALLERS_FILE=file) as service:
        found = re.search(r"over HTTP on (\S+);", await service.wait_for_output("over HTTP on"))
        assert found is not None
        page = await browser.new_page(viewport={"width": 1280, "height": 800})
        await page.goto(found[1])
        for name in ("ada", "bob"):
            await page.get_by_label("Address").fill(f"{name}@example.org")
            await page.get_by_role("button", name="Send a code").click()
            await expect(page.locator("#people")).to_contain_text(f"{name}@example.org")
            await expect(page.locator("#code")).to_be_visible()  # with the code of this mail, not of the one before
            shown = await page.locator("#code .code").text_content() or ""
            assert re.fullmatch(r"\w{4}-\w{4}-\w{4}", shown)
            await expect(page.locator("#subject")).to_contain_text(shown)
            form = page.get_by_label("Code", exact=True)
            if name == "ada":
                await form.fill(f" {shown.lower()}")
            else:
                await page.get_by_role("button", name="Put it into the form").click()
                await expect(form).to_have_value(shown.replace("-", ""))
            await page.get_by_role("button", name="Check it").click()
            await expect(page.locator("#answer")).to_have_text("valid: the code is right, and used up")
            await page.reload()


async def test_a_service_that_has_gone_is_said_to_have(page: Page) -> None:
    """While the stream of events is broken, the page says so; once it is back, the list is read anew."""
    await page.route("**/events", lambda route: route.abort())
    await page.reload()
    await expect(page.locator("#status")).to_have_text(re.compile("does not answer"))
    await page.unroute("**/events")
    await expect(page.locator("#status")).to_have_text("No mail yet.", timeout=15_000)


async def test_an_answer_that_is_no_json_is_shown(page: Page) -> None:
    """An answer of the door in plain text, such as 403, stands in the page."""
    await page.route(f"**{SEND_CODE}", lambda route: route.fulfill(status=403, body="403 Forbidden: another origin\n"))
    await page.get_by_role("button", name="Send a code").click()
    await expect(page.locator("#answer")).to_have_text("403: 403 Forbidden: another origin")


async def test_the_page_says_why_nothing_was_sent(page: Page) -> None:
    """The page shows the relay's reply; a second time it shows that the address is suppressed, which has no code."""
    await page.get_by_label("Address").fill("550+suppressed@fail.example")
    await page.get_by_role("button", name="Send a code").click()
    await expect(page.locator("#answer")).to_have_text("The mail has failed: 550 5.1.1 there is no such mailbox")
    await page.get_by_role("button", name="Send a code").click()
    await expect(page.locator("#answer")).to_have_text(re.compile("^The mail has failed: nothing was sent, since "))


async def test_answers_are_in_plain_words(page: Page, url: str) -> None:
    """The page says what a person needs to know of a result or an error, without names of the contract."""
    answer, code = page.locator("#answer"), page.get_by_label("Code", exact=True)
    await code.fill("271828")
    await code.press("Enter")
    await expect(answer).to_have_text(re.compile("^no live code: for this address and purpose none was sent"))
    await page.get_by_label("Address").fill("ada@-.example")
    await page.locator("#send").evaluate("(form) => { form.noValidate = true; form.requestSubmit(); }")
    await expect(answer).to_have_text(re.compile("^email: is not a mailbox address"))
    await call(url.replace("localhost", "127.0.0.1"), SEND_CODE, {"email": ADA})
    await page.get_by_label("Address").fill(ADA)
    for said in ("wrong code, 4 attempts left", *[f"wrong code, {left} attempts left" for left in (3, 2)]):
        await code.press("Enter")
        await expect(answer).to_have_text(said)
    await code.press("Enter")
    await expect(answer).to_have_text("wrong code, 1 attempt left")


async def test_a_code_that_is_deferred(page: Page) -> None:
    """The form says why a code takes time, until the next action. List and mail call it deferred, not refused."""
    answer = page.locator("#answer")
    await page.get_by_label("Address").fill("452@fail.example")
    await page.get_by_role("button", name="Send a code").click()
    await expect(answer).to_have_text("The relay defers it, and otpmail tries again: 452 4.2.2 the mailbox is full")
    listed = page.locator("#mails a > span", has_text="452 4.2.2").first  # otpmail tries again in 2 s
    await expect(listed).to_have_text("Deferred: 452 4.2.2 the mailbox is full")
    await expect(listed).not_to_have_class("bad")
    await expect(page.locator("#refused")).to_have_text("452@fail.example deferred it: 452 4.2.2 the mailbox is full")
    await page.get_by_role("button", name="Recipients", exact=True).click()
    await expect(page.locator("#panel dd")).to_have_text("deferred 452 4.2.2 the mailbox is full")
    await page.get_by_label("Address").fill(ADA)
    await page.get_by_role("button", name="Send a code").click()
    await expect(answer).to_have_text("The mail is relayed: 250 2.6.0 caught")


async def test_a_new_code_empties_the_field_of_the_old_one(page: Page) -> None:
    """A code that was sent makes the one before useless, so the field is empty. Where no code is sent it stays."""
    code, send = page.get_by_label("Code", exact=True), page.get_by_role("button", name="Send a code")
    await code.fill("123456")
    await page.get_by_label("Address").fill("550@fail.example")
    await send.click()
    await expect(page.locator("#answer")).to_contain_text("The mail has failed")
    await expect(code).to_have_value("123456")
    await page.get_by_label("Address").fill(ADA)
    await send.click()
    await expect(page.locator("#answer")).to_contain_text("The mail is relayed")
    await expect(code).to_have_value("")


async def test_an_answer_goes_when_a_new_action_begins(page: Page, url: str) -> None:
    """A field that the browser refuses, and a code that a mail puts into the form, take the old answer away."""
    answer, code = page.locator("#answer"), page.get_by_label("Code", exact=True)
    await page.get_by_role("button", name="Send a code").click()
    await expect(answer).to_contain_text("relayed")
    await page.get_by_role("button", name="Check it").click()
    await expect(answer).to_be_empty()
    await page.get_by_role("button", name="Send a code").click()
    await expect(answer).to_contain_text("relayed")
    latest = await (await page.request.get(f"{url}/inbox/{ADA}/code?after=1&wait=20")).json()
    await expect(page.locator("#code .code")).to_have_text(latest["code"])  # the answer may be shown before the mail
    await page.get_by_role("button", name="Put it into the form").click()
    await expect(answer).to_be_empty()
    await code.press("Enter")
    await expect(answer).to_contain_text("valid")
    await page.get_by_label("Address").fill("")
    await page.get_by_role("button", name="Send a code").click()
    await expect(answer).to_be_empty()


async def test_no_call_is_shown_or_made_without_an_address(page: Page, url: str) -> None:
    """With an empty address the shown calls have an example of one, and a check asks for it."""
    await page.get_by_role("button", name="Send a code").click()
    await _six_digits(page)
    await page.get_by_label("Address").fill("")
    await expect(page.locator("#call")).to_contain_text('{"email":"ada@example.org"}')
    await expect(page.locator("#test-call")).to_have_text(f"curl '{url}/inbox/ada%40example.org/code?wait=5'")
    calls: list[str] = []
    page.on("request", lambda asked: calls.append(asked.url))
    await page.get_by_label("Code", exact=True).fill("123456")
    await page.get_by_role("button", name="Check it").click()
    await expect(page.get_by_label("Address")).to_be_focused()
    assert [asked for asked in calls if "ValidateCode" in asked] == []


async def test_chromium_finds_nothing_to_say(page: Page) -> None:
    """The console of the page is empty: Chromium has no advice on its fields."""
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    await page.reload()
    await page.get_by_role("button", name="Send a code").click()
    await _six_digits(page)
    assert said == []


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
