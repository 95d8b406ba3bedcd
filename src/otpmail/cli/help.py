"""The commands' classes: how --help shows flags and arguments, and one line about a command that is used wrongly."""

import re
import sys
from collections.abc import Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

from otpmail.cli.output import AS_JSON, EXIT_FAILED, wrong_usage

_PYDANTIC_PREFIX = "Value error, "  # before the text of a ValueError
_RULES = (  # pydantic's words for a value that is wrong, and ours
    (re.compile(r"Input should be greater than or equal to (\S+)"), r"must be \1 or more"),
    (re.compile(r"Input should be less than or equal to (\S+)"), r"must be \1 or less"),
    (
        re.compile(r"Input should be a valid integer.*|Unable to parse input string as an integer.*"),
        "must be a whole number",
    ),
    (re.compile(r"Input should be a valid number.*"), "must be a number"),
    (re.compile(r"Input should be"), "must be"),
)

if TYPE_CHECKING:
    _Base = TyperCommand
else:
    _Base = object


class _PlainFlags(_Base):
    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters, --help among them, without the types that typer shows at a flag or an argument."""
        params: list[Any] = super().get_params(ctx)
        for param in params:
            if isinstance(param, TyperOption) and param.is_flag:
                param.metavar = ""
            elif param.param_type_name == "argument":
                param.display_type_rich = _no_type
        return params

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Read the arguments. An error has the words that name the command: typer leaves them out of some."""
        try:
            return super().make_context(info_name, args, parent, **extra)
        except typer.TyperException as error:
            names = (parent.command_path if parent is not None else "", info_name or "")
            error.add_note(" ".join(filter(None, names)))
            raise


def _no_type(ctx: Any) -> None:
    """Show nothing, since the name of an argument says what it is."""


class Command(_PlainFlags, TyperCommand):
    """A command."""


class Group(_PlainFlags, TyperGroup):
    """A group of commands. One that is used wrongly says so in one line, as an error of any other kind."""

    def main(self, args: Sequence[str] | None = None, *others: Any, **more: Any) -> NoReturn:
        """Run a command, and end the process with its exit code."""
        try:
            code = super().main(args, *others, **more | {"standalone_mode": False})
        except typer.TyperException as error:
            words = sys.argv[1:] if args is None else args
            AS_JSON.set("--json" in takewhile(lambda word: word != "--", words))  # the options may not have been read
            sys.exit(_explain(error).exit_code)
        except typer.Abort:
            sys.exit(EXIT_FAILED)
        sys.exit(code if isinstance(code, int) else 0)


def _explain(error: typer.TyperException) -> typer.Exit:
    """Print what is wrong about a command, and where help is; nothing if its help is printed, for want of arguments."""
    words = " ".join(error.format_message().split()).removesuffix(".").replace(_PYDANTIC_PREFIX, "")
    for pydantic, ours in _RULES:
        words = pydantic.sub(ours, words)
    if not words:
        return typer.Exit(error.exit_code)
    context: Any = getattr(error, "ctx", None)
    command = context.command_path if context is not None else next(iter(getattr(error, "__notes__", ())), "otpmail")
    return wrong_usage(f"{command}: {words[0].lower()}{words[1:]}; see {command} --help")
