"""otpmail.v1.MailService/SendMails through the whole service."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.rpc import code_pb2

from calls import parsed, scrape, text_of
from otpmail.v1 import mail_pb2
from relay import Faults

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator

    from relay import Relay
    from service import Service

ADA = "ada@example.org"
RELAYED, QUEUED, FAILED = mail_pb2.Mail.STATE_RELAYED, mail_pb2.Mail.STATE_QUEUED, mail_pb2.Mail.STATE_FAILED
RELAY, QUEUE = mail_pb2.WAIT_FOR_RELAY, mail_pb2.WAIT_FOR_QUEUE
Result = mail_pb2.SendMailsResponse.Result


def _mail(request_id: str, **fields: object) -> mail_pb2.SendMailRequest:
    given = {"to": [f"{request_id or 'nobody'}@example.org"], "subject": "s", "text": "t", **fields}
    return mail_pb2.SendMailRequest(request_id=request_id, **given)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _nothing_unforeseen(service: Service) -> Iterator[None]:
    """Check that no test of this file makes the service log a traceback, of ours or of gRPC."""
    yield
    assert not service.logged("unforeseen")
    assert not [line for line in service.output if not line.startswith("{")]


class Talk:
    """One call of SendMails."""

    def __init__(self, service: Service) -> None:
        """Start the call."""
        self.call: Any = service.mail.SendMails()
        self.responses = 0
        self.results = self._read()  # read on by every method that returns some

    async def write(self, *mails: mail_pb2.SendMailRequest) -> None:
        """Write one batch."""
        await self.call.write(mail_pb2.SendMailsRequest(mails=mails))

    async def read(self, count: int) -> list[Result]:
        """Return the next so many results."""
        return [await anext(self.results) for _ in range(count)]

    async def rest(self) -> list[Result]:
        """Half-close, and return every further result until the stream ends."""
        await self.call.done_writing()
        return [result async for result in self.results]

    async def all(self, mails: Iterable[mail_pb2.SendMailRequest], *, batch: int) -> list[Result]:
        """Write all mails in batches while reading; returns the results until the stream ends."""
        mails = list(mails)

        async def write() -> None:
            for start in range(0, len(mails), batch):
                await self.write(*mails[start : start + batch])
            await self.call.done_writing()

        writing = asyncio.create_task(write())
        results = [result async for result in self.results]
        await writing
        return results

    async def code(self) -> grpc.StatusCode:
        """Return the status code of the call."""
        code: grpc.StatusCode = await self.call.code()
        return code

    async def _read(self) -> AsyncIterator[Result]:
        while (response := await self.call.read()) is not grpc.aio.EOF:
            self.responses += 1
            assert response.results, "an empty response says nothing"
            for result in response.results:
                yield result


def _states(results: Iterable[Result]) -> dict[str, str]:
    """Return the state or the code of each result, by request id."""
    return {
        result.request_id: code_pb2.Code.Name(result.code)
        if result.code
        else mail_pb2.Mail.State.Name(result.mail.state).removeprefix("STATE_")
        for result in results
    }


async def test_thousands_over_one_stream(service: Service, relay: Relay) -> None:
    """Each mail has one result, matched by its request_id, and arrives once; results come many in a response."""
    talk = Talk(service)
    names = [f"p{number}" for number in range(3000)]
    results = await talk.all([_mail(name, text=f"for {name}") for name in names], batch=100)
    assert await talk.code() is grpc.StatusCode.OK
    assert Counter(result.request_id for result in results) == Counter(names)
    assert {result.mail.state for result in results} == {RELAYED}
    for result in results:
        assert result.mail.request_id == result.request_id
        assert [recipient.address for recipient in result.mail.recipients] == [f"{result.request_id}@example.org"]
    assert Counter(mail.recipients[0] for mail in relay.mails) == Counter(f"{name}@example.org" for name in names)
    assert all(text_of(mail.content) == f"for {mail.recipients[0].partition('@')[0]}\n" for mail in relay.mails[:100])
    message_ids = {str(parsed(mail.content)["Message-ID"]) for mail in relay.mails[:500]}
    assert message_ids <= {result.mail.message_id for result in results}
    assert talk.responses < len(results) / 2


async def test_nothing_to_send(service: Service) -> None:
    """A stream that is closed at once ends with OK, and so does one with an empty batch."""
    assert await Talk(service).rest() == []
    talk = Talk(service)
    await talk.write()
    assert await talk.rest() == []
    assert await talk.code() is grpc.StatusCode.OK


@pytest.mark.relay(chance={"RCPT": (0.3, "550 5.1.1 no such user")}, refuse_recipients={"p1@example.org": "551 no"})
async def test_a_relay_that_refuses_by_chance(service: Service, relay: Relay) -> None:
    """A rejection is in the result of its mail, with the relay's reply, and is no error of the stream."""
    results = await Talk(service).all([_mail(f"p{number}") for number in range(1000)], batch=100)
    assert Counter(result.code for result in results) == {0: 1000}
    arrived = {mail.recipients[0] for mail in relay.mails}
    for result in results:
        (recipient,) = result.mail.recipients
        assert (recipient.address in arrived) == (result.mail.state == RELAYED) == (recipient.code == 250)
        assert result.mail.state in (RELAYED, FAILED)
    refused = {r.request_id: r.mail.recipients[0] for r in results if r.mail.state == FAILED}
    assert {(r.code, r.enhanced_code, r.reply) for r in refused.values()} <= {
        (550, "5.1.1", "no such user"),
        (551, "", "no"),
    }
    assert 100 < len(refused) < 600


