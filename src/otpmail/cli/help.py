"""The commands' classes, for which --help shows no type at a flag: typer shows <bool>, as if one had to follow."""

from typing import TYPE_CHECKING, Any

from typer.core import TyperCommand, TyperGroup, TyperOption

if TYPE_CHECKING:
    _Base = TyperCommand
else:
    _Base = object


class _PlainFlags(_Base):
    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters, --help among them; typer keeps its own types of both to itself."""
        params = super().get_params(ctx)
        for param in params:
            if isinstance(param, TyperOption) and param.is_flag:
                param.metavar = ""
        return params


class Command(_PlainFlags, TyperCommand):
    """A command."""


class Group(_PlainFlags, TyperGroup):
    """A group of commands."""
