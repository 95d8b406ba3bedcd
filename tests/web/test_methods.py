"""The methods over HTTP: JSON and protobuf, errors, and the requests that no method takes."""

from __future__ import annotations

import gzip
import json
import time
from typing import TYPE_CHECKING

import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo

from http1 import JSON, PROTO, SEND_CODE, SEND_MAIL, VALIDATE_CODE, call, request
from otpmail.errors import InvalidArgument, MemoryFull
from otpmail.limits.memory import Memory
from otpmail.v1 import mail_pb2, otp_pb2
from otpmail.web.body import takes_gzip
from otpmail.web.json_body import from_json, from_large_json
from web.details import detail_of

if TYPE_CHECKING:
    from service import Service

LIST_MAILS = "/otpmail.v1.MailService/ListMails"
ADA = {"email": "ada@example.org"}
OPEN: dict[str, object] = {"HTTP_PORT": 0, "OTP_RETURN_CODE": "true", "OTP_RESEND_SECONDS": "0"}
NO_MAIL = "request: is no otpmail.v1.SendMailRequest in JSON"
WAITS = ", ".join(mail_pb2.WaitFor.keys())


@pytest.mark.service(**OPEN)
async def test_a_sign_up_in_json(service: Service) -> None:
    """A code is sent and checked by two requests in JSON."""
    sent = await call(service, SEND_CODE, ADA)
    assert (sent.status, sent.fields["content-type"]) == (200, "application/json")
    assert sent.json["mail"]["state"] == "STATE_RELAYED"
    checked = await call(service, VALIDATE_CODE, ADA | {"code": sent.json["otpCode"]})
    assert checked.json["result"] == "RESULT_VALID"
    again = await call(service, VALIDATE_CODE, ADA | {"code": sent.json["otpCode"]})
    assert again.json["result"] == "RESULT_NO_LIVE_CODE"


@pytest.mark.service(**OPEN)
async def test_a_sign_up_in_protobuf(service: Service) -> None:
    """A sign-up works in protobuf, and both doors know the same codes."""
    sent = await request(service, SEND_CODE, otp_pb2.SendCodeRequest(email=ADA["email"]).SerializeToString(), PROTO)
    assert (sent.status, sent.fields["content-type"]) == (200, "application/proto")
    code = otp_pb2.SendCodeResponse.FromString(sent.body).otp_code
    checked = await service.otp.ValidateCode(otp_pb2.ValidateCodeRequest(email=ADA["email"], code=code))
    assert checked.result == otp_pb2.ValidateCodeResponse.RESULT_VALID


@pytest.mark.service(**OPEN)
async def test_gzip_both_ways(service: Service) -> None:
    """A body may be packed, and a long answer is for a client that takes it so."""
    mail = {"to": ["ada@example.org"], "text": "Hi", "labels": {f"label{n}": "x" * 100 for n in range(20)}}
    packed = gzip.compress(json.dumps(mail).encode())
    headers = {**JSON, "content-encoding": "gzip", "accept-encoding": "gzip"}
    answer = await request(service, SEND_MAIL, packed, headers)
    assert (answer.status, answer.fields["content-encoding"]) == (200, "gzip")
    assert json.loads(gzip.decompress(answer.body))["mail"]["labels"]["label7"] == "x" * 100
    plain = await request(service, SEND_MAIL, json.dumps(mail).encode(), JSON)
    assert plain.json["mail"]["state"] == "STATE_RELAYED"


@pytest.mark.service(**OPEN)
async def test_codings_have_no_case(service: Service) -> None:
    """The name of a coding has no case, gzip has a second one, and an empty field names none (RFC 9110, 8.4.1)."""
    plain = json.dumps(ADA).encode()
    for coding, body in (
        ("GZip", gzip.compress(plain)),
        ("x-gzip", gzip.compress(plain)),
        ("Identity", plain),
        ("", plain),
    ):
        answer = await request(service, SEND_CODE, body, {**JSON, "content-encoding": coding})
        assert answer.status == 200


