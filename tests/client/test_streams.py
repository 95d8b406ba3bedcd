"""Streams of both clients: results as they come, and connections that are lost on the way."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from client.scripted import Failure, Scripted
from otpmail import client as errors
from otpmail.client import Client, OutgoingMail, Retries, State, SyncClient, feed
from otpmail.client.decode import OF_A_STOP
from otpmail.delivery.closing import STOPPED
from otpmail.errors import Stopping
from otpmail.v1 import mail_pb2
from ports import HOST, ReservedPort

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

_AWAY = Failure(grpc.StatusCode.UNAVAILABLE, "the service is stopping", reason="UNAVAILABLE")
_QUEUED = mail_pb2.Mail(id="m", state=mail_pb2.Mail.STATE_QUEUED)
_RELAYED = mail_pb2.Mail(id="m", state=mail_pb2.Mail.STATE_RELAYED)


@pytest.fixture(params=["async", "sync"])
def kind(request: pytest.FixtureRequest) -> str:
    """Which of the clients a test uses."""
    return str(request.param)


@pytest.fixture(autouse=True)
def _whole_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the blocking client send whole messages: on a busy machine the next mail may take longer than it waits."""
    monkeypatch.setattr(feed, "_GATHER_SECONDS", 10)


async def _collect(kind: str, service: Scripted, name: str, *args: Any, **options: Any) -> list[Any]:
    """Return all that a method yields; the client waits for no time between attempts."""
    if kind == "async":

        async def sleep(_: float) -> None:
            """Return at once."""

        async with Client(service.address, sleep=sleep, **options) as client:
            return [each async for each in getattr(client, name)(*args)]
    with SyncClient(service.address, sleep=lambda _: None, **options) as blocking:
        return await asyncio.to_thread(lambda: list(getattr(blocking, name)(*args)))


def _mails(*request_ids: str) -> list[OutgoingMail]:
    return [OutgoingMail(to="ada@example.org", subject="Hi", request_id=each) for each in request_ids]


def _result(request_id: str, **more: Any) -> mail_pb2.SendMailsResponse:
    more = more or {"mail": mail_pb2.Mail(id=request_id, state=mail_pb2.Mail.STATE_RELAYED)}
    return mail_pb2.SendMailsResponse(results=[mail_pb2.SendMailsResponse.Result(request_id=request_id, **more)])


async def test_watching_outlives_a_connection(kind: str) -> None:
    """A mail is watched again after a lost connection, and a state that was there before comes once."""
    async with Scripted([_QUEUED, _AWAY], [_QUEUED, _RELAYED]) as service:
        watched = await _collect(kind, service, "watch_mail", "m")
    assert [mail.state for mail in watched] == [State.QUEUED, State.RELAYED]
    assert len(service.requests) == 2


async def test_pages_follow_each_other(kind: str) -> None:
    """`list_mails` asks for pages until the last one."""
    pages = [
        mail_pb2.ListMailsResponse(mails=[_QUEUED, _RELAYED], next_page_token="next"),
        mail_pb2.ListMailsResponse(mails=[_RELAYED]),
    ]
    async with Scripted(*pages) as service:
        listed = await _collect(kind, service, "list_mails", State.RELAYED)
    assert [mail.state for mail in listed] == [State.QUEUED, State.RELAYED, State.RELAYED]
    assert [request.page_token for request in service.requests] == ["", "next"]
    assert service.requests[0].state == mail_pb2.Mail.STATE_RELAYED


async def test_mails_without_a_result_are_sent_again(kind: str) -> None:
    """After a lost connection exactly the mails that have no result go again, and each has one result."""
    async with Scripted([_result("a"), _AWAY], [_result("c"), _result("b")]) as service:
        results = await _collect(kind, service, "send_mails", _mails("a", "b", "c"))
    assert [result.request_id for result in results] == ["a", "c", "b"]
    assert all(result.mail.state is State.RELAYED and result.error is None for result in results)
    first, again = service.requests
    assert [mail.request_id for mail in first.mails] == ["a", "b", "c"]
    assert list(again.mails) == list(first.mails[1:])


