"""otpmail.v1.OtpService: decodes requests, and encodes what `otp.service` answers."""

from itertools import islice

from otpmail.api import decode, encode
from otpmail.api.calls import Context, call_from
from otpmail.errors import InvalidArgument
from otpmail.limits.blocks import block_of
from otpmail.mail.idempotency import check_request_id
from otpmail.mail.labels import checked_labels
from otpmail.model import CheckResult
from otpmail.otp.request import MAX_VARIABLES, CheckRequest, CodeRequest
from otpmail.otp.service import OtpService
from otpmail.v1 import otp_pb2, otp_pb2_grpc

_RESULTS = {result: otp_pb2.ValidateCodeResponse.Result.Value(f"RESULT_{result.name}") for result in CheckResult}


class OtpServicer(otp_pb2_grpc.OtpServiceServicer):
    """Serves `otp.service.OtpService`."""

    def __init__(self, codes: OtpService) -> None:
        self._codes = codes

    async def SendCode(self, request: otp_pb2.SendCodeRequest, context: Context) -> otp_pb2.SendCodeResponse:
        """Issue a code and mail it."""
        block = _block_of(ip) if (ip := request.client_ip) else ""
        sent = await self._codes.send_code(
            call_from(context),
            CodeRequest(
                email=request.email,
                purpose=request.purpose,
                locale=request.locale,
                # A map is read to one entry beyond its limit, which then refuses it.
                variables=dict(islice(request.variables.items(), MAX_VARIABLES + 1)),
                request_id=request.request_id,
                fingerprint=decode.fingerprint_of(request) if request.request_id else b"",
                wait_for=decode.wait_for_from(request.wait_for),
                labels=checked_labels(labels) if (labels := request.labels) else (),
                session=request.session,
                device_token=request.device_token,
                block=block,
            ),
        )
        response = otp_pb2.SendCodeResponse(
            challenge_id=sent.issued.challenge.id.hex(),
            reference=sent.reference,
            otp_code=sent.code,
            code_length=sent.code_length,
            code_is_numeric=bool(sent.code_length) and sent.issued.challenge.is_numeric,
        )
        if sent.issued.challenge.id:
            encode.fill_timestamp(response.expire_time, sent.issued.expire_time)
        encode.fill_timestamp(response.next_send_time, sent.issued.next_send_time)
        encode.fill_mail(response.mail, sent.mail)
        return response

    async def ValidateCode(
        self, request: otp_pb2.ValidateCodeRequest, context: Context
    ) -> otp_pb2.ValidateCodeResponse:
        """Check a code."""
        if ip := request.client_ip:
            _block_of(ip)
        if not request.code:
            raise InvalidArgument("code", "is empty")
        if request_id := request.request_id:
            check_request_id(request_id)
        checked = await self._codes.validate_code(
            call_from(context),
            CheckRequest(
                email=request.email,
                code=request.code,
                purpose=request.purpose,
                challenge_id=request.challenge_id,
                session=request.session,
                device_token=request.device_token,
                fingerprint=decode.fingerprint_of(request) if request_id else b"",
            ),
        )
        check = checked.check
        response = otp_pb2.ValidateCodeResponse(
            result=_RESULTS[check.result], attempts_left=check.attempts_left, device_token=checked.device_token
        )
        # Filled in in any case, so that each answer takes as long.
        encode.fill_timestamp(response.retry_time, check.retry_time or 0.0)
        if check.retry_time is None:
            response.ClearField("retry_time")
        return response

    async def RevokeCode(self, request: otp_pb2.RevokeCodeRequest, context: Context) -> otp_pb2.RevokeCodeResponse:
        """End a live code."""
        await self._codes.revoke_code(
            call_from(context),
            email=request.email,
            purpose=request.purpose,
            challenge_id=request.challenge_id,
            session=request.session,
        )
        return otp_pb2.RevokeCodeResponse()


def _block_of(client_ip: str) -> str:
    """Return the block of an end user. Raises InvalidArgument."""
    try:
        return block_of(client_ip)
    except ValueError:
        raise InvalidArgument("client_ip", "is not an IP address") from None