@pytest.mark.service(**OPEN)
async def test_an_empty_body_is_not_unpacked(service: Service) -> None:
    """A message without a field has no octets in protobuf, and the protocol says that nobody unpacks them."""
    answer = await request(service, LIST_MAILS, b"", {**PROTO, "content-encoding": "gzip"})
    assert (answer.status, answer.body) == (200, b"")


@pytest.mark.service(**OPEN)
async def test_an_error_has_its_details(service: Service) -> None:
    """An error is JSON with the code, the message and gRPC's details, also where the request was protobuf."""
    for headers, body in ((JSON, b"{}"), (PROTO, b"")):
        answer = await request(service, SEND_CODE, body, headers)
        assert (answer.status, answer.fields["content-type"]) == (400, "application/json")
        assert answer.json["code"] == "invalid_argument"
        assert detail_of(answer, BadRequest).field_violations[0].field == "email"
        assert answer.json["details"][1]["debug"]["fieldViolations"][0]["field"] == "email"


@pytest.mark.service(**OPEN)
async def test_a_body_that_is_no_request(service: Service, subtests: pytest.Subtests) -> None:
    """The error names the field, or the message and the place in its JSON, and repeats no value."""
    no_request = "request: is no otpmail.v1.SendCodeRequest in JSON"
    for body, words in (
        (b"", f"{no_request}: expecting value at line 1, column 1"),
        (b"{", f"{no_request}: expecting property name enclosed in double quotes at line 1, column 2"),
        (b'{\n  "email": "secret"\n  "locale": "de"}', f"{no_request}: expecting ',' delimiter at line 3, column 3"),
        (b'{"email": "secret', f"{no_request}: unterminated string starting at line 1, column 11"),
        (b'{"email": "secret\n"}', f"{no_request}: invalid control character at line 1, column 18"),
        (b'{"email": "a@b.example"} secret', f"{no_request}: extra data at line 1, column 26"),
        (b"[]", f"{no_request}: it is no object"),
        (b'"\xff"', f"{no_request}: octet 2 is not UTF-8"),
        (b"[" * 50_000, f"{no_request}: it is nested too deeply"),
        (b'{"variables": {"secret": "a", "secret": "b"}}', f"{no_request}: a name comes twice"),
        (b'{"emial": "secret"}', "emial: is no field of otpmail.v1.SendCodeRequest"),
        (b'{"email": ["secret"]}', "email: must be text in JSON"),
        (b'{"email": "a@b.example", "email": "secret"}', "email: comes twice in JSON"),
        (b'{"variables": {"secret": 1}}', "variables: must be an object with texts in JSON"),
        (b'{"waitFor": "secret"}', f"waitFor: must be one of {WAITS} in JSON"),
    ):
        with subtests.test(body=body):
            answer = await request(service, SEND_CODE, body, JSON)
            assert (answer.status, answer.json["code"], answer.json["message"]) == (400, "invalid_argument", words)
            assert b"secret" not in answer.body


@pytest.mark.service(**OPEN)
async def test_requests_that_no_method_takes(service: Service) -> None:
    """Unknown paths are 404, other verbs 405, other types 415, and each says what there is instead."""
    for path in (
        *("/", "/otpmail.v1.OtpService", "/otpmail.v1.OtpService/", "/mail.OtpService/SendCode", "//", "/x?a=b"),
        *(f"{SEND_CODE}/", f"/{SEND_CODE}", f"/x/..{SEND_CODE}", f"/.{SEND_CODE}", SEND_CODE.lower()),
    ):
        assert (await request(service, path)).status == 404
        assert (await request(service, path, b"{}", JSON)).status == 404
    for verb in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"):
        answer = await request(service, SEND_CODE, method=verb)
        assert (answer.status, answer.fields["allow"]) == (405, "POST")
    for kind in ("", "text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin-1", "json"):
        answer = await request(service, SEND_CODE, b"{}", {"content-type": kind})
        assert (answer.status, answer.fields["accept-post"]) == (415, "application/json, application/proto")


