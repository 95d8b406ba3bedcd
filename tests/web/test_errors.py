"""Every error of the table in docs/api.md, by both doors: the same code, message and details."""

from __future__ import annotations

import asyncio
import base64
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from http1 import JSON, request
from otpmail import errors
from otpmail.api.otp import OtpServicer
from otpmail.api.status import Code
from otpmail.app import App
from otpmail.settings import Settings
from otpmail.v1 import otp_pb2, otp_pb2_grpc
from otpmail.web.errors import HTTP_STATUS

if TYPE_CHECKING:
    from relay import Relay

_TABLE = re.compile(r"^\| Raised \| Status \|.*?\n\n", re.MULTILINE | re.DOTALL)
_PAGE = Path(__file__).parents[2] / "docs/api.md"
_RAISED: dict[str, Exception] = {
    "InvalidArgument": errors.InvalidArgument("email", "is “odd”"),
    "NotFound": errors.NotFound("no such mail"),
    "Unauthenticated": errors.Unauthenticated("no token"),
    "PermissionDenied": errors.PermissionDenied("method: ada may not call"),
    "FailedPrecondition": errors.FailedPrecondition("too late"),
    "LimitExceeded": errors.LimitExceeded("address", "too soon", retry_after=1.5, setting="OTP_RESEND_SECONDS"),
    "QueueFull": errors.QueueFull(3),
    "ShareSpent": errors.ShareSpent("it has 3", "queue_share"),
    "MemoryFull": errors.MemoryFull(),
    "RequestTooLong": errors.RequestTooLong("the request is longer than 3 octets"),
    "Unimplemented": errors.Unimplemented("the body must be identity"),
    "DeadlineExceeded": errors.DeadlineExceeded("too late", mail_id="m1"),
    "Unavailable": errors.Unavailable("no relay", retry_after=1.5),
    "anything else": RuntimeError("the code is 271828"),
}


def _rows() -> list[tuple[str, str]]:
    """Return each error of the table with its status."""
    found = _TABLE.search(_PAGE.read_text("utf-8"))
    assert found is not None
    rows = [line.strip("| ").split(" | ") for line in found[0].splitlines()[2:] if line]
    return [(name, row[1].partition(",")[0].strip("| ")) for row in rows for name in row[0].split(", ")]


def _details(status: Status) -> list[tuple[str, bytes]]:
    """Return the details, but for the id of an error, which is another each time."""
    found = [(detail.type_url.rpartition("/")[2], detail.value) for detail in status.details]
    for place, (name, value) in enumerate(found):
        if name == ErrorInfo.DESCRIPTOR.full_name:
            info = ErrorInfo.FromString(value)
            info.metadata.pop("error_id", None)
            found[place] = name, info.SerializeToString(deterministic=True)
    return found


def _without_id(message: str) -> str:
    return re.sub(r"[0-9a-f]{16}", "ID", message)


@pytest.mark.parametrize(("name", "status"), _rows(), ids=lambda value: str(value).replace(" ", "-"))
async def test_an_error_by_both_doors(
    name: str, status: str, relay: Relay, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The code is that of the table, and the HTTP status is Connect's for it."""

    async def fail(*_: Any) -> Any:
        raise _RAISED[name]

    monkeypatch.setattr(OtpServicer, "RevokeCode", fail)
    caplog.set_level("INFO", "otpmail")
    settings = Settings.load(
        HOST="127.0.0.1",
        PORT="0",
        HTTP_PORT="0",
        WORKERS="1",
        EMAIL_HOST="127.0.0.1",
        EMAIL_PORT=str(relay.port),
        EMAIL_SECURITY="plain",
        EMAIL="user",
        APP_PASSWORD="secret",
        EMAIL_FROM="codes@example.org",
        LAMEDUCK_SECONDS="0",
    )
    started: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    running = asyncio.create_task(App(settings).run(stop, lambda address, _: started.set_result(address)))
    address = await started
    (url,) = re.findall(r"metrics at (http://[^/]+)/", caplog.text)
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await otp_pb2_grpc.OtpServiceStub(channel).RevokeCode(otp_pb2.RevokeCodeRequest())
        answer = await request(url, "/otpmail.v1.OtpService/RevokeCode", b"{}", JSON)
    finally:
        stop.set()
        await running
    by_grpc = caught.value
    assert by_grpc.code().name == status
    assert answer.json["code"] == status.lower()
    assert answer.status == HTTP_STATUS[Code[status]]
    assert _without_id(answer.json["message"]) == _without_id(by_grpc.details() or "")
    packed: Any
    (packed,) = [value for key, value in by_grpc.trailing_metadata() or () if key == "grpc-status-details-bin"]
    over_http = Status()
    for detail in answer.json["details"]:
        value = base64.b64decode(detail["value"] + "=" * (-len(detail["value"]) % 4))
        over_http.details.add(type_url=f"type.googleapis.com/{detail['type']}", value=value)
    assert _details(over_http) == _details(Status.FromString(bytes(packed)))
    assert b"271828" not in answer.body


def test_the_table_has_every_error() -> None:
    """Each row is tested, and each code has an HTTP status."""
    assert {name for name, _ in _rows()} == set(_RAISED)
    assert set(HTTP_STATUS) == set(Code) - {Code.OK}
