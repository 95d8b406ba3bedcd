"""`otpmail address`: shows what an address has spent of its limits, lifts it, and erases what is kept."""

from typing import Annotated

import typer
from rich.markup import escape

from otpmail.cli.call import call
from otpmail.cli.help import Command, Group
from otpmail.cli.options import Json, Server
from otpmail.cli.output import out, print_json, utc
from otpmail.v1 import address_pb2, address_pb2_grpc

address = typer.Typer(cls=Group, help="Show, lift and erase what is kept of an address.", no_args_is_help=True)

Email = Annotated[str, typer.Argument(metavar="EMAIL", help="The mailbox, such as ada@example.org.")]


@address.command("show", cls=Command)
def show_address(email: Email, *, server: Server = "", as_json: Json = False) -> None:
    """Print how much of its limits an address has spent: of wrong codes and of mails with codes."""
    request = address_pb2.GetAddressRequest(email=email)
    answer = call(server, lambda channel: address_pb2_grpc.AddressServiceStub(channel).GetAddress, request)
    if as_json:
        print_json(answer)
        return
    for budget in answer.budgets:
        style = "red" if budget.spent >= budget.limit else ""
        spent = f"{budget.spent} of {budget.limit} spent, less from {utc(budget.reset_time)}"
        out.print(f"{budget.name}: {spent}", style=style)
    if not answer.budgets:
        out.print(f"{escape(email)} has spent nothing of its limits")


@address.command("release", cls=Command)
def release_address(email: Email, *, server: Server = "", as_json: Json = False) -> None:
    """Lift the limits that an address has reached. Its live codes stay, with their attempts."""
    request = address_pb2.ReleaseAddressRequest(email=email, budgets=True)
    answer = call(server, lambda channel: address_pb2_grpc.AddressServiceStub(channel).ReleaseAddress, request)
    if as_json:
        print_json(answer)
    else:
        out.print(f"{escape(email)} has spent nothing of its limits now", style="green")


@address.command("forget", cls=Command)
def forget_address(email: Email, *, server: Server = "", as_json: Json = False) -> None:
    """Erase all that is kept of an address: live codes, what it has spent, and the address in mails."""
    request = address_pb2.ForgetAddressRequest(email=email)
    answer = call(server, lambda channel: address_pb2_grpc.AddressServiceStub(channel).ForgetAddress, request)
    if as_json:
        print_json(answer)
    else:
        out.print(f"nothing of {escape(email)} is kept now", style="green")
