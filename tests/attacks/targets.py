"""A server under attack, ours or anybody's: calls through either contract, and the relay that catches its mails."""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
from collections import Counter
from dataclasses import dataclass, fields
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import grpc.aio
import pytest

from calls import parsed
from otpmail.address import parse_address
from otpmail.errors import InvalidArgument
from otpmail.original import mail_pb2 as original_pb2
from otpmail.original import mail_pb2_grpc as original_grpc
from otpmail.v1 import mail_pb2, mail_pb2_grpc, otp_pb2, otp_pb2_grpc

if TYPE_CHECKING:
    import re
    from collections.abc import Iterator, Sequence

    from relay import CaughtMail, Relay
    from service import Service

CONTRACTS = ("v1", "original")
_REFUSED = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}
_MAIL_SECONDS = 30.0
_CALL_SECONDS = 60.0  # a call that takes longer fails its test, rather than all of them
_START_SECONDS = 90.0
_POLL_SECONDS = 0.5
_DIRECT = (("grpc.enable_http_proxy", 0),)  # a proxy of this machine does not reach its loopback


class Answer(Enum):
    """The outcome of a check: WRONG says that the guess was compared, REFUSED that it was not."""

    RIGHT = "right"
    WRONG = "wrong"
    REFUSED = "refused"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits of a target that a test counts up to."""

    attempts: int = 5
    failures: int = 10
    sends: int = 10
    block_sends: int = 30

    @classmethod
    def names(cls) -> list[str]:
        """Return their names as options have them."""
        return [field.name.replace("_", "-") for field in fields(cls)]


@dataclass(frozen=True, kw_only=True)
class System:
    """Replicas of one server, and the relay that they mail to, if the tests are it."""

    addresses: Sequence[str]
    relay: Relay | None
    limits: Limits
    code_pattern: re.Pattern[str]
    services: Sequence[Service] = ()
    """The processes, if they are ours."""

    def codes_in(self, mail: CaughtMail) -> list[str]:
        """Return what looks like a short code in the texts of a mail."""
        texts = (part.get_content() for part in parsed(mail.content).walk() if part.get_content_maintype() == "text")
        return [code for text in texts for code in self.code_pattern.findall(text)]


class Target:
    """A system as attackers see it through one contract. Calls go to its replicas in turn."""

    contract = ""

    def __init__(self, system: System) -> None:
        """Open no connection before the first call."""
        self.system = system
        self.limits = system.limits
        self.metadata = _metadata()
        self.over_tls = "OTPMAIL_CA_FILE" in os.environ
        self.channels = [_open(address) for address in system.addresses]
        self._turns: Iterator[grpc.aio.Channel] = itertools.cycle(self.channels)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for channel in self.channels:
            await channel.close()

    @property
    def channel(self) -> grpc.aio.Channel:
        """The connection to the replica whose turn it is."""
        return next(self._turns)

    @property
    def mails(self) -> list[CaughtMail]:
        """All mails that the relay has caught; the test is skipped without a relay of ours."""
        return self.relay.mails

    @property
    def relay(self) -> Relay:
        """The relay that the target mails to; the test is skipped without one of ours."""
        if self.system.relay is None:
            pytest.skip("it looks at the mails of the target, which needs --relay-listen")
        return self.system.relay

    async def code_for(self, email: str, **fields: Any) -> str | None:
        """Ask for a code, and return that of the mail; None where the target refuses, or mails no short code."""
        before = 0 if self.system.relay is None else len(self.mails)
        answered = await self.send_code(email, **fields)
        if answered is None:
            return None
        if self.system.relay is not None:
            return next(iter(self.system.codes_in(await self.mail_for(email, before))), None)
        if not answered:
            pytest.skip("the target answers no code, and --relay-listen is not given")
        return answered

    async def mail_for(self, email: str, before: int) -> CaughtMail:
        """Wait for the first mail to this mailbox that comes after so many others.

        Of an address that ours would refuse nobody knows what the target makes: it is the first mail.
        """
        wanted = _mailbox(email)
        async with asyncio.timeout(_MAIL_SECONDS):
            while True:
                mails = await self.relay.wait_for_mails(before + 1, timeout=_MAIL_SECONDS)
                for mail in mails[before:]:
                    if wanted is None or wanted in map(_mailbox, mail.recipients):
                        return mail
                before = len(mails)

    async def wait_until_it_mails(self) -> None:
        """Return once each replica mails a code: it may look for its relay again later, if that was not there."""
        in_a_row = 0
        async with asyncio.timeout(_START_SECONDS):
            while in_a_row < len(self.channels):
                if await self._mails_now():
                    in_a_row += 1
                else:  # nothing tells when a foreign server is ready
                    in_a_row = 0
                    await asyncio.sleep(_POLL_SECONDS)

    async def _mails_now(self) -> bool:
        try:
            return await self.send_code(somebody()) is not None
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            return False

    async def send_code(self, email: str, **fields: Any) -> str | None:
        """Ask for a code, and return what the answer has of it, mostly nothing; None where the target refuses."""
        raise NotImplementedError

    async def check(self, email: str, code: str, **fields: Any) -> Answer:
        """Check a code."""
        raise NotImplementedError

    async def device_token(self, email: str, code: str) -> str:
        """Check a right code, and return the token of the answer."""
        raise NotImplementedError

    async def guess(self, email: str, code: str, count: int, **fields: Any) -> Counter[Answer]:
        """Try so many wrong codes one after the other."""
        return Counter([await self.check(email, guess, **fields) for guess in wrong_codes(code, count)])


class TargetOfV1(Target):
    """A server that speaks otpmail.v1."""

    contract = "v1"

    async def send_code(self, email: str, **fields: Any) -> str | None:
        """Return the code of the answer; None where the call is refused, or no mail can have left."""
        call = otp_pb2_grpc.OtpServiceStub(self.channel).SendCode
        try:
            sent = await call(
                otp_pb2.SendCodeRequest(email=email, **fields), metadata=self.metadata, timeout=_CALL_SECONDS
            )
        except grpc.aio.AioRpcError as error:
            _expect_refusal(error)
            return None
        return None if sent.mail.state == mail_pb2.Mail.STATE_FAILED else str(sent.otp_code)

    async def check(self, email: str, code: str, **fields: Any) -> Answer:
        """Tell the four results of the contract apart by whether the code was compared."""
        call = otp_pb2_grpc.OtpServiceStub(self.channel).ValidateCode
        request = otp_pb2.ValidateCodeRequest(email=email, code=code, **fields)
        try:
            result = (await call(request, metadata=self.metadata, timeout=_CALL_SECONDS)).result
        except grpc.aio.AioRpcError as error:
            _expect_refusal(error)
            return Answer.REFUSED
        compared = {
            otp_pb2.ValidateCodeResponse.RESULT_VALID: Answer.RIGHT,
            otp_pb2.ValidateCodeResponse.RESULT_WRONG_CODE: Answer.WRONG,
        }
        return compared.get(result, Answer.REFUSED)

    async def device_token(self, email: str, code: str) -> str:
        """Check a right code, and return what the contract gives a person's device for it."""
        call = otp_pb2_grpc.OtpServiceStub(self.channel).ValidateCode
        answer = await call(
            otp_pb2.ValidateCodeRequest(email=email, code=code), metadata=self.metadata, timeout=_CALL_SECONDS
        )
        assert answer.result == otp_pb2.ValidateCodeResponse.RESULT_VALID
        return str(answer.device_token)


