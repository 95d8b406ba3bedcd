"""One mail of the inbox over HTTP, and the stream of events that shows pages new mails."""

import asyncio
from http import HTTPStatus
from urllib.parse import quote

from otpmail.dev.aside import work_on
from otpmail.dev.bodies import for_frame, html_with_images
from otpmail.dev.inbox import Inbox, InboxMail
from otpmail.dev.served import MAIL_FIELDS, PAGE_FIELDS, answer_json, answer_json_body, json_body, to_json
from otpmail.dev.show import details, file_name, octets_of, summary
from otpmail.web.exchange import Exchange

_ATTACHMENTS = "attachments/"
_READ = "read"
_MOST_EVENTS = 1000
_RELOAD = '{"reload": true}'
_BEAT_SECONDS = 20.0  # between two lines of a stream that says nothing, so that a broken connection is noticed


async def serve_mail(exchange: Exchange, inbox: Inbox, name: str) -> None:
    """Answer for a mail by its number, or for a part of it behind a slash."""
    number, _, part = name.partition("/")
    mail = inbox.get(_read_number(number))
    verb = exchange.method
    allowed = "GET" if part else "GET, PUT, DELETE"
    if part == _READ:
        await _mark_read(exchange, inbox, mail)
    elif verb not in allowed.split(", "):
        await exchange.answer_status(HTTPStatus.METHOD_NOT_ALLOWED, "", (b"allow", allowed.encode()))
    elif verb == "PUT":
        await _put_back(exchange, inbox, _read_number(number))
    elif mail is None:
        await exchange.answer_status(HTTPStatus.NOT_FOUND, "there is no such mail")
    elif verb == "DELETE":
        inbox.delete(mail.number)
        await answer_json(exchange, {"deleted": 1})
    elif not part:
        await answer_json_body(exchange, await work_on(mail.octets, lambda: json_body(details(mail))))
    else:
        await _serve_part(exchange, mail, part)


def _read_number(text: str) -> int:
    """Return the number of a mail, 0 for text that is no number."""
    return int(text) if text.isdecimal() and len(text) < 10 else 0


async def _put_back(exchange: Exchange, inbox: Inbox, number: int) -> None:
    if inbox.put_back(number):
        await answer_json(exchange, {"put_back": 1})
    else:
        await exchange.answer_status(HTTPStatus.NOT_FOUND, "this is not the mail that was deleted last")


async def _mark_read(exchange: Exchange, inbox: Inbox, mail: InboxMail | None) -> None:
    if exchange.method != "PUT":
        await exchange.answer_status(HTTPStatus.METHOD_NOT_ALLOWED, "", (b"allow", b"PUT"))
    elif mail is None or not inbox.mark_read(mail.number):
        await exchange.answer_status(HTTPStatus.NOT_FOUND, "there is no such mail")
    else:
        await answer_json(exchange, {"read": 1})


async def _serve_part(exchange: Exchange, mail: InboxMail, part: str) -> None:
    if part == "html":
        html = await work_on(mail.octets, lambda: _html_of(mail))
        await exchange.answer(HTTPStatus.OK, html, (b"content-type", b"text/html; charset=utf-8"), *MAIL_FIELDS)
        return
    octets, name = None, "mail.eml"
    if part == "source":
        octets = mail.caught.content
    elif (number := part.removeprefix(_ATTACHMENTS)) != part and number.isdecimal() and len(number) < 5:
        octets, name = await work_on(mail.octets, lambda: _attachment_of(mail, int(number)))
    if octets is None:
        await exchange.answer_status(HTTPStatus.NOT_FOUND, "there is no such part")
        return
    kind = (b"content-type", b"application/octet-stream")
    kept = f"attachment; filename*=UTF-8''{quote(name, safe='')}"  # RFC 6266
    await exchange.answer(HTTPStatus.OK, octets, kind, (b"content-disposition", kept.encode()), *MAIL_FIELDS)


def _html_of(mail: InboxMail) -> bytes:
    """Return the HTML of a mail as a frame shows it."""
    return for_frame(html_with_images(mail.caught.message)).encode("utf-8", "backslashreplace")


def _attachment_of(mail: InboxMail, number: int) -> tuple[bytes | None, str]:
    """Return the octets of an attachment, None for a number that none has, and the name of its file."""
    attachments = list(mail.caught.message.iter_attachments())
    if number >= len(attachments):
        return None, ""
    return octets_of(attachments[number]), file_name(attachments[number].get_filename() or "")


async def serve_events(exchange: Exchange, inbox: Inbox) -> None:
    """Send a server-sent event for each mail, with its line of the list, and one where the list is to be read anew."""
    waiting: asyncio.Queue[str] = asyncio.Queue(_MOST_EVENTS)

    def enqueue(mail: InboxMail | None) -> None:
        """Add an event for the page. If it does not read in time, its events become one: read the list anew."""
        if waiting.full():
            while not waiting.empty():
                waiting.get_nowait()
            mail = None
        waiting.put_nowait(_RELOAD if mail is None else to_json({"mail": summary(mail), "oldest": inbox.oldest}))

    unfollow = inbox.follow(enqueue)
    try:
        await exchange.begin(200, (b"content-type", b"text/event-stream"), *PAGE_FIELDS)
        await exchange.write(b": hello\n\n")
        while True:
            try:
                async with asyncio.timeout(_BEAT_SECONDS):
                    text = f"data: {await waiting.get()}\n\n"
            except TimeoutError:
                text = ": beat\n\n"
            await exchange.write(text.encode("utf-8", "backslashreplace"))
    finally:
        unfollow()