@pytest.mark.parametrize("end", [[_AWAY], []], ids=["unavailable", "half-closed"])
async def test_a_stop_of_the_service_is_no_result(kind: str, end: list[Any]) -> None:
    """A mail that a service refuses as it stops is sent to the next process, however the stream ends."""
    stopping = {"code": grpc.StatusCode.UNAVAILABLE.value[0], "message": "the service is stopping"}
    first = [_result("a"), _result("b", **stopping), *end]
    async with Scripted(first, [_result("b")]) as service:
        results = await _collect(kind, service, "send_mails", _mails("a", "b"))
    assert [(result.request_id, result.error) for result in results] == [("a", None), ("b", None)]
    assert [mail.request_id for mail in service.requests[1].mails] == ["b"]


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED])
async def test_a_failure_behind_the_last_result(kind: str, code: grpc.StatusCode) -> None:
    """A stream that is lost once each mail has its result is no error, and none is opened for no mails."""
    loop, came = asyncio.get_running_loop(), asyncio.Event()
    results, once = [], Retries(attempts=1)

    def blocking(address: str) -> None:
        """Take the results of the client that blocks."""
        with SyncClient(address, retries=once) as client:
            for result in client.send_mails(_mails("a")):
                results.append(result)
                loop.call_soon_threadsafe(came.set)

    async with Scripted([_result("a"), came, Failure(code, "lost")]) as service:
        if kind == "sync":
            await asyncio.to_thread(blocking, service.address)
        else:
            async with Client(service.address, retries=once) as client:
                async for result in client.send_mails(_mails("a")):
                    results.append(result)
                    came.set()
    assert [(result.request_id, result.error) for result in results] == [("a", None)]
    assert len(service.requests) == 1


@pytest.fixture
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the blocking client wait long for the end of an iterable: a busy machine may hold up the thread of it."""
    monkeypatch.setattr(feed, "_END_SECONDS", 10)


@pytest.mark.usefixtures("_patient")
async def test_a_stream_of_no_mails_to_no_service(kind: str) -> None:
    """Where no service answers, a stream without mails has no results, and an error of the iterable is raised.

    gRPC's own error for the end of such a stream is not.
    """
    service, once = Scripted(), Retries(attempts=1)
    with ReservedPort() as held:
        service.address = f"{HOST}:{held.port}"
        assert await _collect(kind, service, "send_mails", [], retries=once) == []
        with pytest.raises(TypeError, match="each must be an OutgoingMail, not int"):
            await _collect(kind, service, "send_mails", [5], retries=once)
        with pytest.raises(errors.Unreachable):
            await _collect(kind, service, "send_mails", _mails("a"), retries=once)


class _Refusing(Scripted):
    """Refuses each stream before its first message, as a service does with a token that it does not know."""

    async def SendMails(self, request_iterator: Any, context: Any) -> Any:  # noqa: ARG002, N802 -- the contract's name
        """Refuse the stream."""
        self._note(None, context)
        await Failure(grpc.StatusCode.UNAUTHENTICATED, "unknown token").abort(context)
        yield mail_pb2.SendMailsResponse()


@pytest.mark.usefixtures("_patient")
async def test_a_stream_of_no_mails_with_a_wrong_token(kind: str) -> None:
    """The service's refusal is no error of a stream without mails. It is one of a stream with a mail."""
    async with _Refusing() as service:
        assert await _collect(kind, service, "send_mails", []) == []
        assert len(service.requests) == 1
    async with Scripted([Failure(grpc.StatusCode.UNAUTHENTICATED, "unknown token")]) as service:
        with pytest.raises(errors.Unauthenticated):
            await _collect(kind, service, "send_mails", _mails("a"))


