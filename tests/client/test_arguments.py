"""Values of the wrong kind, in calls of both clients: each error names the argument, and no call is made."""

from __future__ import annotations

import asyncio
import inspect
import math
from datetime import timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest

from client.scripted import Scripted
from otpmail.client import Attachment, Client, Error, InvalidRequest, OutgoingMail, Retries, State, SyncClient, TimedOut
from otpmail.v1 import mail_pb2, otp_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ADA = "ada@example.org"


@pytest.fixture(params=["async", "sync"])
def kind(request: pytest.FixtureRequest) -> str:
    """Which of the clients a test uses."""
    return str(request.param)


async def call(kind: str, address: str, name: str, *args: Any, **more: Any) -> Any:
    """Call a method, in a thread if it blocks, and return all that it yields."""
    if kind == "async":
        async with Client(address) as client:
            made = getattr(client, name)(*args, **more)
            return [each async for each in made] if inspect.isasyncgen(made) else await made

    def call_now(client: SyncClient) -> Any:
        """Call a method that blocks."""
        made = getattr(client, name)(*args, **more)
        return list(made) if inspect.isgenerator(made) else made

    with SyncClient(address) as blocking:
        return await asyncio.to_thread(call_now, blocking)


_PAIRS = "must be a sequence, each a pair of a name and a value"


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("send_mail", {"to": 5}, "to: must be text or a sequence, each text, not int"),
        ("send_mail", {"to": b"ada@example.org"}, "to: must be text or a sequence, each text, not bytes"),
        ("send_mail", {"to": [ADA, 5]}, "to[1]: must be text, not int"),
        ("send_mail", {"to": ADA, "subject": 5}, "subject: must be text, not int"),
        ("send_mail", {"to": ADA, "text": b"\xff"}, "text: must be text, not bytes"),
        ("send_mail", {"to": ADA, "from_": 5}, "from: must be text, not int"),
        ("send_mail", {"to": ADA, "headers": {"X-A": "b"}}, f"headers: {_PAIRS}, not dict"),
        ("send_mail", {"to": ADA, "headers": ["X-A: b"]}, "headers[0]: must be a pair of a name and a value, not str"),
        ("send_mail", {"to": ADA, "headers": [("X-A", 5)]}, "headers[0][1]: must be text, not int"),
        ("send_mail", {"to": ADA, "headers": {"X-A: b"}}, "headers[0]: must be a pair of a name and a value, not str"),
        ("send_mail", {"to": ADA, "attachments": {b"a"}}, "attachments[0]: must be an Attachment, not bytes"),
        ("send_mail", {"to": ADA, "attachments": [b"a"]}, "attachments[0]: must be an Attachment, not bytes"),
        (
            "send_mail",
            {"to": ADA, "attachments": Attachment("a", b"")},
            "attachments: must be a sequence, each an Attachment, not Attachment",
        ),
        (
            "send_mail",
            {"to": ADA, "attachments": [Attachment("a", "text")]},  # type: ignore[arg-type]
            "attachments[0].content: must be bytes, not str",
        ),
        ("send_mail", {"to": ADA, "labels": {"a": 1}}, "labels['a']: must be text, not int"),
        ("send_mail", {"to": ADA, "labels": {"a": "b", "c": None}}, "labels['c']: must be text, not NoneType"),
        ("send_mail", {"to": ADA, "labels": {None: "b"}}, "labels: a name: must be text, not NoneType"),
        ("send_mail", {"to": [ADA, None]}, "to[1]: must be text, not NoneType"),
        ("send_mail", {"to": ADA, "labels": ["a"]}, "labels: must be a mapping of text to text, not list"),
        ("send_mail", {"to": ADA, "priority": None}, "priority: must be one of NORMAL, BULK, URGENT, not NoneType"),
        ("send_mail", {"to": ADA, "ttl": timedelta(1)}, "ttl: must be a number, not timedelta"),
        ("send_mail", {"to": ADA, "timeout": "5"}, "timeout: must be a number of seconds, not str"),
        ("send_mail", {"to": ADA, "bogus": 5}, "send_mail() got an unexpected keyword argument 'bogus'"),
        ("send_code", {"email": 5}, "email: must be text, not int"),
        ("send_code", {"email": ADA, "variables": {"a": 1}}, "variables['a']: must be text, not int"),
        ("send_code", {"email": ADA, "variables": {1: "a"}}, "variables: a name: must be text, not int"),
        ("send_code", {"email": ADA, "client_ip": ip_address("::1")}, "client_ip: must be text, not IPv6Address"),
        ("check_code", {"email": ADA, "code": 123456}, "code: must be text, not int"),
        ("get_mail", {"mail_id": 5}, "mail_id: must be text, not int"),
        ("watch_mail", {"mail_id": 5}, "mail_id: must be text, not int"),
        ("watch_mail", {"mail_id": "a", "timeout": "5"}, "timeout: must be a number of seconds, not str"),
        ("list_mails", {"recipient": 5}, "recipient: must be text, not int"),
        ("send_mails", {"outgoing": None}, "outgoing: must be an iterable of OutgoingMail, not NoneType"),
        ("send_mails", {"outgoing": "ada"}, "outgoing: each must be an OutgoingMail, not str"),
        ("send_mails", {"outgoing": [OutgoingMail(to=5)]}, "to: must be text or a sequence, each text, not int"),  # type: ignore[arg-type]
    ],
)
async def test_a_value_of_another_type_is_named(kind: str, name: str, arguments: dict[str, Any], words: str) -> None:
    """A value of another type is a TypeError that names the argument; it is no Error, which a program may expect."""
    async with Scripted([]) as service:
        with pytest.raises(TypeError) as caught:
            await call(kind, service.address, name, **arguments)
    assert str(caught.value) == words
    assert not isinstance(caught.value, Error)
    assert service.requests == []


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("send_mail", {"to": ADA, "priority": "high"}, "priority: must be one of NORMAL, BULK, URGENT, not 'high'"),
        ("send_mail", {"to": ADA, "wait_for": "queue"}, "wait_for: must be one of RELAY, QUEUE, not 'queue'"),
        ("send_code", {"email": ADA, "wait_for": "QUEU"}, "wait_for: must be one of RELAY, QUEUE, not 'QUEU'"),
        (
            "report_delivery",
            {"email": ADA, "outcome": "bounce"},
            "outcome: must be one of DELIVERED, BOUNCED, COMPLAINED, not 'bounce'",
        ),
        (
            "list_mails",
            {"state": "sent"},
            f"state: must be one of {', '.join(State)}, not 'sent'",
        ),
        (
            "send_mails",
            {"outgoing": [OutgoingMail(to=ADA, priority="high")]},  # type: ignore[arg-type]
            "priority: must be one of NORMAL, BULK, URGENT, not 'high'",
        ),
    ],
)
async def test_a_word_that_is_none_of_its_kind(kind: str, name: str, arguments: dict[str, Any], words: str) -> None:
    """A word that a call does not know is never taken for the default; the error has the words that it knows."""
    async with Scripted([]) as service:
        with pytest.raises(InvalidRequest) as caught:
            await call(kind, service.address, name, **arguments)
    assert str(caught.value) == words
    assert caught.value.field == words.partition(":")[0]
    assert service.requests == []


