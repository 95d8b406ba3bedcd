"""Decides which mails of a stream are sent again over another one, and when. Pure: both clients ask it."""

from collections.abc import Collection
from typing import NamedTuple, Protocol

from otpmail.client import decode
from otpmail.client.errors import Error, Unavailable
from otpmail.client.retry import Attempts, Retries
from otpmail.client.values import MailResult
from otpmail.v1 import mail_pb2

_Result = mail_pb2.SendMailsResponse.Result


class SentMails(Protocol):
    """The mails of all streams of one call, as a client keeps them. Those without a result are open."""

    @property
    def all_taken(self) -> bool:
        """Whether the caller's iterable has ended, and each of its mails was sent."""

    @property
    def is_done(self) -> bool:
        """Whether the iterable has ended, and each of its mails has its result."""

    def request_ids(self) -> list[str]:
        """Return the names of the open mails."""

    def settle(self, request_id: str, *, is_refusal: bool = False) -> bool:
        """Take note that a mail has its result; returns whether it was open."""

    def take_out_larger(self, most: int | None) -> list[_Result]:
        """Take out the open mails that no message of `most` octets can have; returns a result for each."""


class Step(NamedTuple):
    """The next step after a stream has ended: results, then another stream after `wait` seconds, none by None."""

    results: list[MailResult]
    wait: float | None


class Resend:
    """Reads the results of one stream after another, and decides after each whether another one follows."""

    def __init__(self, mails: SentMails, attempts: Attempts, retries: Retries) -> None:
        self._mails = mails
        self._attempts = attempts
        self._refusals = Refusals(retries)

    def __repr__(self) -> str:
        return f"<Resend of {self._mails!r}, {self._attempts!r}>"

    def result(self, message: _Result) -> MailResult | None:
        """Return the result of a mail, None if the mail is sent again or has its result already."""
        if self._refusals.is_repeated(message, all_taken=self._mails.all_taken):
            return None
        if not self._mails.settle(message.request_id, is_refusal=bool(message.code)):
            return None
        self._attempts.succeeded()
        return decode.result(message)

    def after(self, failure: Error | None, most: int | None) -> Step:
        """Return what follows a stream that has ended well, or by a failure. Raises the error if mails are left open.

        `most` is how many octets a message may have, if a larger one may have ended the stream. Without the larger
        mails the next stream begins at once.
        """
        if larger := self._mails.take_out_larger(most):
            return Step(list(map(decode.result, larger)), None if self._mails.is_done else 0.0)
        if self._mails.is_done:  # what ends a stream after its last result is of no interest
            return Step([], None)
        try:
            wait = self._attempts.wait_after(failure or Unavailable("the service has ended the stream"))
        except Unavailable:
            refused = [] if failure is not None else self._take_out_refused()
            if not refused:
                raise
            return Step(list(map(decode.result, refused)), None)
        return Step([], wait)

    def _take_out_refused(self) -> list[_Result]:
        """Take out all open mails by their latest refusals; none of them while one was not refused."""
        refused = self._refusals.results(self._mails.request_ids()) if self._mails.all_taken else []
        for each in refused:
            self._mails.settle(each.request_id, is_refusal=True)
        return refused


class Refusals:
    """Knows how often each mail of a stream was refused as UNAVAILABLE, and decides whether it is sent again."""

    def __init__(self, retries: Retries) -> None:
        self._most = retries.attempts
        self._counts: dict[str, int] = {}
        self._latest: dict[str, _Result] = {}

    def __repr__(self) -> str:
        return f"<Refusals of {len(self._counts)} mails>"

    def is_repeated(self, result: _Result, *, all_taken: bool) -> bool:
        """Whether a mail is sent again over the next stream, rather than has this result.

        A service of another version may have other words for its stop. So any mail that it can't take is sent again,
        where the stream ends soon in any case, since all mails have been taken.
        """
        if not decode.is_unavailable(result) or decode.is_of_a_stop(result):
            return decode.is_unavailable(result)
        if not all_taken:
            return False
        count = self._counts[result.request_id] = self._counts.get(result.request_id, 0) + 1
        self._latest[result.request_id] = result
        return count < self._most

    def results(self, request_ids: Collection[str]) -> list[_Result]:
        """Return the latest refusals of mails, for a stream with no time to send them again; none if one lacks its."""
        found = [self._latest[each] for each in request_ids if each in self._latest]
        return found if len(found) == len(request_ids) else []
