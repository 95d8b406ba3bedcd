"""Profiles of CALLERS_FILE through the whole service: the terms of codes by caller and purpose."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc.aio
import pytest

from calls import parsed, retry_seconds, text_of
from integration.callers import DENIED, as_caller, status_of, table, write
from otpmail.v1 import otp_pb2

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from relay import Relay
    from service import Service

_SECONDS = 60.0  # generous: the machine may be busy
_ADA = "ada@example.org"
_VALID = otp_pb2.ValidateCodeResponse.RESULT_VALID
_WRONG = otp_pb2.ValidateCodeResponse.RESULT_WRONG_CODE


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return where the callers are, of whom there are none yet."""
    return tmp_path / "callers.toml"


def _profile(purpose: str, *lines: str) -> str:
    return "\n".join((f'[callers.shop.profiles."{purpose}"]', *lines, ""))


async def _send(service: Service, **fields: str) -> otp_pb2.SendCodeResponse:
    request = otp_pb2.SendCodeRequest(**{"email": _ADA, **fields})  # type: ignore[arg-type]
    return await service.otp.SendCode(request, metadata=as_caller("shop"), timeout=_SECONDS)


async def _validate(service: Service, code: str, **fields: str) -> otp_pb2.ValidateCodeResponse:
    request = otp_pb2.ValidateCodeRequest(**{"email": _ADA, "code": code, **fields})
    return await service.otp.ValidateCode(request, metadata=as_caller("shop"), timeout=_SECONDS)


async def test_a_profile_sets_the_form_of_a_code(
    serve: Callable[..., Awaitable[Service]], file: Path, relay: Relay
) -> None:
    """A caller's codes have the digits, letters, life and From of the purpose's profile, and are valid once."""
    terms = ("digits = 8", 'lifespan = "2m"', "attempts = 2", 'from = "Shop <codes@shop.example>"')
    write(file, table("shop") + _profile("login", *terms) + _profile("device", "letters = 6") + table("other"))
    service = await serve(CALLERS_FILE=file, OTP_RETURN_CODE=True)
    sent = await _send(service)
    assert (sent.code_length, sent.code_is_numeric) == (8, True)
    assert len(sent.otp_code) == 8
    assert parsed(relay.mails[0].content)["From"] == "Shop <codes@shop.example>"
    assert sent.otp_code in text_of(relay.mails[0].content)
    assert relay.mails[0].sender == "codes@shop.example"
    wrong = await _validate(service, f"{(int(sent.otp_code) + 1) % 10**8:08d}")
    assert (wrong.result, wrong.attempts_left) == (_WRONG, 1)
    assert (await _validate(service, sent.otp_code)).result == _VALID
    letters = await _send(service, purpose="device")
    assert (letters.code_length, letters.code_is_numeric) == (6, False)
    assert (await _validate(service, letters.otp_code.lower(), purpose="device")).result == _VALID
    plain = await service.otp.SendCode(otp_pb2.SendCodeRequest(email=_ADA), metadata=as_caller("other"))
    assert plain.code_length == 6
