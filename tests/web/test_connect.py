"""Connect's own clients, for Python and for Node, against the service: what they need to work is the protocol."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from connectrpc.client import ConnectClient
from connectrpc.codec import Codec
from connectrpc.compat import google_protobuf_binary_codec, google_protobuf_json_codec
from connectrpc.errors import ConnectError
from connectrpc.method import IdempotencyLevel, MethodInfo, StreamType
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from http1 import url_of
from node_programs import install_modules, program
from otpmail.v1 import mail_pb2, otp_pb2

if TYPE_CHECKING:
    from service import Service

_FOLDER = Path(__file__).with_name("node")
OPEN: dict[str, object] = {"HTTP_PORT": 0, "OTP_RETURN_CODE": "true", "OTP_RESEND_SECONDS": 0}
ADA = "ada@example.org"
VALID, RELAYED = otp_pb2.ValidateCodeResponse.RESULT_VALID, mail_pb2.Mail.STATE_RELAYED


def _method(service: str, name: str, kind: StreamType = StreamType.UNARY) -> MethodInfo[Any, Any]:
    module: Any = otp_pb2 if service == "OtpService" else mail_pb2
    method = module.DESCRIPTOR.services_by_name[service].methods_by_name[name]
    return MethodInfo(
        name=name,
        service_name=f"otpmail.v1.{service}",
        input=getattr(module, method.input_type.name),
        output=getattr(module, method.output_type.name),
        idempotency_level=IdempotencyLevel.UNKNOWN,
        stream_type=kind,
    )


@pytest.mark.parametrize("codec", [google_protobuf_binary_codec(), google_protobuf_json_codec()], ids=("proto", "json"))
@pytest.mark.service(**OPEN)
async def test_the_client_for_python(service: Service, codec: Codec) -> None:
    """A sign-up, a watched mail, and an error with its code, message and details, all packed by gzip."""
    async with ConnectClient(url_of(service), codec=codec, timeout_ms=20_000) as client:
        request: Any = otp_pb2.SendCodeRequest(email=ADA)
        sent = await client.execute_unary(request=request, method=_method("OtpService", "SendCode"))
        request = otp_pb2.ValidateCodeRequest(email=ADA, code=sent.otp_code)
        checked = await client.execute_unary(request=request, method=_method("OtpService", "ValidateCode"))
        assert checked.result == VALID
        watching = client.execute_server_stream(
            request=mail_pb2.WatchMailRequest(id=sent.mail.id),
            method=_method("MailService", "WatchMail", StreamType.SERVER_STREAM),
        )
        assert [mail.state async for mail in watching] == [RELAYED]
        request = otp_pb2.SendCodeRequest(email="nobody")
        with pytest.raises(ConnectError) as caught:
            await client.execute_unary(request=request, method=_method("OtpService", "SendCode"))
        assert caught.value.code.value == "invalid_argument"
        names = [detail.type_name for detail in caught.value.details]
        assert names == ["google.rpc.ErrorInfo", "google.rpc.BadRequest"]


def _name_fields(messages: Any) -> None:
    """Give fields their names in JSON, as protoc does: descriptors in Python leave them out."""
    for message in messages:
        for field in message.field:
            head, *words = field.name.split("_")
            field.json_name = head + "".join(word.capitalize() for word in words)
        _name_fields(message.nested_type)


def _descriptors() -> bytes:
    """Return the files of the contract, and those that they import before them."""
    found = FileDescriptorSet()
    names: set[str] = set()

    def add(file: Any) -> None:
        for needed in file.dependencies:
            add(needed)
        if file.name not in names:
            names.add(file.name)
            proto = FileDescriptorProto()
            file.CopyToProto(proto)
            _name_fields(proto.message_type)
            found.file.append(proto)

    add(otp_pb2.DESCRIPTOR)
    add(mail_pb2.DESCRIPTOR)
    return found.SerializeToString()


@pytest.mark.parametrize("form", ["binary", "json"])
@pytest.mark.service(**OPEN)
async def test_the_client_for_node(service: Service, form: str, tmp_path: Path) -> None:
    """A sign-up works by `@connectrpc/connect-node`, which gets the contract as descriptors."""
    node = program("node")
    install_modules(_FOLDER)
    file = tmp_path / "descriptors"
    file.write_bytes(_descriptors())
    environment = {**os.environ, "URL": url_of(service), "DESCRIPTORS": str(file), "FORM": form}
    running = await asyncio.create_subprocess_exec(
        node, _FOLDER / "connect.mjs", env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(60):
        output, errors = await running.communicate()
    assert running.returncode == 0, errors.decode()
    found = json.loads(output)
    assert (found["result"], found["states"]) == (VALID, [RELAYED])
    assert [error["code"] for error in found["errors"]] == ["InvalidArgument", "NotFound", "NotFound"]
    assert found["errors"][0]["details"] == ["google.rpc.ErrorInfo", "google.rpc.BadRequest"]
