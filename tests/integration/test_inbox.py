"""The inbox of `otpmail dev`, asked over HTTP as tests ask it."""

from __future__ import annotations

import asyncio
import json
import re
from typing import TYPE_CHECKING

import pytest

from http1 import SEND_CODE, SEND_MAIL, VALIDATE_CODE, call, request
from integration.callers import table, write
from service import Service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

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
    assert code["code"] in code["preview"]
    assert code["code"] in (await request(url, f"/mails/{code['id']}")).json["text"]
    assert (hello["subject"], hello["code"], hello["to"]) == ("Hello", "", [ADA])
    assert (await request(url, "/inbox/ada%40example.org/code")).json == read.json
    assert (await request(url, f"/inbox/{ADA}/code?after={code['id']}")).status == 404
    assert (await request(url, f"/inbox/{ADA}", method="DELETE")).json == {"deleted": 2}
    assert (await request(url, "/inbox")).json == {"mails": []}


async def test_mails_are_searched_and_marked_as_read(dev: tuple[Service, str]) -> None:
    """`search` finds words of a text, for an address too; PUT marks a mail as read, and no other verb does."""
    _, url = dev
    for name in ("ada", "bob"):
        await call(url, SEND_MAIL, {"to": [f"{name}@example.org"], "subject": "Hi", "text": f"Grüße, {name}"})

    async def found(path: str) -> list[int]:
        """Return the numbers of the mails that are found."""
        return [mail["id"] for mail in (await request(url, path)).json["mails"]]

    assert await found("/inbox?search=gr%C3%BC%C3%9Fe") == [2, 1]
    assert await found("/inbox?search=bob+hi") == [2]
    assert await found(f"/inbox/{ADA}?search=bob") == []
    assert (await request(url, "/mails/1/read", method="PUT")).json == {"read": 1}
    assert [mail["read"] for mail in (await request(url, "/inbox")).json["mails"]] == [False, True]
    assert (await request(url, "/mails/1/read")).status == 405
    assert (await request(url, "/mails/9/read", method="PUT")).status == 404
    evil = {"origin": "https://evil.example"}
    assert (await request(url, "/mails/2/read", method="PUT", headers=evil)).status == 403


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


async def test_an_empty_address_is_not_everybody(dev: tuple[Service, str]) -> None:
    """A test whose address is empty gets an error that says so; it neither reads nor deletes the mails of others."""
    _, url = dev
    await call(url, SEND_CODE, {"email": ADA})
    for path in (
        "/inbox/",
        "/inbox//code",
        "/inbox//code?wait=20",
        "/inbox/%2Fcode",
        "/inbox/%20",
        "/inbox/%20%09/code",
    ):
        for method in ("GET", "DELETE"):
            answer = await request(url, path, method=method)
            assert (answer.status, "the address is empty" in answer.json["error"]) == (400, True), (method, path)
    assert len((await request(url, "/inbox")).json["mails"]) == 1


async def test_what_is_no_address_is_no_path(dev: tuple[Service, str]) -> None:
    """A wrong path or address is 404 with the reason at once, rather than an empty inbox, or a wait for nothing."""
    _, url = dev
    for path in ("/inbox/ada", f"/inbox/{ADA}/codes", f"/inbox/{ADA}/code/", "/inbox/code", "/inbox/ada/code?wait=20"):
        for method in ("GET", "DELETE"):
            answer = await request(url, path, method=method)
            if method == "DELETE" and "/code?" in path:
                assert answer.status == 405
            else:
                assert (answer.status, "is not a mailbox address" in answer.json["error"]) == (404, True), (
                    method,
                    path,
                )
    assert (await request(url, "/inbox/%20ADA@Example.org%20")).json == {"mails": []}


HOSTILE = (
    '<html><body onload="alert(1)"><script>parent.document.title="taken"</script>'
    '<img src="https://evil.example/pixel"><form action="/inbox"><button>x</button></form></body></html>'
)


