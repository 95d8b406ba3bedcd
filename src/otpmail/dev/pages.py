"""The pages of `otpmail dev` on HTTP_PORT: the inbox for people, and for tests in JSON."""

from http import HTTPStatus
from math import isfinite
from urllib.parse import parse_qs, unquote

from otpmail.address import parse_address
from otpmail.dev.aside import work_on
from otpmail.dev.inbox import Inbox, InboxMail
from otpmail.dev.mails import serve_events, serve_mail
from otpmail.dev.served import FILES, PAGE_FIELDS, answer_json
from otpmail.dev.show import summary
from otpmail.errors import InvalidArgument
from otpmail.web.exchange import Exchange

_INBOX = "/inbox"
_CODE = "/code"
_MAILS = "/mails/"
_EVENTS = "/events"
_LONGEST_WAIT = 60.0


class DevPages:
    """Answers for the pages over an inbox."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox

    def __repr__(self) -> str:
        return f"<DevPages {self._inbox!r}>"

    async def __call__(self, exchange: Exchange) -> None:
        """Answer a request."""
        path = exchange.path
        if path == _INBOX or path.startswith(f"{_INBOX}/"):
            await self._serve_inbox(exchange, unquote(path[len(_INBOX) :]))
        elif path.startswith(_MAILS):
            await serve_mail(exchange, self._inbox, path[len(_MAILS) :])
        elif (file := FILES.get(path)) is None and path != _EVENTS:
            await exchange.answer_status(HTTPStatus.NOT_FOUND, "there is no such path")
        elif exchange.method not in {"GET", "HEAD"}:
            await exchange.answer_status(HTTPStatus.METHOD_NOT_ALLOWED, "", (b"allow", b"GET, HEAD"))
        elif file is None:
            await serve_events(exchange, self._inbox)
        else:
            await exchange.answer(HTTPStatus.OK, file.octets, (b"content-type", file.kind), *PAGE_FIELDS)

    async def _serve_inbox(self, exchange: Exchange, rest: str) -> None:
        """Answer for the mails to an address, for their latest code, or without a rest of the path for all mails."""
        verb, name = exchange.method, rest.removeprefix("/")
        is_for_code = name.endswith(_CODE)
        address = name.removesuffix(_CODE) if rest else None
        if address is not None and not address.strip():  # of a program: it does not mean everybody's mails
            text = f"the address is empty: write {_INBOX}/ADDRESS or {_INBOX}/ADDRESS{_CODE}; {_INBOX} has all mails"
            await answer_json(exchange, {"error": text}, HTTPStatus.BAD_REQUEST)
        elif verb not in (allowed := ("GET",) if is_for_code else ("GET", "DELETE")):
            await exchange.answer_status(HTTPStatus.METHOD_NOT_ALLOWED, "", (b"allow", ", ".join(allowed).encode()))
        elif address is not None and (problem := _problem(address)):
            await answer_json(exchange, {"error": problem}, HTTPStatus.NOT_FOUND)
        elif is_for_code and address is not None:
            await self._serve_code(exchange, address)
        elif verb == "GET":
            words = parse_qs(exchange.query.decode("latin-1")).get("search", [""])[-1]
            mails = list(self._inbox.mails(address))
            octets = sum(mail.octets for mail in mails) if words else 0
            found = await work_on(octets, lambda: [mail for mail in mails if mail.has(words)])
            await answer_json(exchange, {"mails": [summary(mail) for mail in found]})
        else:
            await answer_json(exchange, {"deleted": self._inbox.clear(address)})

    async def _serve_code(self, exchange: Exchange, address: str) -> None:
        """Answer with the code in the latest mail to an address, of those after the mail `after`.

        Without one it waits `wait` seconds.
        """
        query = parse_qs(exchange.query.decode("latin-1"))
        wait, after = _number(query, "wait"), _number(query, "after")
        if wait is None or after is None or not 0 <= wait <= _LONGEST_WAIT:
            text = f"wait must be seconds, at most {_LONGEST_WAIT:g}, and after the id of a mail"
            await answer_json(exchange, {"error": text}, HTTPStatus.BAD_REQUEST)
            return

        def find() -> InboxMail | None:
            """Return the latest mail with a code that was not refused."""
            mails = self._inbox.mails(address, delivered=True)
            return next((mail for mail in mails if mail.code and mail.number > after), None)

        mail = await self._inbox.wait_for(find, address, wait)
        if mail is None:
            text = f"no mail with a code to {address} came in {wait:g} s"
            await answer_json(exchange, {"error": text}, HTTPStatus.NOT_FOUND)
        else:
            await answer_json(exchange, {"code": mail.code, "id": mail.number})


def _problem(address: str) -> str:
    """Return why no mail can have come to an address, empty for a mailbox."""
    try:
        parse_address(address, "the address")
    except InvalidArgument as error:
        return str(error)
    return ""


def _number(query: dict[str, list[str]], name: str) -> float | None:
    """Return a number of the query, 0 without one, None for what is no number."""
    try:
        number = float(query.get(name, ["0"])[-1])
    except ValueError:
        return None
    return number if isfinite(number) else None
