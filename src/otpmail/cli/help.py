"""The commands' classes, for which --help shows no type at a flag or an argument: typer shows those of Python."""

from typing import TYPE_CHECKING, Any

from typer.core import TyperCommand, TyperGroup, TyperOption

if TYPE_CHECKING:
    _Base = TyperCommand
else:
    _Base = object


class _PlainFlags(_Base):
    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters, --help among them; typer keeps its own types of both to itself."""
        params: list[Any] = super().get_params(ctx)
        for param in params:
            if isinstance(param, TyperOption) and param.is_flag:
                param.metavar = ""
            elif param.param_type_name == "argument":
                param.display_type_rich = _no_type
        return params


def _no_type(ctx: Any) -> None:
    """Show nothing, since the name of an argument says what it is."""


class Command(_PlainFlags, TyperCommand):
    """A command."""


class Group(_PlainFlags, TyperGroup):
    """A group of commands."""