async def test_the_page(dev: tuple[Service, str]) -> None:
    """The page and its files name no other host, and its policy lets nothing else in."""
    _, url = dev
    scripts = [(f"/page/{name}.js", "text/javascript") for name in ("inbox", "mail", "calls", "dom", "times")]
    for path, kind in (("/", "text/html"), ("/page/inbox.css", "text/css"), *scripts):
        answer = await request(url, path)
        assert (answer.status, answer.fields["content-type"]) == (200, f"{kind}; charset=utf-8")
        policy = answer.fields["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert re.findall(r"https?://[a-z]", answer.text) == []
        assert (await request(url, path, b"{}")).status == 405


async def test_what_came_with_a_mail_can_do_nothing(dev: tuple[Service, str]) -> None:
    """HTML of a mail is served without an origin, scripts, forms or outside resources; files are only downloaded."""
    _, url = dev
    file = {"filename": "page.html", "contentType": "text/html", "content": "PHNjcmlwdD4="}
    await call(url, SEND_MAIL, {"to": [ADA], "subject": "<b>x</b>", "html": HOSTILE, "attachments": [file]})
    (mail,) = (await request(url, "/inbox")).json["mails"]
    page = await request(url, f"/mails/{mail['id']}/html")
    assert page.fields["content-security-policy"].startswith(
        "sandbox allow-popups allow-popups-to-escape-sandbox; default-src 'none'; style-src 'unsafe-inline'; "
    )
    assert page.text.startswith('<base target="_blank">')
    shown = (await request(url, f"/mails/{mail['id']}")).json
    assert shown["attachments"] == [{"name": "page.html", "type": "text/html", "octets": 8}]
    assert shown["recipients"] == [{"address": ADA, "reply": "250 2.6.0 caught"}]
    assert ["Subject", "<b>x</b>"] in shown["headers"]
    for part in ("attachments/0", "source"):
        answer = await request(url, f"/mails/{mail['id']}/{part}")
        assert (answer.status, answer.fields["content-type"]) == (200, "application/octet-stream")
        name = "page.html" if part == "attachments/0" else "mail.eml"
        assert answer.fields["content-disposition"] == f"attachment; filename*=UTF-8''{name}"
        assert answer.fields["x-content-type-options"] == "nosniff"
    for path in ("attachments/1", "attachments/x", "attachments/", "nothing"):
        assert (await request(url, f"/mails/{mail['id']}/{path}")).status == 404
    for number in ("99", "x", "", "-1", "9" * 50):
        assert (await request(url, f"/mails/{number}")).status == 404
    assert (await request(url, f"/mails/{mail['id']}", method="DELETE")).json == {"deleted": 1}
    assert (await request(url, f"/mails/{mail['id']}/html")).status == 404
    assert (await request(url, "/mails/99", method="PUT")).status == 404
    assert (await request(url, f"/mails/{mail['id']}", method="PUT")).json == {"put_back": 1}
    assert (await request(url, f"/mails/{mail['id']}/html")).status == 200
    assert (await request(url, f"/mails/{mail['id']}/html", method="PUT")).status == 405
    assert (await request(url, f"/mails/{mail['id']}", method="PUT")).status == 404


async def test_a_page_learns_of_mails_at_once(dev: tuple[Service, str]) -> None:
    """Each mail is an event with its line of the list, and so is a deletion. An open page delays no stop."""
    service, url = dev
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    writer.write(b"GET /events HTTP/1.1\r\nhost: localhost\r\n\r\n")
    async with asyncio.timeout(20):
        await reader.readuntil(b": hello")
        await call(url, SEND_CODE, {"email": ADA})
        line = (await reader.readuntil(b"data: {") + await reader.readuntil(b"\n")).rpartition(b"data: ")[2]
        told = json.loads(line)
        assert (told["mail"]["id"], told["mail"]["to"], told["oldest"]) == (1, [ADA], 1)
        assert "html" not in told["mail"]
        await request(url, "/inbox", method="DELETE")
        await reader.readuntil(b'data: {"reload": true}\n')
    assert await service.stop(timeout=15) == 0
    writer.close()


async def test_failures_on_demand_are_seen(dev: tuple[Service, str]) -> None:
    """A mail that was refused is in the inbox with its content and each reply; its code is not to be had there."""
    _, url = dev
    await call(url, SEND_CODE, {"email": "550@fail.example"})
    await call(url, SEND_MAIL, {"to": [ADA, "552@fail.example"], "subject": "Both", "text": "Hi"})
    both, code = (await request(url, "/inbox")).json["mails"]
    assert code["refused"] == [{"address": "550@fail.example", "reply": "550 5.1.1 there is no such mailbox"}]
    assert code["to"] == ["550@fail.example"]
    assert (await request(url, "/inbox/550@fail.example")).json["mails"] == [code]
    assert (await request(url, "/inbox/550@fail.example/code")).status == 404
    assert both["to"] == [ADA, "552@fail.example"]
    shown = (await request(url, f"/mails/{both['id']}")).json
    assert shown["recipients"] == [
        {"address": ADA, "reply": "250 2.6.0 caught"},
        {"address": "552@fail.example", "reply": "552 5.2.2 the mailbox is full for good"},
    ]


async def test_a_failure_is_the_same_again(dev: tuple[Service, str]) -> None:
    """An address fails alike each time, and one with the tag `suppressed` is suppressed from the second time on."""
    _, url = dev
    for address, again in (("550@fail.example", False), ("550+suppressed@fail.example", True)):
        answers = [await call(url, SEND_CODE, {"email": address}) for _ in range(2)]
        (first,), (second,) = (answer.json["mail"]["recipients"] for answer in answers)
        assert first["reply"] == "there is no such mailbox"
        assert ("suppression" in second, second.get("reply") == first["reply"]) == (again, not again)


async def test_off_loopback(tmp_path: Path) -> None:
    """The inbox asks nobody for a token, so it answers on loopback alone, also where callers are asked for theirs."""
    file = tmp_path / "callers.toml"
    write(file, table("shop"))
    async with Service(command="dev", HTTP_HOST="0.0.0.0", CALLERS_FILE=file) as service:
        found = re.search(r"over HTTP on (\S+);", await service.wait_for_output("over HTTP on"))
        assert found is not None
        url = f"http://127.0.0.1:{found[1].rpartition(':')[2]}"
        for path in ("/", "/inbox", f"/inbox/{ADA}/code"):
            answer = await request(url, path)
            assert (answer.status, "loopback" in answer.text) == (404, True)
        assert (await request(url, SEND_CODE, b"{}", {"content-type": "application/json"})).status == 401