@pytest.mark.service(MAIL_MAX_BYTES=20_000)
async def test_bad_mails_of_each_kind(service: Service, relay: Relay) -> None:
    """An invalid mail gets a result of its own, a code and a message that names the field; the rest is relayed."""
    bad: dict[str, dict[str, Any]] = {
        "to": {"to": []},
        "to[0]": {"to": ["nobody"]},
        "subject": {"subject": "a\nBcc: eve@example.org"},
        "text": {"text": "x" * 20_001},
        "html": {"html": "a\0b"},
        "headers['Bcc']": {"headers": [mail_pb2.Header(name="Bcc", value=ADA)]},
        "return_path": {"return_path": "Bounces <b@example.org>"},
        "message_id": {"message_id": "1"},
        "labels['x']": {"labels": {"x": "\n"}},
        "attachments[0].filename": {"attachments": [{"filename": "a\r\nb"}]},
        "priority": {"priority": 17},
        "wait_for": {"wait_for": 17},
        "ttl": {"ttl": {"seconds": -1}},
        "from": {"from": "nobody"},
    }
    mails = [_mail(f"bad{place}", **fields) for place, fields in enumerate(bad.values())]
    mails += [_mail(f"good{place}") for place in range(len(bad))]
    mails[::2], mails[1::2] = mails[: len(bad)], mails[len(bad) :]
    talk = Talk(service)
    await talk.write(
        *mails, _mail("eve", **{"from": "eve@example.org"}), _mail(""), _mail("a\nb", to=["ada@example.org"])
    )
    told = {result.request_id: result for result in await talk.rest()}
    assert await talk.code() is grpc.StatusCode.OK
    assert all(told[f"good{place}"].mail.state == RELAYED for place in range(len(bad)))
    for place, field in enumerate(bad):
        result = told[f"bad{place}"]
        assert (result.code, result.HasField("mail")) == (code_pb2.INVALID_ARGUMENT, False)
        assert result.message.startswith(f"{field}: ")
    assert told["eve"].code == code_pb2.PERMISSION_DENIED
    assert told[""].message.startswith("request_id: is needed")
    assert told["a\nb"].message.startswith("request_id: must be printable")
    assert len(relay.mails) == len(bad)


async def test_request_ids_within_and_across_streams(service: Service, relay: Relay) -> None:
    """A request id is one mail in a batch, in two streams and in SendMail; for another mail it is INVALID_ARGUMENT."""
    talk = Talk(service)
    await talk.write(_mail("a"), _mail("a"), _mail("a", text="another"), _mail("b"))
    results = await talk.rest()
    assert Counter(result.request_id for result in results) == {"a": 3, "b": 1}
    (refused,) = (result for result in results if result.code)
    assert refused.message == "request_id: was used before for another request"
    again = await Talk(service).all([_mail("a"), _mail("b"), _mail("b", subject="new")], batch=3)
    assert _states(again) == {"a": "RELAYED", "b": "RELAYED"} | {"b": _states(again)["b"]}
    single = (await service.mail.SendMail(_mail("a"))).mail
    first = {result.mail.id for result in (*results, *again) if result.request_id == "a" and not result.code}
    assert first == {single.id}
    assert len(relay.mails) == 2


