"""A relay says what it should not: it quotes codes and credentials, and sends characters that drive a terminal.

The service is a process with its real log. No answer, no line of its log and no output of
`otpmail check` holds a code, a credential or a character that does not print.
"""

from __future__ import annotations

import base64
import contextlib
import re
import urllib.parse
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from calls import metrics_text
from commands import otpmail
from otpmail.original import mail_pb2 as original_pb2
from otpmail.smtp.redaction import MAX_TEXT
from otpmail.v1 import mail_pb2, otp_pb2
from relay import Certificates, Faults, Relay
from service import Service, relay_settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Quote = Callable[[bytes], str]

# Ten digits, of which no log holds the same ones by chance.
DIGITS = 10
CODE = re.compile(rb"(?<![\w.])(\d{10})(?![\w.@])")  # in the subject first
USER, PASSWORD, TOKEN = "codes@example.org", "tr0ub4dor&3-hunter2", "ya29.a0Af_BhunterB2-yC"
LOUD = {"OTP_DIGITS": DIGITS, "LOG_LEVEL": "debug", "HTTP_PORT": 0, "WORKERS": 1, "EMAIL_RETRY_SECONDS": 0.05}
HOSTILE = "\x1b]0;owned\x07\x1b[2J\x00\u202eevil\u2066\u200b\u2028\x9b31m\udcff\udcfe\r"


def _code(content: bytes) -> str:
    found = CODE.search(content)
    assert found is not None
    return found[1].decode()


def _b64(text: str | bytes) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


def _each(form: str, code: str) -> str:
    return "".join(form.format(digit, ord(digit)) for digit in code)


# How each digit may be written.
FORMS = ("&#{1};", "&amp;#{1};", "<b>{0}</b>", "%25{1:x}", "\\{1:03o}", "0x{1:x}", "U+{1:04X}", "\\u{{{1:x}}}")

# How a relay may quote the mail of a code, as functions of its content.
QUOTES: dict[str, Quote] = {
    "subject": lambda mail: f"spam: Your code: {_code(mail)}",
    "spaced": lambda mail: f"spam: {_code(mail)[:5]} {_code(mail)[5:]}",
    "dashed": lambda mail: f"spam: {'-'.join(_code(mail))}",
    "two-lines": lambda mail: f"spam: your code is {_code(mail)[:3]}\n{_code(mail)[3:]} bad",
    "full-width": lambda mail: _code(mail).translate({48 + n: 0xFF10 + n for n in range(10)}),
    "zero-width": lambda mail: "\u200b".join(_code(mail)),
    "percent": lambda mail: "https://x.test/?q=" + _each("%{1:x}", _code(mail)),
    "url": lambda mail: "see https://x.test/?q=" + urllib.parse.quote(f"Your code: {_code(mail)}"),
    "quoted-printable": lambda mail: _each("={1:X}", _code(mail)),
    "soft-line": lambda mail: f"{_code(mail)[:2]}=\n{_code(mail)[2:]}",
    "base64": lambda mail: "\n".join(re.findall(".{1,400}", _b64(mail))),
    "base64-of-a-part": lambda mail: f"'{_b64(_code(mail))}'",
    "percent-twice": lambda mail: "https://x.test/?q=" + _each("%25{1:x}", _code(mail)),
    "octal": lambda mail: _each("\\{1:03o}", _code(mail)),
    "0x": lambda mail: _each("0x{1:x} ", _code(mail)),
    "code-points": lambda mail: _each("U+{1:04X} ", _code(mail)),
    "braces": lambda mail: _each("\\u{{{1:x}}}", _code(mail)),
    "entities-twice": lambda mail: _each("&amp;#{1};", _code(mail)),
    "entities": lambda mail: _each("&#{1};", _code(mail)),
    "markup": lambda mail: _each("<b>{0}</b>", _code(mail)),
    "whole": lambda mail: mail.decode().replace("\r\n", "\n"),
    "at-the-cut": lambda mail: f"{'x' * (MAX_TEXT - 5)}{_code(mail)}",
}


def _reply(code: str, words: str) -> str:
    """Return a reply with an enhanced status code on each of its lines (RFC 2034, 4)."""
    return f"{code} " + "\n".join(f"{code[0]}.7.1 {line}" for line in words.split("\n"))


