"""The calls that the page of `otpmail dev` shows, run as a reader would run them."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import sys
from typing import TYPE_CHECKING

import pytest
from playwright.async_api import expect

from http1 import SEND_CODE, call

if TYPE_CHECKING:
    from playwright.async_api import Page

ODD = "a?b/%41&{c}$HOME`id`@example.org"


@pytest.mark.parametrize("address", ["ada@example.org", "o'brien@example.org", "a#b@example.org", ODD])
async def test_the_call_of_a_test_finds_the_code(page: Page, url: str, address: str) -> None:
    """The shown call is a line for a shell, and finds the code of any legal address."""
    await page.get_by_label("Address").fill(address)
    shown = await page.locator("#test-call").inner_text()
    sent = await call(url.replace("localhost", "127.0.0.1"), SEND_CODE, {"email": address})
    assert sent.status == 200
    assert re.fullmatch(r"\d{6}", json.loads(await _run("sh", shown))["code"])


@pytest.mark.parametrize(("language", "command"), [("curl", "sh"), ("Python", sys.executable), ("Node", "node")])
async def test_the_calls_run_as_they_stand(page: Page, url: str, language: str, command: str) -> None:
    """The shown call sends what the form has, whatever quotes, backslashes and dollar signs are in it."""
    if shutil.which(command) is None:
        pytest.skip(f"there is no {command} here")
    quotes, backslashes = '"it\'s" $HOME `id` ${x} $(id) %s !!', "\\n\\\u2028\\u0041\u00e9\\"
    await page.get_by_text("Purpose and language").click()
    for label, text in (("Address", ODD), ("Purpose", quotes), ("Language", backslashes)):
        await page.get_by_label(label, exact=True).fill(text)
    await page.get_by_role("button", name=language, exact=True).click()
    shown = await page.locator("#call").inner_text()
    bodies: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Keep the body of a request, and answer with it."""
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head.lower())
        assert length is not None
        body = await reader.readexactly(int(length[1]))
        bodies.append(body)
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        await _run(command, shown.replace(url, f"http://127.0.0.1:{port}"))
    assert [json.loads(body) for body in bodies] == [{"email": ODD, "purpose": quotes, "locale": backslashes}]


async def test_the_calls_follow_the_form(page: Page, url: str) -> None:
    """An address that a mail puts into the form stands in the shown calls too."""
    await call(url.replace("localhost", "127.0.0.1"), SEND_CODE, {"email": "grace@example.org"})
    await page.locator("#mails a").click()
    await page.get_by_role("button", name="Put it into the form").click()
    await expect(page.locator("#call")).to_contain_text('{"email":"grace@example.org"}')
    await expect(page.locator("#test-call")).to_contain_text("/inbox/grace%40example.org/code")


async def _run(command: str, text: str) -> str:
    """Return what a command prints that reads the text as its program."""
    module = ["--input-type=module"] if command == "node" else []
    run = await asyncio.create_subprocess_exec(
        command, *module, "-", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(30):
        printed, _ = await run.communicate(text.encode())
    assert run.returncode == 0
    return printed.decode()
