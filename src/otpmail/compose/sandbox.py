"""The sandbox of templates: they reach nothing but their values, and come to an end."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from jinja2 import Template
from jinja2.compiler import CodeGenerator
from jinja2.exceptions import SecurityError
from jinja2.nodes import Filter, For
from jinja2.nodes import Template as Tree
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

MOST_STEPS = 10_000
"""The passes of loops, calls, and uses of other templates in one mail. A mail of a code has a few dozen."""

_MOST_REPEATED = 10_000  # characters that `*` makes of a text

_PASSES = "passes of a loop"
"""The filter that counts; no template can name it."""


class _Generator(CodeGenerator):
    """Writes loops whose passes are counted."""

    def visit_Template(self, node: Tree, frame: Any = None) -> None:  # noqa: N802  the name that Jinja2 calls
        for loop in node.find_all(For):
            loop.iter = Filter(loop.iter, _PASSES, [], [], None, None, lineno=loop.lineno)
        super().visit_Template(node, frame)


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja2 without globals, for templates whose every `begin` allows MOST_STEPS steps.

    A step too many is an error of the template, as is one out of the sandbox. Steps are counted and not timed, so that
    a template fails on each machine alike.
    """

    code_generator_class = _Generator
    intercepted_binops = frozenset({"*", "**"})

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.globals.clear()
        self.filters[_PASSES] = self._passes
        self._steps = 0

    def begin(self) -> None:
        """Count from zero."""
        self._steps = 0

    def _step(self) -> None:
        self._steps += 1
        if self._steps > MOST_STEPS:
            raise SecurityError(f"takes more than {MOST_STEPS} steps; a loop or a template may have no end")

    def _passes(self, values: Iterable[Any]) -> Iterator[Any]:
        for value in values:
            self._step()
            yield value

    # Jinja2 calls these.

    def call(self, context: Context, obj: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a macro, a block or a method of a value."""
        self._step()
        return super().call(context, obj, *args, **kwargs)

    def get_template(self, name: Any, *args: Any, **kwargs: Any) -> Template:
        """Return a template that another one extends, includes or imports."""
        self._step()
        return super().get_template(name, *args, **kwargs)

    def select_template(self, names: Any, *args: Any, **kwargs: Any) -> Template:
        """Return the first of some templates."""
        self._step()
        return super().select_template(names, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Multiply. What could fill the memory, or never end, is refused."""
        if operator == "**":
            raise SecurityError("has a power, which could take for ever")
        for one, other in ((left, right), (right, left)):
            if isinstance(one, int) and hasattr(other, "__len__") and one * len(other) > _MOST_REPEATED:
                raise SecurityError(f"repeats a text to more than {_MOST_REPEATED} characters")
        return super().call_binop(context, operator, left, right)