class _Refused(grpc.RpcError):
    """The error of gRPC for a call with a token that the service does not know."""

    def code(self) -> grpc.StatusCode:
        """Return the code."""
        return grpc.StatusCode.UNAUTHENTICATED

    def details(self) -> str:
        """Return no words."""
        return ""

    def trailing_metadata(self) -> tuple[()]:
        """Return none."""
        return ()


class _RefusingChannel:
    """A channel, and its one call, which the service refuses. `ended` is set once the client has the refusal."""

    def __init__(self, ended: threading.Event) -> None:
        self._ended = ended

    def stream_stream(self, _: str, **_octets: Any) -> Callable[..., _RefusingChannel]:
        """Return what begins the call."""
        return lambda *_, **_options: self

    def __iter__(self) -> Iterator[mail_pb2.SendMailsResponse]:
        raise _Refused

    def cancel(self) -> None:
        """Take note that the call has ended."""
        self._ended.set()

    def close(self) -> None:
        """Do nothing."""


@pytest.mark.usefixtures("_patient")
def test_no_mails_from_an_iterable_that_ends_behind_the_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocking client waits a moment for the end of an iterable whose thread is slower than the refusal."""
    refused = threading.Event()

    def outgoing() -> Iterator[OutgoingMail]:
        """Yield no mail, and end after the refusal."""
        refused.wait(30)
        yield from ()

    monkeypatch.setattr(grpc, "insecure_channel", lambda *_: _RefusingChannel(refused))
    with SyncClient("127.0.0.1:1", token="") as client:
        assert list(client.send_mails(outgoing())) == []


async def test_two_mails_of_one_request_id(kind: str) -> None:
    """Each of two mails with the same request_id has a result, also where the second is refused, over two streams."""
    refused = {"code": grpc.StatusCode.INVALID_ARGUMENT.value[0], "message": "request_id: was used before"}
    async with Scripted([_result("a", **refused), _AWAY], [_result("a")]) as service:
        results = await _collect(kind, service, "send_mails", _mails("a", "a"))
    assert [(result.request_id, type(result.error)) for result in results] == [
        ("a", errors.InvalidRequest),
        ("a", type(None)),
    ]
    assert [mail.request_id for mail in service.requests[1].mails] == ["a"]


async def test_a_mail_that_can_not_be_written(kind: str) -> None:
    """A mail of a stream that no request can have is an error of the client's own, behind the mails before it."""
    outgoing = [*_mails("a"), OutgoingMail(to="ada@example.org", text="\ud800")]
    async with Scripted([_result("a")]) as service:
        with pytest.raises(errors.InvalidRequest, match="no character"):
            await _collect(kind, service, "send_mails", outgoing)


class Pausing:
    """Mails of which all but the last come at once, and the last when the client waits for its next stream."""

    def __init__(self, mails: list[OutgoingMail]) -> None:
        self._mails = mails
        self._going_on = threading.Event()

    def go_on(self) -> None:
        """Let the last mail come."""
        self._going_on.set()

    def __iter__(self) -> Iterator[OutgoingMail]:
        yield from self._mails[:-1]
        self._going_on.wait(30)
        yield self._mails[-1]

    async def asynchronous(self) -> AsyncIterator[OutgoingMail]:
        """Yield the same mails, while the loop goes on."""
        for mail in self._mails[:-1]:
            yield mail
        await asyncio.to_thread(self._going_on.wait, 30)
        yield self._mails[-1]


async def test_a_stream_that_ends_early_loses_no_mail(kind: str) -> None:
    """Mails that come after a service has ended its stream by OK go over the next one, as after a lost connection."""
    names = [str(number) for number in range(101)]
    outgoing = Pausing(_mails(*names))
    async with Scripted([_result(name) for name in names[:100]], [_result("100")]) as service:
        results = await _collect_pausing(kind, service, outgoing)
    assert [result.request_id for result in results] == names
    assert [len(request.mails) for request in service.requests] == [100, 1]