@pytest.mark.service(**OPEN)
async def test_a_path_has_one_way_to_be_written(service: Service) -> None:
    """A path with percent signs names no method, so that the rules of a proxy for a path hold for all calls of it."""
    assert (await call(service, SEND_CODE, ADA)).status == 200
    for path in (
        *("/otpmail.v1.OtpService%2FSendCode", "/otpmail%2ev1.OtpService/SendCode", "/%6Fpenapi.json", "/%6Detrics"),
        *("/livez%20", "/%2Flivez", f"http://localhost{SEND_CODE.replace('S', '%53')}"),
    ):
        assert (await request(service, path)).status == 404, path
        assert (await request(service, path, b"{}", JSON)).status == 404, path


@pytest.mark.service(**OPEN)
async def test_the_fields_of_the_protocol(service: Service) -> None:
    """A version other than 1, a timeout without a number and an unknown encoding get the protocol's codes."""
    body = json.dumps(ADA).encode()
    for headers, status, code in (
        ({"connect-protocol-version": "1", "connect-timeout-ms": "20000"}, 200, None),
        ({"connect-protocol-version": "2"}, 400, "invalid_argument"),
        ({"connect-timeout-ms": "soon"}, 400, "invalid_argument"),
        ({"connect-timeout-ms": "12345678901"}, 400, "invalid_argument"),
        ({"content-encoding": "br"}, 501, "unimplemented"),
    ):
        answer = await request(service, SEND_CODE, body, JSON | headers)
        assert (answer.status, answer.json.get("code")) == (status, code)


@pytest.mark.service(**OPEN)
async def test_errors_of_the_door_have_a_reason(service: Service) -> None:
    """An error that HTTP makes by itself has ErrorInfo too, and no RetryInfo where a retry makes no sense."""
    long = json.dumps({"to": ["ada@example.org"], "text": "x" * 12_000_000}).encode()
    for path, body, headers, reason in (
        (SEND_MAIL, long, JSON, "REQUEST_TOO_LONG"),
        (SEND_CODE, b"{}", JSON | {"content-encoding": "br"}, "UNIMPLEMENTED"),
        (SEND_CODE, b"{", JSON | {"content-length": "9", "connect-timeout-ms": "50"}, "DEADLINE_EXCEEDED"),
    ):
        answer = await request(service, path, body, headers)
        info = detail_of(answer, ErrorInfo)
        assert (info.reason, info.domain, dict(info.metadata)) == (reason, "otpmail", {})
        assert "retry-after" not in answer.fields


@pytest.mark.relay(slow={"MAIL": 3.0})
@pytest.mark.service(**OPEN)
async def test_a_timeout_ends_a_call(service: Service) -> None:
    """A call whose caller's time is over while the relay is slow ends with deadline_exceeded."""
    started = time.monotonic()
    answer = await call(service, SEND_MAIL, {"to": ["ada@example.org"], "text": "Hi"}, connect_timeout_ms="500")
    assert (answer.status, answer.json["code"]) == (504, "deadline_exceeded")
    assert time.monotonic() - started >= 0.3  # it ends a little early, so that its answer comes in time


def test_the_names_of_the_fields_are_those_of_protobuf_in_json() -> None:
    """The values that the tests above write as `otpCode` and `waitFor` is what protobuf says."""
    assert otp_pb2.SendCodeResponse.DESCRIPTOR.fields_by_name["otp_code"].json_name == "otpCode"
    assert mail_pb2.SendMailRequest.DESCRIPTOR.fields_by_name["wait_for"].json_name == "waitFor"


@pytest.mark.parametrize(
    ("accepted", "is_taken"),
    [
        *((text, True) for text in (b"gzip", b"br, gzip", b"gzip;q=0.5", b"gzip; q=0.01, br", b"deflate,gzip ; q=1")),
        *((text, False) for text in (b"", b"gzip;q=0", b"gzip; q=0.000, br", b"br, gzip ;q=0.", b"xgzip", b"identity")),
    ],
)
def test_who_takes_gzip(accepted: bytes, is_taken: bool) -> None:  # noqa: FBT001  a parameter of pytest
    """A weight of 0 refuses a coding (RFC 9110, 12.4.2)."""
    assert takes_gzip(accepted) is is_taken


class _Nothing:
    octets = 0

    def forget_oldest(self) -> bool:
        return False


