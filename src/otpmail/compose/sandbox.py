"""The sandbox of templates: they reach nothing but their values, and come to an end soon.

Steps and characters are counted, and not time or memory, so that a template fails on each machine alike. Characters
that are read count as those that are made, and each part of a template as some.
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from functools import wraps
from typing import Any, cast

from jinja2 import Template, nodes, pass_context
from jinja2.compiler import CodeGenerator
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from otpmail.compose.sizes import MOST_CHARACTERS, most_formatted, most_made, size

MOST_STEPS = 10_000
"""The passes of loops, calls, and uses of other templates in one mail. A mail of a code has a few dozen."""

_MOST_REPEATED = 10_000  # characters that `*` makes of a text
_MOST_BITS = 10_000  # of a product

_VALUES = (str, bytes, int, float, list, tuple, dict)
_JOINING = frozenset({"join", "sum"})

_OF_A_NODE = 8
"""The characters that a part of a template counts as, such as a name or a comparison: about as long as it takes."""

_OF_A_CALL = 16
"""Those that a filter or a test counts as, beside what it reads and makes."""

_PASSES = "passes of a loop"
_CHARACTERS = "characters of a value"
_WORK = "work of a part"
"""The filters that count; no template can name them."""


class _Counting(NodeTransformer):
    """Lets a template count the passes of its loops, what it joins, cuts, compares and collects, and its own parts."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802  the name that Jinja2 calls
        """Count the passes of a loop, and for each the parts of its body and of its condition."""
        self._visit_body(node)
        node.iter = _through(_PASSES, node.iter)
        if node.test is not None:
            node.test = _through(_WORK, node.test, nodes.Const(_work(node.test)))
        return node

    def _visit_body(self, node: Any) -> Any:
        line = node.body[0].lineno if node.body else node.lineno  # that an error names, as in a macro without an end
        work = nodes.Filter(nodes.Const(None), _WORK, [nodes.Const(_work(node))], [], None, None, lineno=line)
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(work, lineno=line))
        return node

    def visit_template(self, node: nodes.Template) -> nodes.Template:
        """Count in a whole template."""
        counting: nodes.Template = self._visit_body(node)
        return counting

    visit_Macro = visit_CallBlock = visit_Block = _visit_body  # noqa: N815

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802
        """Count the characters of all values that are compared."""
        self.generic_visit(node)
        node.expr = _through(_CHARACTERS, node.expr)
        for operand in node.ops:
            operand.expr = _through(_CHARACTERS, operand.expr)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _through(_CHARACTERS, node) if isinstance(node.arg, nodes.Slice) else node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.nodes = [_through(_CHARACTERS, one) for one in node.nodes]
        return node

    def _visit_collection(self, node: nodes.List | nodes.Dict | nodes.Tuple) -> nodes.Node:
        self.generic_visit(node)
        is_target = isinstance(node, nodes.Tuple) and node.ctx != "load"
        return node if is_target else _through(_CHARACTERS, node)

    visit_List = visit_Dict = visit_Tuple = _visit_collection  # noqa: N815