async def _collect_pausing(kind: str, service: Scripted, outgoing: Pausing) -> list[Any]:
    """Return all results; the last mail comes when the client waits between two streams, or when it has ended."""
    try:
        if kind == "async":

            async def sleep(_: float) -> None:
                """Return at once."""
                outgoing.go_on()

            async with Client(service.address, sleep=sleep) as client:
                return [each async for each in client.send_mails(outgoing.asynchronous())]
        with SyncClient(service.address, sleep=lambda _: outgoing.go_on()) as blocking:
            return await asyncio.to_thread(lambda: list(blocking.send_mails(outgoing)))
    finally:
        outgoing.go_on()


@pytest.mark.parametrize(("is_refused", "again"), [(True, "first"), (False, "second")])
async def test_two_mails_with_one_request_id(
    kind: str,
    is_refused: bool,  # noqa: FBT001  a parameter
    again: str,
) -> None:
    """A refusal settles the second mail of a request_id, an outcome the first. The other goes over the next stream."""
    mails = [OutgoingMail(to="ada@example.org", subject=each, request_id="a") for each in ("first", "second")]
    refusal = {"code": grpc.StatusCode.INVALID_ARGUMENT.value[0], "message": "request_id: was used before"}
    results = [_result("a", **refusal), _result("a")]
    one, other = results if is_refused else reversed(results)
    async with Scripted([one, _AWAY], [other]) as service:
        await _collect(kind, service, "send_mails", mails)
    assert [[mail.subject for mail in request.mails] for request in service.requests] == [["first", "second"], [again]]


async def test_streams_that_end_early_each_time(kind: str) -> None:
    """Where each stream ends by OK without a result, the error is raised after the attempts."""
    async with Scripted(*[[]] * 5) as service:
        with pytest.raises(errors.Unavailable, match="has ended the stream"):
            await _collect(kind, service, "send_mails", _mails("a"))
    assert len(service.requests) == 5


async def test_a_relay_that_is_down_is_a_result(kind: str) -> None:
    """A mail that is refused as UNAVAILABLE is sent as often as a call is made, and then that is its result."""
    down = {"code": grpc.StatusCode.UNAVAILABLE.value[0], "message": "the relay is down"}
    async with Scripted(*[[_result("a", **down)]] * 5) as service:
        (result,) = await _collect(kind, service, "send_mails", _mails("a"))
    assert isinstance(result.error, errors.Unavailable)
    assert str(result.error) == "the relay is down"
    assert len(service.requests) == 5


async def test_refusals_are_results_where_no_time_is_left(kind: str) -> None:
    """Mails that were refused have that as their result where no time is left to send them again."""
    down = {"code": grpc.StatusCode.UNAVAILABLE.value[0], "message": "the relay is down"}
    async with Scripted([_result("a"), _result("b", **down), _result("c", **down)]) as service:
        results = await _collect(kind, service, "send_mails", _mails("a", "b", "c"), retries=Retries(most_wait=0))
    assert [(result.request_id, str(result.error)) for result in results] == [
        ("a", "None"),
        ("b", "the relay is down"),
        ("c", "the relay is down"),
    ]


@pytest.mark.parametrize("end", [[_AWAY], []], ids=["unavailable", "half-closed"])
async def test_a_stop_in_other_words(kind: str, end: list[Any]) -> None:
    """A service of another version may say otherwise that it stops: its next process has the mail all the same."""
    stopping = {"code": grpc.StatusCode.UNAVAILABLE.value[0], "message": "bye"}
    async with Scripted([_result("a"), _result("b", **stopping), *end], [_result("b")]) as service:
        results = await _collect(kind, service, "send_mails", _mails("a", "b"))
    assert [(result.request_id, result.error) for result in results] == [("a", None), ("b", None)]
    assert [mail.request_id for mail in service.requests[1].mails] == ["b"]


