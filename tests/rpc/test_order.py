"""otpmail.v1.MailService: from a request to an order."""

import threading
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from otpmail.errors import InvalidArgument
from otpmail.mail.draft import Attachment, Draft
from otpmail.mail.service import Order
from otpmail.model import Priority, WaitFor
from otpmail.rpc import convert
from otpmail.rpc import order as rpc_order
from otpmail.rpc.order import order_of
from otpmail.v1 import mail_pb2


async def test_every_field_has_its_place() -> None:
    """Nothing of a request is lost on its way to the use case."""
    request = mail_pb2.SendMailRequest(
        to=["a@x.org", "b@x.org"],
        cc=["c@x.org"],
        bcc=["d@x.org"],
        subject="s",
        text="t",
        html="h",
        reply_to="r@x.org",
        headers={"X-A": "1"},
        attachments=[mail_pb2.Attachment(filename="f", content_type="a/b", content=b"c", content_id="i")],
        priority=mail_pb2.PRIORITY_BULK,
        wait_for=mail_pb2.WAIT_FOR_QUEUE,
        ttl=Duration(seconds=5),
        request_id="r1",
        **{"from": "f@x.org"},
    )
    assert await order_of(request) == Order(
        draft=Draft(
            to=("a@x.org", "b@x.org"),
            cc=("c@x.org",),
            bcc=("d@x.org",),
            subject="s",
            text="t",
            html="h",
            from_="f@x.org",
            reply_to="r@x.org",
            headers={"X-A": "1"},
            attachments=(Attachment("f", "a/b", b"c", "i"),),
        ),
        priority=Priority.BULK,
        wait_for=WaitFor.QUEUE,
        ttl=5.0,
        request_id="r1",
        fingerprint=convert.fingerprint(request),
    )


async def test_what_is_left_out_is_the_default() -> None:
    """An empty request is an order for nothing in particular, without a ttl and without a fingerprint."""
    assert await order_of(mail_pb2.SendMailRequest()) == Order(draft=Draft())


@pytest.mark.parametrize("field", ["priority", "wait_for"])
async def test_numbers_that_the_contract_lacks_are_refused(field: str) -> None:
    """Each by its field's name."""
    numbers: dict[str, Any] = {field: 17}
    with pytest.raises(InvalidArgument) as caught:
        await order_of(mail_pb2.SendMailRequest(**numbers))
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("length", "request_id", "where"),
    [(10, "r1", "loop"), (rpc_order._LARGE + 1, "r1", "thread"), (rpc_order._LARGE + 1, "", "nowhere")],
)
async def test_the_loop_does_not_wait_for_a_large_fingerprint(
    monkeypatch: pytest.MonkeyPatch, length: int, request_id: str, where: str
) -> None:
    """A large request is hashed in a thread, and only where a repeated one is to be told."""
    threads: list[threading.Thread] = []
    fingerprint = convert.fingerprint

    def noted(request: Message) -> bytes:
        threads.append(threading.current_thread())
        return fingerprint(request)

    monkeypatch.setattr(convert, "fingerprint", noted)
    order = await order_of(mail_pb2.SendMailRequest(text="x" * length, request_id=request_id))
    expected = {"loop": [True], "thread": [False], "nowhere": []}
    assert [thread is threading.current_thread() for thread in threads] == expected[where]
    assert bool(order.fingerprint) is bool(request_id)
