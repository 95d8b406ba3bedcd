"""The calls about what is kept of an address."""

from otpmail.client import decode
from otpmail.client.plan import RELAY_SECONDS, Plan, nothing
from otpmail.client.values import Address, Outcome
from otpmail.v1 import address_pb2

_SERVICE = "/otpmail.v1.AddressService"


def get_address(email: str, *, timeout: float | None = None) -> Plan[Address]:
    """Return why an address is suppressed, and how much of its limits it has spent."""
    request = address_pb2.GetAddressRequest(email=email)
    answer = address_pb2.GetAddressResponse
    return Plan(f"{_SERVICE}/GetAddress", request, answer, decode.address, timeout)


def release_address(
    email: str, *, suppression: bool = False, budgets: bool = False, timeout: float | None = None
) -> Plan[None]:
    """Lift the suppression of an address, what it has spent of its limits, or both."""
    request = address_pb2.ReleaseAddressRequest(email=email, suppression=suppression, budgets=budgets)
    answer = address_pb2.ReleaseAddressResponse
    return Plan(f"{_SERVICE}/ReleaseAddress", request, answer, nothing, timeout)


def forget_address(email: str, *, timeout: float | None = None) -> Plan[None]:
    """Erase all that is kept of an address: live codes, limits, its suppression, and the address in mails."""
    request = address_pb2.ForgetAddressRequest(email=email)
    return Plan(
        f"{_SERVICE}/ForgetAddress", request, address_pb2.ForgetAddressResponse, nothing, timeout, usual=RELAY_SECONDS
    )


def report_delivery(
    email: str, outcome: Outcome, *, mail_id: str = "", detail: str = "", timeout: float | None = None
) -> Plan[None]:
    """Tell the service what a provider has said of a delivery. It is not repeated by itself, since a bounce counts."""
    request = address_pb2.ReportDeliveryRequest(
        email=email,
        outcome=address_pb2.ReportDeliveryRequest.Outcome.Value(f"OUTCOME_{outcome}"),
        mail_id=mail_id,
        detail=detail,
    )
    answer = address_pb2.ReportDeliveryResponse
    return Plan(f"{_SERVICE}/ReportDelivery", request, answer, nothing, timeout, is_repeatable=False)