async def test_a_refusal_comes_at_once_while_mails_come(kind: str) -> None:
    """While the stream goes on, a mail that is refused as UNAVAILABLE has that as its result: it may go on for long."""
    names = [str(number) for number in range(101)]
    outgoing = Pausing(_mails(*names))
    down = {"code": grpc.StatusCode.UNAVAILABLE.value[0], "message": "the relay is down"}
    first = [_result(name) for name in names[:99]] + [_result("99", **down)]
    async with Scripted(first, [_result("100")]) as service:
        results = await _collect_pausing(kind, service, outgoing)
    assert [result.request_id for result in results if result.error] == ["99"]
    assert [len(request.mails) for request in service.requests] == [100, 1]


def test_the_words_of_a_stop() -> None:
    """The client knows a stop by the words that the service has for it."""
    assert {str(Stopping()), STOPPED} == OF_A_STOP


async def test_each_result_has_its_error(kind: str) -> None:
    """A mail that was refused, and one that did not arrive, have the error that they would have raised alone."""
    rejected = mail_pb2.RecipientResult(address="ada@example.org", code=550, reply="no")
    answers = [
        _result("a", code=grpc.StatusCode.INVALID_ARGUMENT.value[0], message="to: is empty"),
        _result("b", mail=mail_pb2.Mail(state=mail_pb2.Mail.STATE_FAILED, recipients=[rejected])),
    ]
    async with Scripted(answers) as service:
        refused, failed = await _collect(kind, service, "send_mails", _mails("a", "b"))
    assert isinstance(refused.error, errors.InvalidRequest)
    assert refused.mail is None
    assert isinstance(failed.error, errors.Refused)
    assert failed.mail.state is State.FAILED


async def test_a_stream_gives_up(kind: str) -> None:
    """Where no connection brings a result any more, the error is raised after the attempts; others at once."""
    async with Scripted(*[[_AWAY]] * 5) as service:
        with pytest.raises(errors.Unavailable, match="stopping"):
            await _collect(kind, service, "send_mails", _mails("a"))
    assert len(service.requests) == 5
    async with Scripted([Failure(grpc.StatusCode.PERMISSION_DENIED, "not you", reason="PERMISSION_DENIED")]) as service:
        with pytest.raises(errors.NotAllowed):
            await _collect(kind, service, "send_mails", _mails("a"))


async def test_the_callers_own_error_comes_last(kind: str) -> None:
    """An error of the iterable of mails is raised once the mails before it have their results."""

    def outgoing() -> Iterator[OutgoingMail]:
        """Yield a mail, then fail."""
        yield from _mails("a")
        raise KeyError("no more")

    async with Scripted([_result("a")]) as service:
        with pytest.raises(KeyError, match="no more"):
            await _collect(kind, service, "send_mails", outgoing())
    assert [mail.request_id for request in service.requests for mail in request.mails] == ["a"]


async def _for_ever() -> None:
    await asyncio.Event().wait()


async def _inner_task_cancelled() -> AsyncIterator[OutgoingMail]:
    """Yield a mail, then await a task that was cancelled."""
    for mail in _mails("a"):
        yield mail
    inner = asyncio.create_task(_for_ever())
    inner.cancel()
    await inner


async def _ends_the_program() -> AsyncIterator[OutgoingMail]:
    """Yield a mail, then end the program."""
    for mail in _mails("a"):
        yield mail
    raise SystemExit(3)


async def _cancels_its_task() -> AsyncIterator[OutgoingMail]:
    """Yield a mail, then cancel the task that takes them."""
    for mail in _mails("a"):
        yield mail
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await _for_ever()


@pytest.mark.parametrize(
    ("outgoing", "error"),
    [
        (_inner_task_cancelled, asyncio.CancelledError),
        (_cancels_its_task, asyncio.CancelledError),
        (_ends_the_program, SystemExit),
    ],
)
async def test_the_callers_own_end_comes_last_too(
    outgoing: Callable[[], AsyncIterator[OutgoingMail]], error: type[BaseException]
) -> None:
    """An iterable that ends by a cancel of its own, or the program, ends the stream as one that fails."""
    results = []

    async def collect(client: Client) -> BaseException | None:
        """Take all results, and return the error at the end."""
        try:
            async for result in client.send_mails(outgoing()):
                results.append(result.request_id)  # noqa: PERF401  the error comes after some
        except BaseException as ended:  # noqa: BLE001  it is what the test asks for
            return ended
        return None

    async with Scripted([_result("a")]) as service, Client(service.address) as client:
        caller = asyncio.create_task(collect(client))
        await asyncio.wait([caller], timeout=10)
        assert caller.done()
        assert isinstance(caller.result(), error)
    assert results == ["a"]


