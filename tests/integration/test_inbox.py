"""The inbox of `otpmail dev`, asked over HTTP as tests ask it."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import pytest

from http1 import SEND_CODE, SEND_MAIL, VALIDATE_CODE, call, request
from service import Service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ADA = "ada@example.org"


@pytest.fixture
async def dev() -> AsyncIterator[tuple[Service, str]]:
    """Run `otpmail dev`, and tell where it answers over HTTP."""
    async with Service(command="dev") as service:
        found = re.search(r"over HTTP on (\S+);", await service.wait_for_output("over HTTP on"))
        assert found is not None
        yield service, found[1].replace("localhost", "127.0.0.1")


async def test_a_code_is_read_and_validated(dev: tuple[Service, str]) -> None:
    """A test sends a code, waits for its mail, and validates what it reads there; deleting takes the mails away."""
    _, url = dev
    waiting = asyncio.create_task(request(url, f"/inbox/{ADA}/code?wait=20"))
    await call(url, SEND_MAIL, {"to": [ADA], "subject": "Hello", "text": "Hi"})
    await call(url, SEND_CODE, {"email": ADA})
    read = await waiting
    assert read.status == 200
    checked = await call(url, VALIDATE_CODE, {"email": ADA, "code": read.json["code"]})
    assert checked.json["result"] == "RESULT_VALID"
    code, hello = (await request(url, f"/inbox/{ADA}")).json["mails"]
    assert code["code"] == read.json["code"]
    assert code["code"] in code["text"]
    assert (hello["subject"], hello["code"], hello["to"]) == ("Hello", "", [ADA])
    assert (await request(url, "/inbox/ada%40example.org/code")).json == read.json
    assert (await request(url, f"/inbox/{ADA}/code?after={code['id']}")).status == 404
    assert (await request(url, f"/inbox/{ADA}", method="DELETE")).json == {"deleted": 2}
    assert (await request(url, "/inbox")).json == {"mails": []}


async def test_requests_that_the_inbox_does_not_take(dev: tuple[Service, str]) -> None:
    """A wait that is no number or too long is 400, other verbs are 405, and pages of others are 403."""
    _, url = dev
    for query in ("wait=soon", "wait=-1", "wait=61", "wait=nan", "after=x"):
        assert (await request(url, f"/inbox/{ADA}/code?{query}")).status == 400
    assert (await request(url, f"/inbox/{ADA}/code?wait=0.05")).status == 404
    for path in ("/inbox", f"/inbox/{ADA}", f"/inbox/{ADA}/code"):
        assert (await request(url, path, b"{}")).status == 405
        assert (await request(url, path, headers={"origin": "https://evil.example"})).status == 403
        assert (await request(url, path, headers={"host": "evil.example"})).status == 403