async def test_words_may_be_plain_text(kind: str) -> None:
    """A word of a kind may be given as text, as programs have it in JSON."""
    async with Scripted(mail_pb2.SendMailResponse()) as service:
        await call(kind, service.address, "send_mail", ADA, priority="URGENT", wait_for="QUEUE")
    assert service.requests[0].wait_for == mail_pb2.WAIT_FOR_QUEUE
    assert service.requests[0].priority == mail_pb2.PRIORITY_URGENT


@pytest.mark.parametrize("timeout", [0, -1, -1e300, -math.inf])
async def test_a_time_that_has_passed(kind: str, timeout: float) -> None:
    """A call whose time has passed is not made: the service would mail a code that its caller takes for not sent."""
    async with Scripted() as service:
        with pytest.raises(TimedOut, match="had passed before"):
            await call(kind, service.address, "send_code", ADA, timeout=timeout)
    assert service.requests == []


@pytest.mark.parametrize("timeout", [math.inf, 1e10, 1e300, 10**400])
async def test_a_time_without_end(kind: str, timeout: float) -> None:
    """An infinite timeout, or one that gRPC can't count, is no deadline."""
    async with Scripted(otp_pb2.SendCodeResponse()) as service:
        await call(kind, service.address, "send_code", ADA, timeout=timeout)
    assert len(service.requests) == 1


