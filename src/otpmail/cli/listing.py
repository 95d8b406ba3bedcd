"""`otpmail mail list`: prints the mails that the running service has, a line each."""

from collections.abc import Mapping, Sequence
from datetime import UTC
from types import MappingProxyType
from typing import Annotated

import typer
from rich.cells import cell_len
from rich.text import Text

from otpmail.cli.call import call
from otpmail.cli.options import AllCallers, Json, OfCaller, Server, complete_from, value_of, whose
from otpmail.cli.output import err, is_good, out, print_json, relay_reply, state_of
from otpmail.standard_streams import is_read
from otpmail.v1 import mail_pb2, mail_pb2_grpc

_PAGE = 1000
_STATES: Mapping[str, mail_pb2.Mail.State.ValueType] = MappingProxyType(
    {name.removeprefix("STATE_").lower(): value for name, value in mail_pb2.Mail.State.items() if value}
)
_GAP = "  "
_ACCEPTED = 250
_NARROW = 24  # columns, into which most addresses fit


def list_mails(
    *,
    state: Annotated[
        str,
        typer.Option(
            metavar="STATE",
            autocompletion=complete_from(_STATES),
            help=f"Only mails in this state. There are {', '.join(_STATES)}.",
        ),
    ] = "",
    to: Annotated[str, typer.Option(metavar="EMAIL", help="Only mails to this address.")] = "",
    request_id: Annotated[str, typer.Option(metavar="ID", help="Only mails that were sent with this id.")] = "",
    most: Annotated[int, typer.Option("--limit", min=1, metavar="N", help="The most mails to print.")] = 100,
    caller: OfCaller = "",
    all_callers: AllCallers = False,
    server: Server = "",
    as_json: Json = False,
) -> None:
    """Print the mails that the service has, newest first: those that have not settled, and those that it remembers."""
    of = whose(caller, all_callers=all_callers)
    request = mail_pb2.ListMailsRequest(recipient=to, request_id=request_id, caller=of)
    if state:
        request.state = value_of("--state", state, _STATES)
    left = most
    while left and is_read():  # `head` may have gone with its ten lines
        request.page_size = min(left, _PAGE)
        answer = call(server, lambda channel: mail_pb2_grpc.MailServiceStub(channel).ListMails, request)
        if as_json:
            for mail in answer.mails:
                print_json(mail)
        else:
            print_lines(answer.mails, with_heads=left == most)
        left -= len(answer.mails)
        request.page_token = answer.next_page_token
        if not request.page_token:
            break
    if left == most and not as_json:
        err.print("no such mails")


def print_lines(mails: Sequence[mail_pb2.Mail], *, with_heads: bool) -> None:
    """Print a line for each mail, in columns. On a terminal they have heads, and no line is wider than it is."""
    is_of_all = any(mail.caller for mail in mails)
    rows = [_cells(mail, with_caller=is_of_all) for mail in mails]
    if not out.is_terminal:
        for row in rows:
            out.print(Text(_GAP.join(row).rstrip()))
        return
    heads = ["id", "state", "accepted (UTC)", *["caller"] * is_of_all, "to", "reply"]
    widths = _widths([heads, *rows], out.width)
    if with_heads and rows:
        out.print(_line(heads, widths, out.width), style="bold")
    for mail, row in zip(mails, rows, strict=True):
        out.print(_line(row, widths, out.width), style="green" if is_good(mail) else "red")


def _cells(mail: mail_pb2.Mail, *, with_caller: bool) -> list[str]:
    accepted = f"{mail.create_time.ToDatetime(UTC):%Y-%m-%d %H:%M}"
    results = mail.recipients
    first = results[0].address if results else "-"  # before the relay has replied
    to = f"{first} +{len(results) - 1}" if len(results) > 1 else first
    shown = next((result for result in results if result.code != _ACCEPTED), results[0] if results else None)
    reply = relay_reply(shown) if shown is not None else ""
    return [mail.id, state_of(mail).lower(), accepted, *[mail.caller] * with_caller, to, reply]


def _widths(table: Sequence[Sequence[str]], width: int) -> list[int]:
    """Return how wide each column is: addresses take half of what is left, and all of it on a narrow terminal."""
    *fixed, to, reply = [max(cell_len(row[column]) for row in table) for column in range(len(table[0]))]
    room = max(0, width - sum(fixed) - len(_GAP) * len(fixed))
    to = min(to, max(room // 2, min(room, _NARROW)))
    left = room - to - len(_GAP)
    return [*fixed, to, min(reply, left) if left >= _NARROW // 2 else 0]


def _line(cells: Sequence[str], widths: Sequence[int], width: int) -> Text:
    line = Text()
    for cell, own in zip(cells, filter(None, widths), strict=False):
        part = Text(cell)
        part.truncate(own, overflow="ellipsis", pad=True)
        line.append_text(part).append(_GAP)
    line.rstrip()
    line.truncate(width, overflow="ellipsis")
    return line
