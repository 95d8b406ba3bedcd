"""Says on standard error that a relay has deferred the mail for which a command waits."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from math import ceil
from threading import Event, Thread
from time import time

import grpc
from rich.markup import escape

from otpmail.cli.output import err, relay_reply, spoken
from otpmail.v1 import mail_pb2, mail_pb2_grpc

_PATIENCE_SECONDS = 1.0  # most mails have settled by then, and are not watched
_HOUR = 3600


@contextmanager
def saying_deferrals(channel: grpc.Channel, request_id: str) -> Iterator[None]:
    """Print a line each time the mail of a request is deferred, until the block ends."""
    done = Event()
    Thread(target=_watch, args=(channel, request_id, done), daemon=True).start()
    try:
        yield
    finally:
        done.set()


def _watch(channel: grpc.Channel, request_id: str, done: Event) -> None:
    """Watch the mail. Nothing is printed where the caller may not do that, or the request was refused."""
    if done.wait(_PATIENCE_SECONDS):
        return
    with suppress(grpc.RpcError, ValueError):  # ValueError: the command has closed the channel
        for mail in mail_pb2_grpc.MailServiceStub(channel).WatchMail(mail_pb2.WatchMailRequest(request_id=request_id)):
            if done.is_set():
                return
            if line := deferral(mail, time):
                err.print(escape(line), style="yellow")


def deferral(mail: mail_pb2.Mail, now: Callable[[], float]) -> str:
    """Return the line for a mail that is deferred, empty for any other."""
    if mail.state != mail_pb2.Mail.STATE_QUEUED or not mail.HasField("next_attempt_time"):
        return ""
    reply = next((text for text in map(relay_reply, mail.recipients) if text), "the connection was lost")
    seconds = max(1, ceil(mail.next_attempt_time.seconds - now()))
    if seconds > 2 * _HOUR:  # rounded up, as nobody is to look too early
        seconds += -seconds % _HOUR
    return f"deferred by the relay: {reply}; the next attempt is in {spoken(seconds)}"
