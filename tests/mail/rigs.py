"""A MailService whose calls a test makes in short, and whose large mails it writes step by step."""

import asyncio
from typing import Any

import pytest

from drafts import read_draft
from otpmail.callers import ANONYMOUS
from otpmail.compose.draft import LARGE, Draft
from otpmail.compose.message import compose_in_steps
from otpmail.cooperate import Steps
from otpmail.delivery.job import Job
from otpmail.mail import service
from otpmail.mail.submission import Submission
from otpmail.model import Envelope, Mail, WaitFor
from rig import MailRig, call_of

DRAFT = read_draft(subject="Hello", text="Hello Ada")
LARGE_DRAFT = read_draft(text="x" * (LARGE + 1))


class Rig(MailRig):
    """A MailService whose calls a test makes in short."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"queue_size": 3, **settings})

    async def accept(self, draft: Draft = DRAFT, *, caller: str = ANONYMOUS.name, **more: Any) -> Job:
        """Accept a guaranteed mail, unless `wait_for` says otherwise."""
        submission = Submission(**{"draft": draft, "wait_for": WaitFor.QUEUE, **more})
        return await self.mails.accept(call_of(caller), submission)

    def send(self, draft: Draft = DRAFT, **more: Any) -> "asyncio.Task[Mail]":
        """Begin a call that waits for the relay."""
        return asyncio.create_task(self.mails.send(call_of(), Submission(draft=draft, **more)))

    async def cancelled(self, *calls: "asyncio.Task[Mail]") -> None:
        """Cancel calls, and wait until they have ended by that."""
        for call in calls:
            call.cancel()
        for call in calls:
            with pytest.raises(asyncio.CancelledError):
                await call


class Pen:
    """Stands in for `compose_in_steps`: sets `writing` at the first step, and goes on once `go_on` is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.writing = asyncio.Event()
        self.go_on = asyncio.Event()
        self.times = self.open = 0
        monkeypatch.setattr(service, "compose_in_steps", self)

    def __call__(self, *arguments: Any, **more: Any) -> Steps[Envelope]:
        """Write the mail, not before it is time."""
        self.times += 1
        self.open += 1
        try:
            self.writing.set()
            while not self.go_on.is_set():
                yield
            return (yield from compose_in_steps(*arguments, **more))
        finally:
            self.open -= 1