@pytest.mark.relay(silent_at="MAIL")
@pytest.mark.service(STREAM_UNSETTLED=20, WORKERS=1, EMAIL_WINDOW=100, HTTP_PORT=0)
async def test_what_is_unsettled_is_bounded(service: Service, relay: Relay) -> None:
    """At most STREAM_UNSETTLED mails of a larger batch are accepted at once, and all in the end."""
    talk = Talk(service)
    urgent = mail_pb2.PRIORITY_URGENT  # others would be held back from a relay that has answered none yet
    await talk.write(*(_mail(f"p{number}", priority=urgent) for number in range(200)))
    await relay.wait_for_command("MAIL")
    behind = (await service.mail.SendMail(_mail("behind", wait_for=QUEUE, priority=urgent))).mail
    async for mail in service.mail.WatchMail(mail_pb2.WatchMailRequest(id=behind.id)):
        if mail.state == mail_pb2.Mail.STATE_SENDING:  # and so is all that was taken before it
            break
    assert (await scrape(service))["otpmail_mails_unsettled"] == 21
    relay.faults = Faults(security="plain")
    relay.cut_connections()
    results = await talk.rest()
    assert len(results) == 200
    assert {result.mail.state for result in results} == {RELAYED}


@pytest.mark.timeout(600)  # seconds; so many mails take 25 s of a processor
@pytest.mark.service(STREAM_UNSETTLED=100)
@pytest.mark.relay(final_reply="250 2.0.0 " + "x" * 480)
async def test_a_slow_reader(service: Service, relay: Relay) -> None:
    """A caller that does not read is not read from, so memory stays bounded; every result comes in the end."""
    talk = Talk(service)
    await talk.write(_mail("first"))
    await talk.read(1)
    before = _resident(service)

    async def write() -> None:
        for batch in range(400):
            await talk.write(*(_mail(f"p{batch}-{number}", text="x" * 2000) for number in range(100)))
        await talk.call.done_writing()

    writing = asyncio.create_task(write())
    with contextlib.suppress(TimeoutError):  # the relay gets no further mail
        while True:
            await relay.wait_for_mails(len(relay.mails) + 1, timeout=2)
    assert not writing.done()
    assert len(relay.mails) < 30_000
    assert _resident(service) - before < 40 << 20
    results = [result async for result in talk.results]
    await writing
    assert len(results) == 40_000
    assert {result.mail.state for result in results} == {RELAYED}
    assert len(relay.mails) == 40_001
    assert _resident(service) - before < 80 << 20  # the day's request ids and the hour's mails


