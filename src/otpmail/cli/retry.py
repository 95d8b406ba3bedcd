"""`otpmail mail retry`: has the running service send mails again that did not reach all of their recipients."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Annotated

import grpc
import typer
from rich.markup import escape

from otpmail.cli.call import TIMEOUT_SECONDS, failure
from otpmail.cli.channel import open_channel
from otpmail.cli.lookup import print_state
from otpmail.cli.options import AllCallers, Json, OfCaller, Server, complete_from, value_of, whose
from otpmail.cli.output import describe_error, err, exit_unless, print_error, service_of, wrong_usage
from otpmail.v1 import mail_pb2, mail_pb2_grpc

_PAGE = 1000
_STATES: Mapping[str, mail_pb2.Mail.State.ValueType] = MappingProxyType(
    {
        "failed": mail_pb2.Mail.STATE_FAILED,
        "expired": mail_pb2.Mail.STATE_EXPIRED,
        "partial": mail_pb2.Mail.STATE_PARTIAL,
        "uncertain": mail_pb2.Mail.STATE_UNCERTAIN,
    }
)
_REFUSALS = frozenset({grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.NOT_FOUND})
"""The statuses that are about one mail, and say nothing of the next."""


def retry_mails(
    mail_ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="ID", help="The mails' ids, as the log and `mail list` print them."),
    ] = None,
    *,
    state: Annotated[
        str,
        typer.Option(
            metavar="|".join(_STATES),
            autocompletion=complete_from(_STATES),
            help="All mails in this state, in place of ids. An uncertain one may arrive twice.",
        ),
    ] = "",
    to: Annotated[str, typer.Option(metavar="EMAIL", help="With --state: only mails to this address.")] = "",
    caller: OfCaller = "",
    all_callers: AllCallers = False,
    server: Server = "",
    as_json: Json = False,
) -> None:
    """Send mails again that failed, to the recipients for whom no relay has accepted them."""
    if bool(mail_ids) is bool(state) or (to and not state):
        raise wrong_usage("ID: give the ids of the mails, or --state, such as --state failed, with or without --to")
    of = whose(caller, all_callers=all_callers)
    query = mail_pb2.ListMailsRequest(recipient=to, page_size=_PAGE, caller=of)
    if state:
        query.state = value_of("--state", state, _STATES)
    service = service_of(server)
    address = service.address
    with open_channel(service) as channel:
        mails = mail_pb2_grpc.MailServiceStub(channel)
        try:
            requests = [mail_pb2.RetryMailRequest(id=one, caller=of) for one in mail_ids or _ids(mails, query)]
            refused = [one for one in requests if not _retry(mails, one, address, as_json=as_json)]
        except grpc.RpcError as error:
            raise failure(error, address, TIMEOUT_SECONDS, query) from None
    if not requests and not as_json:
        err.print("no such mails")
    exit_unless(not refused)


def _ids(mails: mail_pb2_grpc.MailServiceStub, query: mail_pb2.ListMailsRequest) -> Iterator[str]:
    """Yield the ids of the mails that are asked for, page by page. Raises RpcError."""
    while True:
        answer = mails.ListMails(query, timeout=TIMEOUT_SECONDS)
        yield from [mail.id for mail in answer.mails]
        query.page_token = answer.next_page_token
        if not query.page_token:
            return


def _retry(
    mails: mail_pb2_grpc.MailServiceStub, request: mail_pb2.RetryMailRequest, address: str, *, as_json: bool
) -> bool:
    """Retry one mail and print it; False, after printing why, where it can't be. Raises RpcError for other faults."""
    try:
        answer = mails.RetryMail(request, timeout=TIMEOUT_SECONDS)
    except grpc.RpcError as error:
        if error.code() not in _REFUSALS:
            raise
        said = describe_error(error, address, TIMEOUT_SECONDS)
        err.print(escape(f"mail {request.id}: {said}"), style="red")
        print_error(error.code().name, said, id=request.id)
        return False
    print_state(answer, as_json=as_json)
    return True