def _through(name: str, value: Any, *args: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(value, name, list(args), [], None, None, lineno=value.lineno)


def _work(node: nodes.Node) -> int:
    """Return the characters that the parts of a node count as."""
    return _OF_A_NODE * sum(1 for _ in node.find_all(nodes.Node))


class _Generator(CodeGenerator):
    """Writes templates that count."""

    def visit_Template(self, node: nodes.Template, frame: Any = None) -> None:  # noqa: N802
        super().visit_Template(_Counting().visit_template(node), frame)


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja2 without globals, whose templates have MOST_STEPS and MOST_CHARACTERS after every `begin`.

    Too much of either is an error of the template, as is a step out of the sandbox.
    """

    code_generator_class = _Generator
    intercepted_binops = frozenset({"+", "%", "*", "**"})

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.globals.clear()
        self.filters = {name: self._bounded(name, filter_) for name, filter_ in self.filters.items()}
        self.filters |= {_PASSES: self._passes, _CHARACTERS: self.counted, _WORK: self._worked}
        self.tests = {name: self._bounded("", cast("Callable[..., Any]", test)) for name, test in self.tests.items()}
        self.begin()

    def begin(self) -> None:
        """Count from zero."""
        self._steps = self._characters = 0

    def _step(self) -> None:
        self._steps += 1
        if self._steps > MOST_STEPS:
            raise SecurityError(f"takes more than {MOST_STEPS} steps; a loop or a template may have no end")

    def _passes(self, values: Iterable[Any]) -> Iterator[Any]:
        for value in values:
            self._step()
            yield value

    def _refuse(self, characters: int) -> None:
        """Raise SecurityError for what would make more characters than are left."""
        if self._characters + characters > MOST_CHARACTERS:
            raise SecurityError(f"reads and makes more than {MOST_CHARACTERS} characters")

    def _count(self, characters: int) -> None:
        self._refuse(characters)
        self._characters += characters

    @pass_context  # so that Jinja2 does not count when it compiles
    def _worked(self, _: Context, value: Any, work: int) -> Any:
        self._count(work)
        return value

    def counted(self, value: Any) -> Any:
        """Return a value, and count what it prints."""
        self._count(len(value) + 1 if isinstance(value, str) else size(value))
        if isinstance(value, int) and value.bit_length() > _MOST_BITS:
            raise SecurityError(f"makes a number of more than {_MOST_BITS} bits")
        return value

    def _one_by_one(self, values: Iterator[Any]) -> Iterator[Any]:
        for value in values:
            self._count(1)
            yield value

    def _bounded(self, name: str, filter_: Callable[..., Any]) -> Callable[..., Any]:
        """Return a filter or a test that refuses to make too much, and counts what it reads and makes."""
        first = 1 if hasattr(filter_, "jinja_pass_arg") else 0

        @wraps(filter_)
        def bounded(*args: Any, **kwargs: Any) -> Any:
            """Do as the filter does."""
            others = (*args[first + 1 :], *kwargs.values())
            if name in _JOINING and not isinstance(args[first], str):  # of a generator too, whose size nobody knows
                args = (*args[:first], self.counted(list(args[first])), *args[first + 1 :])
            self._count(_OF_A_CALL + sum(map(size, (args[first], *others))))
            self._refuse(most_made(name, args[first], others))
            result = filter_(*args, **kwargs)
            return self._one_by_one(result) if isinstance(result, Iterator) else self.counted(result)

        return bounded

    # Jinja2 calls these.

    def concat(self, parts: Iterable[str]) -> str:
        """Join what a template, a block or a macro prints."""
        joined = list[str]()
        for part in parts:
            try:
                joined.append(self.counted(part))
            except SecurityError as error:
                if isinstance(parts, Generator):
                    parts.throw(error)  # at the line that prints the part
                raise
        return "".join(joined)

    def call(self, context: Context, obj: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a macro, a block or a method of a value."""
        self._step()
        method = getattr(obj, "__wrapped__", obj)  # `format` is one of Jinja2's own
        owner = getattr(method, "__self__", None)
        if not isinstance(owner, _VALUES):
            return super().call(context, obj, *args, **kwargs)
        others = (*args, *kwargs.values())
        self._count(_OF_A_CALL + sum(map(size, (owner, *others))))
        self._refuse(most_made(getattr(method, "__name__", ""), owner, others))
        return self.counted(super().call(context, obj, *args, **kwargs))

    def get_template(self, name: Any, *args: Any, **kwargs: Any) -> Template:
        """Return a template that another one extends, includes or imports."""
        self._step()
        return super().get_template(name, *args, **kwargs)

    def select_template(self, names: Any, *args: Any, **kwargs: Any) -> Template:
        """Return the first of some templates."""
        self._step()
        return super().select_template(names, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Calculate, unless the result could fill the memory or never come."""
        if operator == "**":
            raise SecurityError("has a power, which could take for ever")
        if operator == "*":
            _refuse_product(left, right)
        elif operator == "+":
            self._refuse(size(left) + size(right))
        elif isinstance(left, str | bytes):
            self._refuse(most_formatted(left, right if isinstance(right, tuple) else (right,)))
        return self.counted(super().call_binop(context, operator, left, right))


def _refuse_product(left: Any, right: Any) -> None:
    """Raise SecurityError for a text that is repeated too often, or a number that has too many digits."""
    for one, other in ((left, right), (right, left)):
        if isinstance(one, int) and hasattr(other, "__len__") and one * len(other) > _MOST_REPEATED:
            raise SecurityError(f"repeats a text to more than {_MOST_REPEATED} characters")
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() + right.bit_length() > _MOST_BITS:
        raise SecurityError(f"makes a number of more than {_MOST_BITS} bits")