def _resident(service: Service) -> int:
    status = Path(f"/proc/{service.pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) << 10


@pytest.mark.relay(silent_at="MAIL")
@pytest.mark.service(WORKERS=1, EMAIL_WINDOW=1)
async def test_a_broken_stream(service: Service, relay: Relay) -> None:
    """After a broken stream guaranteed mails and those with the relay are sent; other queued ones are cancelled."""
    talk = Talk(service)
    await talk.write(_mail("sending"))
    await relay.wait_for_command("MAIL")
    await talk.write(_mail("waiting"), _mail("promised", wait_for=QUEUE), _mail("waiting-too"))
    (promise,) = await talk.read(1)
    assert (promise.request_id, promise.mail.state) == ("promised", QUEUED)
    talk.call.cancel()
    watch = service.mail.WatchMail(mail_pb2.WatchMailRequest(id=promise.mail.id))
    await anext(aiter(watch))
    again = Talk(service)  # the id of a cancelled mail may be used again
    await again.write(_mail("behind", wait_for=QUEUE))
    await again.read(1)
    relay.faults = Faults(security="plain")
    relay.cut_connections()
    await relay.wait_for_mails(2)
    assert {result.request_id for result in await again.rest()} == set()
    async for _ in watch:
        pass
    behind = await service.mail.SendMail(_mail("last"))
    assert behind.mail.state == RELAYED
    arrived = {mail.recipients[0].partition("@")[0] for mail in relay.mails}
    assert arrived - {"sending"} == {"promised", "behind", "last"}


@pytest.mark.relay(silent_at="MAIL")
@pytest.mark.service(QUEUE_SIZE=20)
async def test_a_full_queue_is_waited_for(service: Service, relay: Relay) -> None:
    """Two streams fill nine tenths of the queue and wait, a single call still has a place, and all are relayed."""
    talks = [Talk(service), Talk(service)]
    for which, talk in enumerate(talks):
        await talk.write(*(_mail(f"s{which}-{number}") for number in range(50)))
    await relay.wait_for_command("MAIL", 5)  # one on each connection: none of them is still being opened
    single = await service.mail.SendMail(_mail("single", wait_for=QUEUE))
    assert single.mail.state == QUEUED
    relay.faults = Faults(security="plain")
    relay.cut_connections()
    for talk in talks:
        results = await talk.rest()
        assert len(results) == 50
        assert {result.mail.state for result in results} == {RELAYED}
    await relay.wait_for_mails(101)


@pytest.mark.service(EMAIL_PORT=1, EMAIL_SECURITY="plain", wait=False)
async def test_a_relay_that_is_away(service: Service) -> None:
    """While the relay is down each waiting mail gets UNAVAILABLE, and each guaranteed one is accepted."""
    await service.wait_for_log("relay-down")
    talk = Talk(service)
    await talk.write(_mail("a"), _mail("b", wait_for=QUEUE), _mail("c", wait_for=mail_pb2.WAIT_FOR_UNSPECIFIED))
    assert _states(await talk.rest()) == {"a": "UNAVAILABLE", "b": "QUEUED", "c": "UNAVAILABLE"}


@pytest.mark.relay(chunking=False, silent_at="DATA", times=1)
@pytest.mark.service(WORKERS=1)
async def test_a_stop(service: Service, relay: Relay) -> None:
    """In a stop no new mails are accepted, running ones settle, and the stream ends; an idle one ends at once."""
    idle, talk = Talk(service), Talk(service)
    await idle.write(_mail(""))
    assert (await idle.read(1))[0].code == code_pb2.INVALID_ARGUMENT
    await talk.write(_mail("running"))
    await relay.wait_for_command("DATA")
    service.send(signal.SIGTERM)
    assert await idle.code() is grpc.StatusCode.UNAVAILABLE
    await talk.write(_mail("late"))
    (late,) = await talk.read(1)
    assert (late.request_id, late.code, late.message) == ("late", code_pb2.UNAVAILABLE, "the service is stopping")
    relay.faults = Faults()
    relay.cut_connections()
    assert _states(await talk.read(1)) == {"running": "RELAYED"}
    assert await talk.code() is grpc.StatusCode.UNAVAILABLE
    assert await talk.call.details() == "the service is stopping"
    assert await service.wait_exited() == 0
    assert (service.log[-1]["sent"], service.log[-1]["failed"]) == (1, 0)


@pytest.mark.relay(chunking=False, silent_at="DATA")
@pytest.mark.service(WORKERS=1, DRAIN_SECONDS=0.3)
async def test_what_does_not_fit_into_the_drain_time(service: Service, relay: Relay) -> None:
    """Each mail that is left gets UNAVAILABLE, and the stream ends, with OK if it was half-closed."""
    talk = Talk(service)
    await talk.write(_mail("a"), _mail("b"))
    await talk.call.done_writing()
    await relay.wait_for_command("DATA")
    service.send(signal.SIGTERM)
    assert _states(await talk.read(2)) == {"a": "UNAVAILABLE", "b": "UNAVAILABLE"}
    assert await talk.code() is grpc.StatusCode.OK
    assert await service.wait_exited() == 0
    assert service.log[-1]["out_of_time"] == 2


@pytest.mark.relay(delay=0.005)
async def test_a_stop_under_load(service: Service, relay: Relay) -> None:
    """A stop of streams at full speed gives each mail a result, and exactly the RELAYED ones arrived."""
    talks = [Talk(service) for _ in range(4)]
    told: dict[str, str] = {}

    async def write(which: int) -> None:
        try:
            for batch in range(1000):
                if "UNAVAILABLE" in told.values():
                    break
                names = [f"s{which}-{batch}-{number}" for number in range(50)]
                await talks[which].write(*map(_mail, names))
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return  # the stream has ended, as it should

    async def read(which: int) -> None:
        async for result in talks[which].results:
            told.update(_states([result]))

    async def run(which: int) -> None:
        writing = asyncio.create_task(write(which))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await read(which)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        await writing

    async with asyncio.TaskGroup() as tasks:
        for which in range(4):
            tasks.create_task(run(which))
        await relay.wait_for_mails(500)
        service.send(signal.SIGTERM)
    assert await service.wait_exited() == 0
    assert set(told.values()) <= {"RELAYED", "UNAVAILABLE"}
    arrived = Counter(mail.recipients[0].partition("@")[0] for mail in relay.mails)
    assert set(arrived.values()) == {1}
    assert {name for name, state in told.items() if state == "RELAYED"} == set(arrived)


@pytest.mark.relay(final_reply="250 2.0.0 " + "x" * 480)
@pytest.mark.service(STREAM_UNSETTLED=100, DRAIN_SECONDS=0.5)
async def test_a_stop_does_not_wait_for_a_slow_reader(service: Service, relay: Relay) -> None:
    """A caller that does not read its results is cut off at the end of the drain, without an error in the log."""
    talk = Talk(service)

    async def write() -> None:
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError, asyncio.CancelledError):
            for batch in range(1000):
                await talk.write(*(_mail(f"p{batch}-{number}", text="x" * 2000) for number in range(100)))

    writing = asyncio.create_task(write())
    await relay.wait_for_mails(1000)
    assert await service.stop() == 0
    await writing
    sent, out_of_time = (int(str(service.log[-1][name])) for name in ("sent", "out_of_time"))
    # The relay may have taken mails whose replies the drain has not waited for.
    assert sent <= len(relay.mails) <= sent + out_of_time