def _shows(text: str, code: str) -> bool:
    """Whether the code can be read in the text: with anything but letters between its digits, decoded, or in base64."""
    encoded = {_b64("x" * before + code)[-(-8 * before // 6) : 8 * (before + len(code)) // 6] for before in range(3)}
    decoded = urllib.parse.unquote(text), re.sub("=([0-9A-F]{2})", lambda m: chr(int(m[1], 16)), text)
    runs = [run for reading in (text, *decoded) for run in re.findall(r"\d(?:[\W_]*\d)*", reading)]
    numbers = ["".join(str(int(c)) for c in run if c.isdecimal()) for run in runs]
    forms = (*encoded, *(_each(form, code) for form in FORMS))
    return any(code in number for number in numbers) or any(form in "".join(text.split()) for form in forms)


class Quoting(Relay):
    """A relay that refuses nobody, and quotes what it is given in the way and with the code that a test chooses."""

    def __init__(self) -> None:
        super().__init__(Faults(auth=(), final_reply=self._answer))
        self.contents: list[bytes] = []
        self.quoted: list[str] = []
        self.code = "250"
        self.quote: Quote = QUOTES["subject"]

    def _answer(self, content: bytes) -> str:
        self.contents.append(content)
        self.quoted.append(self.quote(content))
        return _reply(self.code, self.quoted[-1])


async def _told(service: Service, mail_id: str) -> str:
    """Return every word of the service so far: of that mail, in its log and in its metrics."""
    got = await service.mail.GetMail(mail_pb2.GetMailRequest(id=mail_id))
    return "\n".join((*map(str, got.recipients), await metrics_text(service), *service.output))


@pytest.mark.parametrize("code", ["250", "451", "554"])
async def test_a_code_that_the_relay_quotes_gets_out_nowhere(
    certificates: Certificates, tmp_path: Path, code: str
) -> None:
    """No reply to the mail of a code repeats the code to the caller, in GetMail, in the log or in a metric."""
    async with Quoting() as relay:
        relay.code = code
        settings = relay_settings(relay, certificates, tmp_path / "token") | LOUD | {"QUEUE_SIZE": 100}
        async with Service(**settings) as service:
            await service.wait_until_serving()
            for name, quote in QUOTES.items():
                relay.quote = quote
                request = otp_pb2.SendCodeRequest(email=f"{name}@example.org", wait_for=mail_pb2.WAIT_FOR_QUEUE)
                sent = await service.otp.SendCode(request)
                event = "mail-deferred" if code == "451" else "mail-settled"
                await service.wait_for_log(event, mail=sent.mail.id)
                mail = await service.mail.GetMail(mail_pb2.GetMailRequest(id=sent.mail.id))
                assert [result.code for result in mail.recipients] == [int(code)]
                secret = _code(relay.contents[-1])
                assert _shows(relay.quoted[-1], secret), name  # the test itself would notice it
                told = str(sent) + await _told(service, sent.mail.id)
                assert [line for line in told.splitlines() if _shows(line, secret)] == [], name
                assert mail.recipients[0].reply, name
                if code == "451":
                    await service.mail.CancelMail(mail_pb2.CancelMailRequest(id=sent.mail.id))


LETTERS = re.compile(rb"[2-9A-HJ-NP-Z]{4}(?:-[2-9A-HJ-NP-Z]{4}){2}")


def _letters(content: bytes) -> str:
    found = LETTERS.search(content)
    assert found is not None
    return found[0].decode()


QUOTES_OF_LETTERS: dict[str, Quote] = {
    "subject": lambda mail: f"spam: {_letters(mail)} is your code",
    "bare": lambda mail: f"spam: {_letters(mail).replace('-', '')}",
    "lower": lambda mail: f"spam: {_letters(mail).lower()}",
    "spaced": lambda mail: f"spam: {' '.join(_letters(mail))}",
    "percent": lambda mail: "".join(f"%{ord(letter):x}" for letter in _letters(mail)),
    "base64": lambda mail: _b64(f"a {_letters(mail)}"),
    "hex": lambda mail: _letters(mail).encode().hex(),
    "whole": lambda mail: mail.decode().replace("\r\n", "\n"),
    "at-the-cut": lambda mail: f"{'x' * (MAX_TEXT - 5)} {_letters(mail)}",
}


@pytest.mark.parametrize("code", ["250", "554"])
async def test_a_code_of_letters_that_the_relay_quotes_gets_out_nowhere(
    certificates: Certificates, tmp_path: Path, code: str
) -> None:
    """A long code, as an address under attack gets it, is in no answer, log line or metric either."""
    async with Quoting() as relay:
        settings = relay_settings(relay, certificates, tmp_path / "token") | LOUD
        async with Service(**settings | {"OTP_FAILURES_PER_HOUR": 1, "OTP_RESEND_SECONDS": 0}) as service:
            await service.wait_until_serving()
            for name, quote in QUOTES_OF_LETTERS.items():
                email = f"{name}@example.org"
                relay.code, relay.quote = "250", lambda _: "taken"
                await service.otp.SendCode(otp_pb2.SendCodeRequest(email=email))
                await service.otp.ValidateCode(otp_pb2.ValidateCodeRequest(email=email, code="0000000000"))
                relay.code, relay.quote = code, quote
                sent = await service.otp.SendCode(otp_pb2.SendCodeRequest(email=email))
                assert sent.code_length == 12
                secret = _letters(relay.contents[-1])
                told = re.sub(r"[\s_-]", "", (str(sent) + await _told(service, sent.mail.id)).upper())
                forms = secret.replace("-", ""), secret.encode().hex().upper(), _b64(f"a {secret}").upper()
                assert not any(form in told for form in forms), name
                assert sent.mail.recipients[0].code == int(code)
                assert sent.mail.recipients[0].reply, name


@pytest.mark.parametrize("code", ["250", "554"])
async def test_a_reply_that_quotes_an_earlier_mails_code(certificates: Certificates, tmp_path: Path, code: str) -> None:
    """A reply to a mail repeats no code of one of the last mails on its connection, in any form."""
    async with Quoting() as relay:
        settings = relay_settings(relay, certificates, tmp_path / "token") | LOUD
        async with Service(**settings) as service:
            await service.wait_until_serving()
            relay.quote = lambda _: "taken"
            await service.otp.SendCode(otp_pb2.SendCodeRequest(email="ada@example.org"))
            earlier, secret = relay.contents[0], _code(relay.contents[0])
            relay.code = code
            for name, quote in QUOTES.items():
                relay.quote = lambda _, quote=quote: quote(earlier)  # type: ignore[misc]
                request = mail_pb2.SendMailRequest(to=[f"{name}@example.org"], subject="s", text="t")
                sent = await service.mail.SendMail(request)
                assert _shows(relay.quoted[-1], secret), name  # the test itself would notice it
                told = str(sent) + await _told(service, sent.mail.id)
                assert [line for line in told.splitlines() if _shows(line, secret)] == [], name
                assert sent.mail.recipients[0].reply, name


@pytest.mark.parametrize("point", ["421 to the content", "421 unasked", "a second reply", "no reply"])
async def test_a_code_in_the_last_words_of_a_connection_gets_out_nowhere(
    certificates: Certificates, tmp_path: Path, point: str
) -> None:
    """A goodbye, an unasked reply or a line that is no reply repeats no code, of this mail or an earlier one."""
    words: dict[str, Callable[[bytes], str]] = {
        "421 to the content": lambda mail: f"421 4.7.0 spam: Your code: {_code(mail)}",
        "a second reply": lambda mail: f"250 2.0.0 taken\r\n550 5.7.1 spam: Your code: {_code(mail)}",
        "no reply": lambda mail: f"250 2.0.0 taken\r\nYour code: {_code(mail)}",
    }
    contents: list[bytes] = []

    def answer(content: bytes) -> str:
        contents.append(content)
        return words[point](content) if point in words else "250 2.0.0 taken"

    def parting(_: bytes) -> str:
        return f"421 4.7.0 too many mails such as 'Your code: {_code(contents[0])}'"

    async with Relay(Faults(auth=(), final_reply=answer, parting=parting, close_after=2, times=3)) as relay:
        settings = relay_settings(relay, certificates, tmp_path / "token") | LOUD
        async with Service(**settings) as service:
            await service.wait_until_serving()
            for name in ("ada", "bob", "eve"):
                request = otp_pb2.SendCodeRequest(email=f"{name}@example.org", wait_for=mail_pb2.WAIT_FOR_QUEUE)
                sent = await service.otp.SendCode(request)
                await service.wait_for_log("mail-settled", mail=sent.mail.id)
            await service.wait_for_log("connection-closed")
            told = await _told(service, sent.mail.id)
    assert contents
    for content in contents:
        assert [line for line in told.splitlines() if _shows(line, _code(content))] == []


async def test_a_code_is_in_no_error_of_the_original_contract(certificates: Certificates, tmp_path: Path) -> None:
    """Package `mail` answers FAILED without the code; its own mails keep the relay's words, which are the caller's."""
    async with Quoting() as relay:
        relay.code, relay.quote = "554", lambda mail: f"spam: {mail.decode().splitlines()[-1]}"
        async with Service(**relay_settings(relay, certificates, tmp_path / "token") | LOUD) as service:
            await service.wait_until_serving()
            answer = await service.original_otp.SendCode(original_pb2.SendCodeRequest(email="ada@example.org"))
            assert answer.status == original_pb2.FAILED
            relay.quote = QUOTES["subject"]
            await service.original_otp.SendCode(original_pb2.SendCodeRequest(email="bob@example.org"))
            secret = _code(relay.contents[-1])
            relay.quote = lambda _: "spam: pay 1234567890 now"
            with pytest.raises(grpc.aio.AioRpcError, match="pay 1234567890 now"):
                await service.original_mail.SendMail(
                    original_pb2.SendEmailRequest(to="ada@example.org", subject="s", body="pay 1234567890 now")
                )
            told = "\n".join(service.output)
    assert [line for line in told.splitlines() if _shows(line, secret)] == []


# Credentials.

_ANSWERS = {
    "PLAIN": f"\0{USER}\0{PASSWORD}",
    "LOGIN": PASSWORD,
    "CRAM-MD5": USER,
    "XOAUTH2": f"user={USER}\x01auth=Bearer {TOKEN}\x01\x01",
    "OAUTHBEARER": f"n,a={USER},\x01auth=Bearer {TOKEN}\x01\x01",
}
_BY_TOKEN = {"XOAUTH2", "OAUTHBEARER"}


def _relay_that_signs_in(mechanism: str, **more: Any) -> Faults:
    return Faults(auth=(mechanism,), username=USER, password=PASSWORD, token=TOKEN, **more)


def _holds_credentials(text: str, quoted: str = "") -> list[str]:
    """Return the lines that hold a part of a credential, plainly or in what the client answered to AUTH."""
    forms = [PASSWORD, TOKEN, _b64(PASSWORD), _b64(TOKEN), *map(_b64, _ANSWERS.values()), *quoted.split(" ")[1:]]
    parts = [form[start : start + 8] for form in forms for start in range(max(1, len(form) - 8))]
    parts = [part for part in parts if part not in USER]
    return [line for line in text.splitlines() if any(part in line for part in parts)]


@pytest.mark.parametrize("mechanism", list(_ANSWERS))
@pytest.mark.parametrize("code", ["535", "454", "421"])
async def test_a_refused_sign_in_that_quotes_the_credentials(
    certificates: Certificates, tmp_path: Path, mechanism: str, code: str
) -> None:
    """A relay that quotes AUTH, what it decoded from it, or the password gets none of that into the log."""
    quoted: list[str] = []

    secret = TOKEN if mechanism in _BY_TOKEN else PASSWORD

    def refuse(lines: str) -> str:
        quoted.append(lines)
        wrapped = "\n".join(re.findall(".{1,60}", lines))
        return f"{code} no: {secret} {_b64(secret)}\n{wrapped}\nso AUTH {lines[:-7]}... is refused"

    async with Relay(_relay_that_signs_in(mechanism, refuse_auth=refuse)) as relay:
        settings = relay_settings(relay, certificates, tmp_path / "token") | LOUD
        settings |= {"EMAIL_AUTH": mechanism.lower(), "EMAIL_FROM": "codes@example.org"}
        async with Service(**settings) as service:
            line = await service.wait_for_log("relay-down")
            output = "\n".join(service.output)
        ran = await otpmail("check", here=tmp_path, **{name: str(value) for name, value in settings.items() if value})
    assert "is refused" in str(line["error"])
    assert "***" in str(line["error"])
    assert quoted
    assert _holds_credentials(output, quoted[0]) == []
    assert ran.code == 1
    assert "is refused" in ran.err
    assert _holds_credentials(ran.out + ran.err, quoted[0]) == []


@pytest.mark.parametrize("mechanism", ["PLAIN", "XOAUTH2"])
async def test_a_reply_to_a_mail_that_quotes_the_credentials(
    certificates: Certificates, tmp_path: Path, mechanism: str
) -> None:
    """A relay that quotes the credentials in its reply to a mail, good or bad, tells them to no caller."""
    answer = _b64(_ANSWERS[mechanism])
    secret = TOKEN if mechanism in _BY_TOKEN else PASSWORD
    words = f"not for {USER}: {secret} ({answer}), AUTH {answer[:-9]}"
    async with Relay(_relay_that_signs_in(mechanism)) as relay:
        settings = relay_settings(relay, certificates, tmp_path / "token") | LOUD
        async with Service(**settings) as service:
            await service.wait_until_serving()
            for code in ("550", "451", "250"):
                relay.faults = replace(relay.faults, final_reply=_reply(code, words))
                request = mail_pb2.SendMailRequest(to=["ada@example.org"], text="hi", wait_for=mail_pb2.WAIT_FOR_QUEUE)
                sent = await service.mail.SendMail(request)
                event = "mail-deferred" if code == "451" else "mail-settled"
                await service.wait_for_log(event, mail=sent.mail.id)
                told = await _told(service, sent.mail.id)
                assert "not for codes@example.org: ***" in told
                assert _holds_credentials(told, f"AUTH {answer}") == []


# Characters.


def _is_clean(output: list[str]) -> None:
    """Check each line: it prints, and no reply fills it."""
    assert [line for line in output if not line.isprintable()] == []
    assert [line for line in output if len(line) > 2 * MAX_TEXT] == []


@pytest.mark.parametrize(
    "faults",
    [
        pytest.param({"greeting": f"554 {HOSTILE}{'x' * 7000}"}, id="greeting"),
        pytest.param({"security": "starttls", "refuse_starttls": f"454 {HOSTILE}{'x' * 7000}"}, id="starttls"),
        pytest.param({"refuse_auth": f"535 {HOSTILE}{'x' * 7000}"}, id="sign-in"),
        pytest.param({"greeting": f"{HOSTILE}{'x' * 7000}\r\n220 hi"}, id="no reply"),
        pytest.param({"security": "tls", "certificate": "wrong_name"}, id="certificate"),
        pytest.param({"security": "tls", "tls_1_1": True}, id="TLS 1.1"),
        pytest.param({"auth": (f"{HOSTILE}{'X' * 7000}",)}, id="mechanisms"),
        pytest.param({"auth": (), "announces": (f"AUTH {HOSTILE}{'X' * 7000}",)}, id="announced mechanisms"),
    ],
)
async def test_words_of_a_dial_are_clean_in_the_text_log(
    certificates: Certificates, tmp_path: Path, faults: dict[str, Any]
) -> None:
    """Greetings, refusals and announced mechanisms reach the log and `otpmail check` as short printable lines."""
    async with Relay(Faults(**faults), certificates=certificates) as relay:
        settings = relay_settings(relay, certificates, tmp_path / "token") | LOUD
        settings |= {"EMAIL": "user", "APP_PASSWORD": "secret", "LOG_FORMAT": "text", "EMAIL_FROM": "a@example.org"}
        async with contextlib.AsyncExitStack() as stack:
            service = Service(**settings)
            stack.push_async_callback(service.close)
            await service.spawn()
            await service.wait_for_output("is down")
            _is_clean(service.output)
        ran = await otpmail("check", here=tmp_path, **{name: str(value) for name, value in settings.items()})
    assert ran.code == 1
    _is_clean((ran.out + ran.err).splitlines())


async def test_what_a_relay_announces_is_clean_in_a_check(certificates: Certificates, tmp_path: Path) -> None:
    """The parameters of an extension are printed without change: no markup, no control character, no long line."""
    announced = (f"LIMITS [bold red]{HOSTILE.rstrip()}", "SIZE [/bold] 12\x1b[31m", f"SMTPUTF8 {'x' * 7000}")
    async with Relay(Faults(auth=(), announces=announced)) as relay:
        settings = relay_settings(relay, certificates, tmp_path / "token") | {"EMAIL_FROM": "a@example.org"}
        ran = await otpmail("check", here=tmp_path, **{name: str(value) for name, value in settings.items() if value})
    assert ran.code == 0, ran
    _is_clean((ran.out + ran.err).splitlines())
    assert "[bold red]?]0;owned" in ran.out
    assert "[/bold] 12?[31m" in ran.out


@pytest.mark.parametrize("code", ["250", "451", "554", "421"])
async def test_words_about_a_mail_are_clean(certificates: Certificates, tmp_path: Path, code: str) -> None:
    """A reply to a mail, and a goodbye, reach the caller and the log as one short printable line."""
    words = f"{HOSTILE}{'x' * 7000}"
    async with Relay(Faults(auth=(), final_reply=f"{code} {words}", times=1)) as relay:
        settings = relay_settings(relay, certificates, tmp_path / "token") | LOUD
        async with Service(**settings) as service:
            await service.wait_until_serving()
            request = mail_pb2.SendMailRequest(to=["ada@example.org"], text="hi", wait_for=mail_pb2.WAIT_FOR_QUEUE)
            sent = await service.mail.SendMail(request)
            event = {"451": "mail-deferred", "421": "connection-closed"}.get(code, "mail-settled")
            await service.wait_for_log(event)
            told = await service.mail.GetMail(mail_pb2.GetMailRequest(id=sent.mail.id))
            lines = [str(value) for line in service.log for value in line.values()]
            replies = [result.reply for result in told.recipients]
            _is_clean([*lines, *replies])
            assert any("evil" in words for words in (replies if code == "250" else lines))
