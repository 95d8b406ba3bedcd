"""The calls about codes."""

from collections.abc import Mapping

from otpmail.client import decode
from otpmail.client.plan import RELAY_SECONDS, Plan, new_request_id, nothing, raise_if, wait_for_value
from otpmail.client.values import Checked, SentCode, WaitFor
from otpmail.v1 import otp_pb2

_SERVICE = "/otpmail.v1.OtpService"


def send_code(
    email: str,
    purpose: str = "",
    *,
    locale: str = "",
    variables: Mapping[str, str] | None = None,
    session: str = "",
    device_token: str = "",
    client_ip: str = "",
    labels: Mapping[str, str] | None = None,
    wait_for: WaitFor = WaitFor.RELAY,
    request_id: str = "",
    raise_outcome: bool = True,
    timeout: float | None = None,
) -> Plan[SentCode]:
    """Mail a code to an address. While a code is live, the same code is mailed again.

    Raises NotSent where the mail was not sent: `Refused`, `Suppressed`, `Expired` or `Uncertain`. With
    `raise_outcome=False` the answer has that mail. Raises TooSoon where a limit is reached, and RelayDown.
    """
    request = otp_pb2.SendCodeRequest(
        email=email,
        purpose=purpose,
        locale=locale,
        variables=variables or {},
        session=session,
        device_token=device_token,
        client_ip=client_ip,
        labels=labels or {},
        wait_for=wait_for_value(wait_for),
        request_id=request_id or new_request_id(),
    )

    def read(answer: otp_pb2.SendCodeResponse) -> SentCode:
        """Return the answer, or raise how the mail ended."""
        sent = decode.sent_code(answer)
        raise_if(raise_outcome, decode.outcome(sent.mail))
        return sent

    return Plan(f"{_SERVICE}/SendCode", request, otp_pb2.SendCodeResponse, read, timeout, usual=RELAY_SECONDS)


def check_code(
    email: str,
    code: str,
    purpose: str = "",
    *,
    challenge_id: str = "",
    session: str = "",
    device_token: str = "",
    client_ip: str = "",
    request_id: str = "",
    raise_outcome: bool = True,
    timeout: float | None = None,
) -> Plan[Checked]:
    """Check the code that a person typed; a right code is used up. `challenge_id` binds the check to one SendCode.

    Raises NotValid where it is not valid: `WrongCode`, `NoLiveCode` or `TooManyAttempts`. With `raise_outcome=False`
    the answer says so, and is false.
    """
    request = otp_pb2.ValidateCodeRequest(
        email=email,
        code=code,
        purpose=purpose,
        challenge_id=challenge_id,
        session=session,
        device_token=device_token,
        client_ip=client_ip,
        request_id=request_id or new_request_id(),
    )

    def read(answer: otp_pb2.ValidateCodeResponse) -> Checked:
        """Return the answer, or raise that the code is not valid."""
        found = decode.checked(answer)
        raise_if(raise_outcome, decode.not_valid(found))
        return found

    return Plan(f"{_SERVICE}/ValidateCode", request, otp_pb2.ValidateCodeResponse, read, timeout)


def revoke_code(
    email: str, purpose: str = "", *, challenge_id: str = "", session: str = "", timeout: float | None = None
) -> Plan[None]:
    """End a live code without using it. It succeeds even if no code is live."""
    request = otp_pb2.RevokeCodeRequest(email=email, purpose=purpose, challenge_id=challenge_id, session=session)
    return Plan(f"{_SERVICE}/RevokeCode", request, otp_pb2.RevokeCodeResponse, nothing, timeout)