class TargetOfOriginal(Target):
    """A server that speaks the original's package `mail`, which knows an address and a code alone."""

    contract = "original"

    async def send_code(self, email: str, **fields: Any) -> str | None:
        """Return the code of the answer; None where it is FAILED or an error."""
        assert not fields
        call = original_grpc.OtpServiceStub(self.channel).SendCode
        try:
            sent = await call(original_pb2.SendCodeRequest(email=email), metadata=self.metadata, timeout=_CALL_SECONDS)
        except grpc.aio.AioRpcError as error:
            _expect_refusal(error)
            return None
        return str(sent.otpCode) if sent.status == original_pb2.SUCCESS else None

    async def check(self, email: str, code: str, **fields: Any) -> Answer:
        """Read SUCCESS as "compared", as this contract means it."""
        assert not fields
        call = original_grpc.OtpServiceStub(self.channel).ValidateCode
        try:
            answer = await call(
                original_pb2.ValidateCodeRequest(email=email, otpCode=code),
                metadata=self.metadata,
                timeout=_CALL_SECONDS,
            )
        except grpc.aio.AioRpcError as error:
            _expect_refusal(error)
            return Answer.REFUSED
        if answer.isValid:
            return Answer.RIGHT
        return Answer.WRONG if answer.status == original_pb2.SUCCESS else Answer.REFUSED


def through(contract: str, system: System) -> Target:
    """Return the target that speaks this contract."""
    return TargetOfV1(system) if contract == "v1" else TargetOfOriginal(system)


def somebody(name: str = "ada", domain: str = "example.org") -> str:
    """Return an address that no test has used before."""
    return f"{name}.{secrets.token_hex(6)}@{domain}"


def wrong_codes(code: str, count: int) -> list[str]:
    """Return so many codes of the same length, each another one, and none the right one."""
    return [f"{(int(code) + step) % 10 ** len(code):0{len(code)}d}" for step in range(1, count + 1)]


def mail_stub(target: Target) -> mail_pb2_grpc.MailServiceAsyncStub:
    """Return otpmail.v1.MailService of the replica whose turn it is."""
    return mail_pb2_grpc.MailServiceStub(target.channel)


def _mailbox(address: str) -> str | None:
    """Return what all spellings of a mailbox have in common; None for a text that ours takes for no address."""
    try:
        return parse_address(address, "email").key
    except InvalidArgument:
        return None


def _metadata() -> tuple[tuple[str, str], ...]:
    token = os.environ.get("OTPMAIL_TOKEN")
    return (("authorization", f"Bearer {token}"),) if token else ()


def _open(address: str) -> grpc.aio.Channel:
    """Open a channel, over TLS where OTPMAIL_CA_FILE is set, as the commands of otpmail do."""
    authority = os.environ.get("OTPMAIL_CA_FILE")
    if authority is None:
        return grpc.aio.insecure_channel(address, _DIRECT)
    return grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(Path(authority).read_bytes()), _DIRECT)


def _expect_refusal(error: grpc.aio.AioRpcError) -> None:
    """Raise an error that is no refusal: the target is down, or wants a token."""
    if error.code() not in _REFUSED:
        raise error
