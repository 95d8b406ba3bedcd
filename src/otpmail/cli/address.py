"""`otpmail address`: shows what keeps mail to an address back, lifts it, and reports on deliveries."""

from typing import Annotated, Literal

import typer
from rich.markup import escape

from otpmail.cli.call import call
from otpmail.cli.help import Command, Group
from otpmail.cli.options import Json, Server
from otpmail.cli.output import out, print_json, utc
from otpmail.v1 import address_pb2, address_pb2_grpc, mail_pb2

address = typer.Typer(
    cls=Group, help="Show, lift and erase what is kept of an address, and report on deliveries.", no_args_is_help=True
)

Email = Annotated[str, typer.Argument(metavar="EMAIL", help="The mailbox, such as ada@example.org.")]


Outcomes = Literal["delivered", "bounced", "complained"]


@address.command("show", cls=Command)
def show_address(email: Email, *, server: Server = "", as_json: Json = False) -> None:
    """Print why nothing is sent to an address, and how much of its limits it has spent."""
    request = address_pb2.GetAddressRequest(email=email)
    answer = call(server, lambda channel: address_pb2_grpc.AddressServiceStub(channel).GetAddress, request)
    if as_json:
        print_json(answer)
        return
    if answer.HasField("suppression"):
        suppression = answer.suppression
        what = "suppressed for bulk" if suppression.scope == mail_pb2.Suppression.SCOPE_BULK else "suppressed"
        since, until = utc(suppression.since), utc(suppression.until)
        out.print(f"{what} until {until}, since {since}: {escape(suppression.reason)}", style="red")
    for budget in answer.budgets:
        style = "red" if budget.spent >= budget.limit else ""
        spent = f"{budget.spent} of {budget.limit} spent, less from {utc(budget.reset_time)}"
        out.print(f"{budget.name}: {spent}", style=style)
    if not answer.budgets:
        out.print(f"{escape(email)} has spent nothing of its limits")


@address.command("release", cls=Command)
def release_address(email: Email, *, server: Server = "", as_json: Json = False) -> None:
    """Lift what keeps mail to an address back, and the limits that it has reached. Its live codes stay."""
    request = address_pb2.ReleaseAddressRequest(email=email, suppression=True, budgets=True)
    answer = call(server, lambda channel: address_pb2_grpc.AddressServiceStub(channel).ReleaseAddress, request)
    if as_json:
        print_json(answer)
    else:
        out.print(f"{escape(email)} is not suppressed, and has spent nothing of its limits now", style="green")


@address.command("forget", cls=Command)
def forget_address(email: Email, *, server: Server = "", as_json: Json = False) -> None:
    """Erase all that is kept of an address: live codes, what it has spent, and the address in mails."""
    request = address_pb2.ForgetAddressRequest(email=email)
    answer = call(server, lambda channel: address_pb2_grpc.AddressServiceStub(channel).ForgetAddress, request)
    if as_json:
        print_json(answer)
    else:
        out.print(f"nothing of {escape(email)} is kept now", style="green")


@address.command("report", cls=Command)
def report_delivery(
    email: Email,
    outcome: Annotated[
        Outcomes,
        typer.Argument(metavar="OUTCOME", help="The end of a mail: delivered, bounced (for good) or complained."),
    ],
    *,
    mail: Annotated[str, typer.Option(metavar="ID", help="The id of the mail, for the log.")] = "",
    detail: Annotated[str, typer.Option(metavar="TEXT", help="The words of the provider.")] = "",
    server: Server = "",
    as_json: Json = False,
) -> None:
    """Tell the service what a provider has told you of a delivery. A bounce or a complaint suppresses the address."""
    request = address_pb2.ReportDeliveryRequest(
        email=email,
        outcome=address_pb2.ReportDeliveryRequest.Outcome.Value(f"OUTCOME_{outcome.upper()}"),
        mail_id=mail,
        detail=detail,
    )
    answer = call(server, lambda channel: address_pb2_grpc.AddressServiceStub(channel).ReportDelivery, request)
    if as_json:
        print_json(answer)
    else:
        out.print(f"reported: {escape(email)} {outcome}", style="green")
