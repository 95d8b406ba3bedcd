"""The tests of attacks find the faults of a server that is not ours, and name them."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import sys
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from attacks.test_injection import _faults_of
from otpmail.original import mail_pb2, mail_pb2_grpc
from relay.faults import CaughtMail

_ROOT = Path(__file__).parent.parent
_SECONDS = 100.0
_FOUND = {
    "test_addresses_that_look_alike_are_others",
    "test_another_spelling_gives_no_more_guesses",
    "test_cancelled_checks",
    "test_new_codes_give_no_more_guesses",
    "test_no_attempt_beyond_the_last",
    "test_right_codes_at_once",
    "test_wrong_codes_at_once",
}


class _Careless(mail_pb2_grpc.OtpServiceServicer):
    """Compares addresses as careless programs do, counts no guesses, and looks before it takes a code away."""

    def __init__(self) -> None:
        self._codes: dict[str, str] = {}

    async def SendCode(self, request: mail_pb2.SendCodeRequest, _: Any) -> mail_pb2.SendCodeResponse:  # noqa: N802
        """Make a new code each time, and answer it."""
        code = f"{secrets.randbelow(10**6):06d}"
        self._codes[request.email.strip().casefold()] = code
        return mail_pb2.SendCodeResponse(status=mail_pb2.SUCCESS, otpCode=code)

    async def ValidateCode(  # noqa: N802
        self, request: mail_pb2.ValidateCodeRequest, _: Any
    ) -> mail_pb2.ValidateCodeResponse:
        """Take the code away a while after the look."""
        email = request.email.strip().casefold()
        if email not in self._codes:
            return mail_pb2.ValidateCodeResponse(status=mail_pb2.FAILED)
        is_right = self._codes[email] == request.otpCode
        await asyncio.sleep(0.05)
        if is_right:
            self._codes.pop(email, None)
        return mail_pb2.ValidateCodeResponse(status=mail_pb2.SUCCESS, isValid=is_right)


async def _attack(*arguments: str, **environment: str) -> str:
    """Run the tests of attacks with these arguments, and return what they print."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments),
        cwd=_ROOT,
        env=os.environ | environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), _SECONDS)
    return output.decode()


@pytest.mark.one_loop
async def test_what_a_target_is_not_asked_for_is_counted() -> None:
    """Tests that need a process of ours are left out of a run against a target, and no list hides the others."""
    tests = [f"tests/attacks/test_{name}.py" for name in ("timing", "guessing")]
    words = await _attack(*tests, "--target", "127.0.0.1:1", "--collect-only")
    assert re.search(r"^[1-9]\d* tests need a service of ours, and were left out", words, re.MULTILINE), words
    assert "test_guessing.py::test_wrong_codes_at_once[target-v1]" in words
    assert "test_timing.py::" not in words


@pytest.mark.one_loop
async def test_an_authority_that_can_not_be_read_is_named() -> None:
    """A wrong OTPMAIL_CA_FILE ends the run before its first test, with a line that names it."""
    file = str(_ROOT / "no-such-file.pem")
    words = await _attack("tests/attacks", "--target", "127.0.0.1:1", OTPMAIL_CA_FILE=file)
    assert f"OTPMAIL_CA_FILE={file} has no certificates in PEM" in words, words


@pytest.mark.one_loop
async def test_the_faults_of_a_careless_server_are_found() -> None:
    """Each fault is a test that fails, all in one run; of spellings each that is broken is named."""
    server = grpc.aio.server()
    mail_pb2_grpc.add_OtpServiceServicer_to_server(_Careless(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    tests = [f"tests/attacks/test_{name}.py" for name in ("address_games", "guessing")]
    try:
        words = await _attack(*tests, "--target", f"127.0.0.1:{port}", "--contract", "original")
    finally:
        await server.stop(None)
    assert set(re.findall(r"^FAILED \S+::(\w+)", words, re.MULTILINE)) >= _FOUND, words
    for fault in ("NFD for NFC: has a code of its own", "Kelvin sign: the code of ", "long s: the code of "):
        assert fault in words, words


def _caught(content: bytes) -> CaughtMail:
    return CaughtMail(
        connection=1,
        sender="a@x.org",
        recipients=("b@y.org",),
        content=content,
        parameters={},
        username=None,
        mode="DATA",
    )


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"Subject: s\r\nBcc: eve@evil.example\r\n\r\nt\r\n", "a header: b'Bcc: eve@evil.example'"),
        (b"Subject: s\r\nX-Injected: 1\r\n\r\nt\r\n", "a header: b'X-Injected: 1'"),
        (b"Subject: s\r\n\r\nt\nt\r\n", "a line end that is not CRLF: b't\\nt\\r'"),
        (b"Subject: s\r\n\r\nt\rt\r\n", "a line end that is not CRLF: b't\\rt\\r'"),
    ],
)
def test_what_was_injected_is_named(content: bytes, fault: str) -> None:
    """A header that nobody asked for and a bare CR or LF are found in a mail that left, and good mails have none."""
    good = _caught(b"Subject: s\r\n Bcc: folded\r\n\r\nBcc: t\r\n")
    mail = _caught(content)
    assert list(_faults_of([good, mail], ["MAIL FROM:<a@x.org> SIZE=1", "RCPT TO:<b@y.org>"])) == [fault]


def test_a_command_that_was_injected_is_named() -> None:
    """A path with more behind it, and the address of an attacker, are found among the commands."""
    lines = ["RCPT TO:<b@y.org>", "RCPT TO:<b@y.org>,<c@y.org>", "MAIL FROM:<eve@evil.example>"]
    assert list(_faults_of([], lines)) == [f"a command: {line!r}" for line in lines[1:]]
