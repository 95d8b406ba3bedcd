"""Values that no request can have, in calls of both clients: errors of the client's own."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

import pytest

from client.scripted import Scripted
from otpmail import client as errors
from otpmail.client import Attachment, Client, Outcome, OutgoingMail, SyncClient

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(params=["async", "sync"])
def kind(request: pytest.FixtureRequest) -> str:
    """Which of the clients a test uses."""
    return str(request.param)


async def _call(kind: str, service: Scripted, name: str, *args: Any, **more: Any) -> Any:
    """Call a method, in a thread if it blocks, and return all that it yields."""
    if kind == "async":
        async with Client(service.address) as client:
            made = getattr(client, name)(*args, **more)
            return [each async for each in made] if inspect.isasyncgen(made) else await made

    def call_now(client: SyncClient) -> Any:
        """Call a method that blocks."""
        made = getattr(client, name)(*args, **more)
        return list(made) if inspect.isgenerator(made) else made

    with SyncClient(service.address) as blocking:
        return await asyncio.to_thread(call_now, blocking)


_HALF = "a\ud800"
_HALVES: dict[str, list[Any]] = {
    "to": [[_HALF, "ada@example.org"]],
    "headers": [[("X-A", _HALF)], [(_HALF, "a")]],
    "attachments": [[Attachment(_HALF, b"")], [Attachment("a", b"", _HALF)], [Attachment("a", b"", content_id=_HALF)]],
    "variables": [{"name": _HALF}, {_HALF: "name"}],
    "labels": [{"name": _HALF}, {_HALF: "name"}],
}
_REQUIRED = {"email": "ada@example.org", "code": "123456", "outcome": Outcome.DELIVERED, "to": "a", "mail_id": "m"}


def _texts() -> Iterator[Any]:
    """Yield each method with each of its texts in turn, and half a character in it."""
    methods = [name for name in vars(Client) if not name.startswith("_")]
    for method in sorted(set(methods) - {"run", "close", "send_mails"}):
        parameters = inspect.signature(getattr(Client, method)).parameters.values()
        needed = {each.name: _REQUIRED[each.name] for each in list(parameters)[1:] if each.default is each.empty}
        for each in parameters:
            for value in _HALVES.get(each.name, []) + [_HALF] * (
                "str" in str(each.annotation) and each.name not in _HALVES
            ):
                yield pytest.param(
                    method, {**needed, each.name: value}, each.name.rstrip("_"), id=f"{method}-{each.name}"
                )


def test_all_texts_are_tried() -> None:
    """The cases of the next test are those of all methods."""
    tried = {case.values[0] for case in _texts()}
    assert {"watch_mail", "list_mails", "send_code", "send_mail", "report_delivery"} <= tried
    assert len(tried) == 13


@pytest.mark.parametrize(("name", "arguments", "field"), [*_texts()])
async def test_text_that_can_not_be_written(kind: str, name: str, arguments: dict[str, Any], field: str) -> None:
    """Half a character, such as JSON may have, is an error of the client's own that names the value, in any method."""
    async with Scripted() as service:
        with pytest.raises(errors.InvalidRequest, match=r"holds '\\ud800', which is no character") as caught:
            await _call(kind, service, name, **arguments)
    assert caught.value.field == field
    assert str(caught.value).startswith(f"{field}: ")
    assert caught.value.http_status == 422
    assert service.requests == []


@pytest.mark.parametrize("field", ["to", "headers", "attachments", "labels", "subject", "request_id", "from"])
async def test_a_mail_of_a_stream_that_can_not_be_written(kind: str, field: str) -> None:
    """A mail of a stream that holds half a character ends it by an error that names the field."""
    name = "from_" if field == "from" else field
    mail = OutgoingMail(**{"to": "ada@example.org", name: _HALVES.get(field, [_HALF])[0]})
    async with Scripted([]) as service:
        with pytest.raises(errors.InvalidRequest, match=r"holds '\\ud800'") as caught:
            await _call(kind, service, "send_mails", [mail])
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("ttl", "words"),
    [
        (1e30, "ttl: is too long"),
        pytest.param(10**5000, "ttl: is too long", id="many digits"),
        (float("nan"), "ttl: nan is no time"),
        (float("inf"), "ttl: inf is no time"),
    ],
)
async def test_a_ttl_that_can_not_be_written(kind: str, ttl: float, words: str) -> None:
    """A time that no request can have is an error of the client's own that names it."""
    async with Scripted() as service:
        with pytest.raises(errors.InvalidRequest, match=words) as caught:
            await _call(kind, service, "send_mail", "ada@example.org", ttl=ttl)
    assert (caught.value.field, caught.value.http_status) == ("ttl", 422)
    assert service.requests == []
