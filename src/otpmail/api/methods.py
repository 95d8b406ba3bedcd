"""The services of the port, the paths of the methods that a caller may be allowed, and what follows from a path."""

from typing import Any

from grpc_health.v1 import health_pb2

from otpmail.original import mail_pb2 as original_pb2
from otpmail.v1 import address_pb2, mail_pb2, otp_pb2

_OURS: tuple[Any, ...] = (otp_pb2, mail_pb2, address_pb2, original_pb2)

SERVICES = tuple(service for file in (*_OURS, health_pb2) for service in file.DESCRIPTOR.services_by_name.values())
"""The descriptors of all services but reflection."""

METHODS = frozenset(
    f"/{service.full_name}/{method.name}"
    for file in _OURS
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
)
"""The paths of the methods of both contracts."""


CHECK = "/otpmail.v1.OtpService/ValidateCode"


def takes_mail(method: str) -> bool:
    """Whether the method, by its path, has a mail as its one request, which may be large."""
    return method.endswith("/SendMail")


def is_for_mails(method: str) -> bool:
    """Whether the method, by its path, is one for mails: a part of the memory is for codes, checks and health."""
    return method.split("/")[1].endswith("MailService")
