"""The tree of errors in the docstring of `otpmail.errors`."""

import re

from otpmail import errors


def test_the_tree_is_whole() -> None:
    """The tree names every error of the module, one step below its base class."""
    parents: list[str] = []
    shown: dict[str, str] = {}
    _, _, tree = (errors.__doc__ or "").partition("\n\n")
    for line in tree.splitlines():
        if named := re.match(r"([│├└─ ]*)([A-Z]\w+)(?: |$)", line):
            depth = len(named[1]) // 4
            del parents[depth:]
            shown[named[2]] = parents[-1] if parents else "Exception"
            parents.append(named[2])
    defined = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type)}
    assert shown == {name: kind.__bases__[0].__name__ for name, kind in defined.items()}