def _left_by_the_client(before: set[asyncio.Task[Any]]) -> list[str]:
    """Return the tasks that run code of the client, and were not there before."""
    return [repr(task) for task in asyncio.all_tasks() - before if "/otpmail/client/" in repr(task)]


async def test_a_cancelled_caller_of_a_stream() -> None:
    """A caller that is cancelled while the iterable waits, or while mails wait for room, is cancelled at once."""
    before = asyncio.all_tasks()

    async def waits() -> AsyncIterator[OutgoingMail]:
        """Yield a mail, then wait."""
        for mail in _mails("a"):
            yield mail
        await _for_ever()

    for outgoing in (waits(), _mails(*map(str, range(1000)))):
        async with Scripted([_result("a"), _result("0"), None]) as service, Client(service.address) as client:
            came = asyncio.Event()

            async def collect(mails: Any, client: Client = client, came: asyncio.Event = came) -> None:
                """Take results until the end."""
                async for _ in client.send_mails(mails):
                    came.set()

            caller = asyncio.create_task(collect(outgoing))
            async with asyncio.timeout(10):
                await came.wait()
                caller.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await caller
            assert not _left_by_the_client(before)


async def test_a_caller_that_is_cancelled_while_it_leaves_a_stream() -> None:
    """A cancel is raised too where the caller waits for the end of the iterable, which has something to clean up."""
    leaving, may_end = asyncio.Event(), asyncio.Event()

    async def outgoing() -> AsyncIterator[OutgoingMail]:
        """Yield a mail, then wait; the end takes time."""
        for mail in _mails("a"):
            yield mail
        try:
            await _for_ever()
        finally:
            leaving.set()
            await may_end.wait()

    async with Scripted([_result("a"), None]) as service, Client(service.address) as client, asyncio.timeout(10):

        async def leave() -> None:
            """Take a result, then leave the stream."""
            results: Any = client.send_mails(outgoing())
            await anext(results)
            await results.aclose()

        caller = asyncio.create_task(leave())
        await leaving.wait()
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        may_end.set()


async def test_a_stream_may_be_left() -> None:
    """A caller that leaves the loop ends the call, and no task stays behind."""
    before = asyncio.all_tasks()
    async with Scripted([_result("a"), _result("b")]) as service, Client(service.address) as client:
        results: Any = client.send_mails(_mails("a", "b"))
        async for _ in results:
            break
        await results.aclose()
        assert not _left_by_the_client(before)


async def test_a_watched_mail_may_be_left(kind: str) -> None:
    """A caller that leaves `watch_mail` ends the call at once, even if the call object is still referenced."""
    wanted = grpc.aio.UnaryStreamCall if kind == "async" else grpc.Call
    async with Scripted([_QUEUED, None]) as service:
        if kind == "async":
            async with Client(service.address) as client:
                watched: Any = client.watch_mail("m")
                await anext(watched)
                (call,) = _alive(wanted)
                await watched.aclose()
                assert call.cancelled()
        else:
            with SyncClient(service.address) as blocking:
                states: Any = blocking.watch_mail("m")
                await asyncio.to_thread(next, states)
                (call,) = _alive(wanted)
                states.close()
                assert call.cancelled()


def _alive(wanted: type) -> list[Any]:
    """Return the calls of a kind that have not ended."""
    gc.collect()
    return [found for found in gc.get_objects() if issubclass(type(found), wanted) and not found.done()]