async def test_large_json_counts_in_the_memory() -> None:
    """Large JSON counts by its own octets while it waits and is decoded: its protobuf may have a sixth of them."""
    body = b'{"to":["ada@example.org"],"text":"%s"}' % (b"\\u0041" * 100_000)
    memory = Memory(5 * len(body), _Nothing(), _Nothing())
    taken = []

    async def turn() -> None:
        taken.append(memory.reading)
        with pytest.raises(MemoryFull):
            await from_large_json(body, mail_pb2.SendMailRequest, memory, turn)

    octets = await from_large_json(body, mail_pb2.SendMailRequest, memory, turn)
    assert mail_pb2.SendMailRequest.FromString(octets).text == "A" * 100_000
    assert set(taken) == {3 * len(body)}
    assert memory.reading == 0
    with pytest.raises(InvalidArgument):
        await from_large_json(
            body[:-1], mail_pb2.SendMailRequest, Memory(5 * len(body), _Nothing(), _Nothing()), _at_once
        )


async def _at_once() -> None:
    pass


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b'{"text":"%s","text":"a"}', "text: comes twice in JSON"),
        (b'{"text":"%s\\ud800"}', "text: has half of a character in JSON"),
        (b'{"requestId":"%s","request_id":"a"}', "request_id: comes twice in JSON"),
        (b'{"request_id":"a","requestId":"%s"}', "request_id: comes twice in JSON"),
        (b'{"emial":"%s"}', "emial: is no field of otpmail.v1.SendMailRequest"),
        (b'{"to":"%s"}', "to: must be a list of texts in JSON"),
        (b'{"text":"%s","ttl":"x"}', "ttl: must be seconds such as 1.5s, in quotes in JSON"),
        (b'["%s"]', f"{NO_MAIL}: it is no object"),
        (b'{"text":"%s"\n"a"', f"{NO_MAIL}: expecting ',' delimiter at line 2, column 1"),
    ],
)
async def test_a_large_mail_in_json_that_is_none(body: bytes, problem: str) -> None:
    """A large mail in wrong JSON is refused as a small one is, in the same words."""
    memory = Memory(1 << 24, _Nothing(), _Nothing())
    with pytest.raises(InvalidArgument) as small:
        from_json(body % b"x", mail_pb2.SendMailRequest)
    with pytest.raises(InvalidArgument) as large:
        await from_large_json(body % (b"x" * 100_000), mail_pb2.SendMailRequest, memory, _at_once)
    assert [str(small.value), str(large.value)] == [problem, problem]
    assert memory.reading == 0


async def test_large_json_is_decoded_in_steps() -> None:
    """Large JSON keeps its texts, and no step of its decoding takes as long as the whole would."""
    text = "Grüße \u2028 \U0001f600\n" * 100_000
    body = json.dumps({"to": ["ada@example.org"], "text": text, "html": "b" * 200_000, "subject": "s"}).encode()
    steps = 0

    async def turn() -> None:
        nonlocal steps
        steps += 1

    memory = Memory(1 << 26, _Nothing(), _Nothing())
    octets = await from_large_json(body, mail_pb2.SendMailRequest, memory, turn)
    assert octets == from_json(body, mail_pb2.SendMailRequest)
    assert mail_pb2.SendMailRequest.FromString(octets).text == text
    assert steps >= 6


@pytest.mark.service(**OPEN)
async def test_a_large_mail_in_json(service: Service) -> None:
    """A large mail in JSON is decoded in a turn, and sent."""
    mail = b'{"to":["ada@example.org"],"text":"%s"}' % (b"\\u0041 \\n" * 30_000)
    assert (await request(service, SEND_MAIL, mail, JSON)).status == 200


@pytest.mark.service(HTTP_PORT=0)
async def test_an_error_says_when_to_try_again(service: Service) -> None:
    """The seconds of RetryInfo are in Retry-After too, which any client of HTTP knows."""
    assert (await call(service, SEND_CODE, ADA)).status == 200
    answer = await call(service, SEND_CODE, ADA)
    assert answer.status == 429
    delay = detail_of(answer, RetryInfo).retry_delay.ToTimedelta().total_seconds()
    assert 0 <= int(answer.fields["retry-after"]) - delay < 1
