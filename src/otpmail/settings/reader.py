"""Makes a section of what the sources hold, and notes what is wrong with it."""

from collections.abc import Mapping
from typing import TypeVar

from pydantic import ValidationError

from otpmail.settings.describe import describe
from otpmail.settings.problems import Problem, Problems
from otpmail.settings.section import Section
from otpmail.settings.sources import Sources

SectionT = TypeVar("SectionT", bound=Section)


def read_section(
    section: type[SectionT], sources: Sources, fixed: Mapping[str, str | None], problems: Problems
) -> SectionT:
    """Make a section; a setting in `fixed`, by name, is not looked up in the sources.

    A wrong setting gets its default, so that the caller can go on and find what else is wrong.
    """
    layers = (fixed, *sources.layers)
    for name, fault in sources.secrets_dir.faults.items():
        if name in section.variables() and not any(name in layer for layer in layers):
            problems.add(Problem(f"{name}: its file in SECRETS_DIR {fault}", (name,)))
    try:
        loaded = section.from_layers(*layers)
    except ValidationError as error:
        wrong = [describe(section, details) for details in error.errors(include_url=False)]
        for problem in wrong:
            problems.add(problem)
        names = {name for problem in wrong for name in problem.names}
        defaults = {name: default for name, default in section.defaults().items() if name in names}
        loaded = section.from_layers(defaults, *layers)
    for conflict in loaded.conflicts():
        problems.conclude(conflict)
    return loaded