async def test_a_timeout_that_is_no_number(kind: str) -> None:
    """A call and a client refuse a timeout that is no number."""
    with pytest.raises(ValueError, match="timeout: nan is no time in seconds"):
        await call(kind, "127.0.0.1:1", "send_code", ADA, timeout=math.nan)
    made: type[Any] = Client if kind == "async" else SyncClient
    with pytest.raises(ValueError, match="timeout: nan is no time in seconds"):
        made(timeout=math.nan)


@pytest.mark.parametrize("made", [Client, SyncClient])
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"server": 40700}, "server: must be text, not int"),
        ({"token": b"secret"}, "token: must be text, not bytes"),
        ({"tls_name": 5}, "tls_name: must be text, not int"),
        ({"retries": 5}, "retries: must be Retries, as in Retries(attempts=3), not int"),
        ({"timeout": "5"}, "timeout: must be a number of seconds, not str"),
        *(
            (
                {"server": server},
                f"server: {server!r} is wrong: must be host:port, such as 127.0.0.1:40700, or unix:PATH",
            )
            for server in (
                "http://localhost:40700",
                "grpc://localhost:40700",
                "localhost",
                "localhost:",
                "localhost:abc",
                "localhost:99999",
                "localhost:0",
                ":40700",
                "::1:40700",
                " localhost:40700",
                "localhost:40700/",
            )
        ),
        ({"token": "secret\n"}, "token: holds blanks or characters that no token has"),
        ({"token": "sécret"}, "token: holds blanks or characters that no token has"),
    ],
)
def test_an_argument_of_a_client_that_is_wrong(made: type[Any], arguments: dict[str, Any], words: str) -> None:
    """A client says at once which of its arguments is wrong. No such error holds a token."""
    with pytest.raises((TypeError, ValueError)) as caught:
        made(**arguments)
    assert str(caught.value) == words


@pytest.mark.parametrize(
    "server", ["localhost:1", "[::1]:40700", "unix:a", "unix:///a", "dns:///mail:1", "ipv4:1.2.3.4:1"]
)
def test_addresses_of_all_kinds(server: str) -> None:
    """An address may be any that gRPC takes."""
    assert repr(SyncClient(server)) == f"<SyncClient {server}>"


@pytest.mark.parametrize(
    ("name", "value"), [("OTPMAIL_SERVER", "http://localhost:40700"), ("OTPMAIL_TOKEN", "secret\n")]
)
async def test_a_variable_that_is_wrong(kind: str, name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that is wrong is named by the call that needs it; the client itself can be made and shown."""
    monkeypatch.setenv(name, value)
    made: type[Any] = Client if kind == "async" else SyncClient
    assert repr(made())
    with pytest.raises(ValueError, match=f"{name}: ") as caught:
        await call(kind, "" if name == "OTPMAIL_SERVER" else "127.0.0.1:1", "send_code", ADA)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("given", [{"attempts": 0}, {"attempts": -1}, {"most_wait": -1.0}, {"most_wait": math.nan}])
def test_retries_that_are_none(given: dict[str, Any]) -> None:
    """A call is made once or more, and a wait is a time."""
    with pytest.raises(ValueError, match="attempts must be 1 or more, and most_wait 0 or more"):
        Retries(**given)


async def test_an_iterable_of_the_other_client() -> None:
    """An asynchronous iterable is for `Client` alone, and `SyncClient` says so."""

    async def outgoing() -> AsyncIterator[OutgoingMail]:
        """Yield a mail."""
        yield OutgoingMail(to=ADA)

    with SyncClient("127.0.0.1:1") as client, pytest.raises(TypeError, match="outgoing: must be an iterable"):
        next(client.send_mails(outgoing()))  # type: ignore[arg-type]
