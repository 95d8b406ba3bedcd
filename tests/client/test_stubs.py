"""The generated stubs: a name that an annotation may have is there at run time, and mypy knows what it returns."""

import grpc

from client.scripted import Scripted
from otpmail.v1 import otp_pb2
from otpmail.v1.otp_pb2_grpc import OtpServiceAsyncStub, OtpServiceStub

_VALID = otp_pb2.ValidateCodeResponse(result=otp_pb2.ValidateCodeResponse.RESULT_VALID)


async def _result(codes: OtpServiceAsyncStub) -> int:
    answer = await codes.ValidateCode(otp_pb2.ValidateCodeRequest(email="ada@example.org", code="123456"))
    return answer.result


async def test_one_name_at_run_time_and_for_mypy() -> None:
    """A stub of either name works on a channel of asyncio, and mypy takes it for an `OtpServiceAsyncStub`."""
    async with Scripted(_VALID, _VALID) as service, grpc.aio.insecure_channel(service.address) as channel:
        assert await _result(OtpServiceAsyncStub(channel)) == otp_pb2.ValidateCodeResponse.RESULT_VALID
        assert await _result(OtpServiceStub(channel)) == otp_pb2.ValidateCodeResponse.RESULT_VALID