async def _raw(service: Service, *batches: bytes) -> tuple[list[Result], grpc.StatusCode, str]:
    """Send batches of raw bytes; returns the results, the status code and its details."""
    method: Any = service.channel.stream_stream(
        "/otpmail.v1.MailService/SendMails", response_deserializer=mail_pb2.SendMailsResponse.FromString
    )
    call = method(iter(batches))
    results: list[Result] = []
    try:
        async for response in call:
            results.extend(response.results)
    except grpc.aio.AioRpcError:
        pass
    return results, await call.code(), await call.details()


async def test_a_batch_that_cannot_be_read(service: Service, relay: Relay) -> None:
    """Octets that are no batch end the stream with INVALID_ARGUMENT, after the results of earlier mails."""
    good = mail_pb2.SendMailsRequest(mails=[_mail("good")]).SerializeToString()
    results, code, said = await _raw(service, good, b"\xff\xff")
    assert _states(results) == {"good": "RELAYED"}
    assert (code, said) == (grpc.StatusCode.INVALID_ARGUMENT, "mails: the request is no SendMailsRequest")
    assert len(relay.mails) == 1


async def test_a_mail_that_cannot_be_read(service: Service, relay: Relay) -> None:
    """A mail with bad UTF-8 has a result of its own, and the other mails of its batch are sent."""
    mails = [_mail("good"), _mail("bad"), _mail("also-good")]
    batch = mail_pb2.SendMailsRequest(mails=mails).SerializeToString()
    results, code, _ = await _raw(service, batch.replace(b"bad@", b"\xff\xfe\xfd@"))
    assert code is grpc.StatusCode.OK
    assert {result.request_id: (result.code, result.message) for result in results} == {
        "good": (0, ""),
        "bad": (code_pb2.INVALID_ARGUMENT, "mails[1]: is no otpmail.v1.SendMailRequest"),
        "also-good": (0, ""),
    }
    assert len(relay.mails) == 2


@pytest.mark.service(MAIL_MAX_BYTES=20_000)
async def test_a_batch_that_is_too_large(service: Service, relay: Relay) -> None:
    """A message over gRPC's limit ends its stream with RESOURCE_EXHAUSTED, and no other."""
    other = Talk(service)
    huge = mail_pb2.SendMailsRequest(mails=[_mail("huge", text="x" * (2 << 20))]).SerializeToString()
    results, code, _ = await _raw(service, huge)
    assert (results, code) == ([], grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert _states(await other.all([_mail("small")], batch=1)) == {"small": "RELAYED"}
    assert len(relay.mails) == 1


async def test_many_streams_at_once(service: Service, relay: Relay) -> None:
    """Of a hundred streams a tenth break off; each of the others gets its own results only."""

    async def run(which: int) -> None:
        talk = Talk(service)
        names = {f"s{which}-{number}" for number in range(50)}
        if which % 10 == 0:
            await talk.write(*map(_mail, names))
            talk.call.cancel()
            return
        results = await talk.all(map(_mail, names), batch=7)
        assert _states(results) == dict.fromkeys(names, "RELAYED")
        assert len(results) == 50

    await asyncio.gather(*map(run, range(100)))
    arrived = Counter(mail.recipients[0] for mail in relay.mails)
    assert set(arrived.values()) == {1}
    assert len(arrived) >= 90 * 50
