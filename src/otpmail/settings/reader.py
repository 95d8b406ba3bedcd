"""Makes a section of what the sources hold, and notes what is wrong with it."""

from collections.abc import Collection, Mapping
from typing import TypeVar

from pydantic import ValidationError

from otpmail.settings.describe import describe
from otpmail.settings.problems import Problem, Problems
from otpmail.settings.section import Section
from otpmail.settings.sources import Sources

SectionT = TypeVar("SectionT", bound=Section)


def read_section(
    section: type[SectionT],
    sources: Sources,
    fixed: Mapping[str, str | None],
    problems: Problems,
    *,
    hidden: Collection[str] = (),
) -> SectionT:
    """Make a section; a setting in `fixed`, by name, is not looked up in the sources.

    A wrong setting gets its default, so that the caller can go on and find what else is wrong. No problem repeats the
    value of a setting in `hidden`, besides those of secrets.
    """
    secrets, defaults = section.secrets(), section.defaults()
    layers: tuple[Mapping[str, object], ...] = (fixed, *sources.layers)
    for name in section.variables():
        if name not in fixed and (fault := sources.fault(name, is_secret=name in secrets)):
            problems.add(Problem(f"{name}: {fault}", (name,)))
            layers = ({name: defaults[name]}, *layers)
    try:
        loaded = section.from_layers(*layers)
    except ValidationError as error:
        wrong = [
            describe(section, details, hidden=hidden)
            for details in error.errors(include_url=False)
            if details["type"] != "default_factory_not_called"  # a default that waits for the wrong ones
        ]
        for problem in wrong:
            problems.add(problem)
        names = {name for problem in wrong for name in problem.names}
        loaded = section.from_layers({name: defaults[name] for name in names}, *layers)
    for conflict in loaded.conflicts():
        problems.conclude(conflict)
    return loaded
