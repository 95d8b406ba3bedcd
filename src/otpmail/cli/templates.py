"""`otpmail templates check` and `preview`: the mails of codes that the settings make, without a service."""

import webbrowser
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from otpmail.cli.help import Command, Group
from otpmail.cli.options import pairs
from otpmail.cli.output import err, out, wrong_usage
from otpmail.counts import counted
from otpmail.errors import InvalidArgument, SettingsError

if TYPE_CHECKING:
    from otpmail.compose.catalog import Templates
    from otpmail.compose.templates import Rendered
    from otpmail.otp.request import CodeRequest

templates = typer.Typer(cls=Group, help="Check and show the mails of codes.", no_args_is_help=True)

_CODE, _REFERENCE, _EMAIL = "271828", "K7QD", "ada@example.org"

Folder = Annotated[
    Path | None,
    typer.Option(
        "--dir",
        exists=True,
        file_okay=False,
        metavar="DIR",
        help="A directory of templates. Default: OTP_TEMPLATES_DIR, else the shipped.",
    ),
]


@templates.callback()
def templates_of_codes() -> None:
    """Check and show the mails of codes."""


@templates.command("check", cls=Command)
def check_templates(*, folder: Folder = None) -> None:
    """Check the templates of all languages, and print the languages. A name that is probably misspelt is a warning."""
    found = _load(folder)
    found.build_all()
    for words in found.slips:
        err.print(escape(words), style="yellow")
    languages = sorted(found.by_locale)
    out.print(escape(f"templates: good, {counted(len(languages), 'language')}: {', '.join(languages)}"))


@templates.command("preview", cls=Command)
def preview(
    *,
    folder: Folder = None,
    locale: Annotated[str, typer.Option(metavar="TAG", help="The language, such as pt-BR. Default: OTP_LOCALE.")] = "",
    purpose: Annotated[str, typer.Option(metavar="NAME", help="The purpose of the code.")] = "login",
    variables: Annotated[
        list[str] | None,
        typer.Option("--var", metavar="NAME=VALUE", help="A variable of the request. May be given several times."),
    ] = None,
    seconds: Annotated[
        float, typer.Option("--life", metavar="SECONDS", min=1, max=86400, help="How long the code is valid.")
    ] = 600,
    html: Annotated[bool, typer.Option("--html", help="Print the HTML in place of the text.")] = False,
    in_browser: Annotated[bool, typer.Option("--open", help="Open the HTML in a browser.")] = False,
) -> None:
    """Print the mail of a sample code: its subject and text, or its HTML."""
    from otpmail.otp.request import DEFAULT_PURPOSE, CodeRequest

    given = pairs("--var", variables or (), "--var product=Acme")
    purpose = purpose or DEFAULT_PURPOSE
    _check_as_call(CodeRequest(email=_EMAIL, purpose=purpose, locale=locale, variables=given))
    values = {**given, "code": _CODE, "reference": _REFERENCE, "email": _EMAIL}
    try:
        mail = _load(folder).render(locale, purpose, values, valid_seconds=seconds)
    except InvalidArgument as error:
        raise wrong_usage(f"--var: {error.description}") from None
    if in_browser:
        _open(mail)
    elif html:
        print(mail.html, end="")  # noqa: T201  programs read it, so no markup
    else:
        print(f"Subject: {mail.subject}\n\n{mail.text}", end="")  # noqa: T201  a mail may look like markup


def _load(folder: Path | None) -> "Templates":
    """The templates of the settings, or of another directory. Raises typer.Exit after printing what is wrong."""
    from otpmail.compose.catalog import Templates
    from otpmail.settings import OtpSettings, ProductSettings, load_section, read_sources

    try:
        sources = read_sources()
        settings, product = load_section(OtpSettings, sources), load_section(ProductSettings, sources).product
        usual = settings if folder is None else settings.model_copy(update={"templates_dir": folder})
        return Templates.load(usual, product)
    except SettingsError as error:
        raise wrong_usage(*error.problems) from None


def _check_as_call(request: "CodeRequest") -> None:
    """Raise typer.Exit for a request that no call may have, which has no mail either."""
    from otpmail.callers import ANONYMOUS
    from otpmail.otp.request import find_place

    try:
        request.check_words()
        find_place(ANONYMOUS, request.email, request.purpose)
    except InvalidArgument as error:
        option = error.field if error.field in {"locale", "purpose"} else "var"
        raise wrong_usage(f"--{option}: {error.description}") from None


def _open(mail: "Rendered") -> None:
    if not mail.html:
        raise wrong_usage("--open: this mail has no HTML")
    with NamedTemporaryFile("w", suffix=".html", prefix="otpmail-", delete=False, encoding="utf-8") as file:
        file.write(mail.html)
    out.print(escape(f"written to {file.name}"))
    webbrowser.open(Path(file.name).as_uri())
