"""The settings as a test gives them, as text: a test may have numbers and paths. It imports nothing of the service."""

from collections.abc import Mapping
from pathlib import Path

Setting = str | int | float | Path


def as_text(settings: object) -> dict[str, str]:
    """Return settings as `.env` would have them. A path is that of the tests, wherever the service runs.

    Raises TypeError, which names the setting.
    """
    if settings is None:
        return {}
    if not isinstance(settings, Mapping):
        kind = type(settings).__name__
        raise TypeError(f'settings: must be a dict of names and values, such as {{"OTP_DIGITS": "8"}}, not {kind}')
    return {_name(name): _text(name, value) for name, value in settings.items()}


def _name(name: object) -> str:
    if not isinstance(name, str):
        raise TypeError(f"settings: a name must be text, not {type(name).__name__}: {name!r}")
    return name


def _text(name: str, value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case str() | int() | float():
            return str(value)
        case Path():
            return str(value.absolute())
    raise TypeError(f"settings: {name} must be text, a number, true or false, or a path, not {type(value).__name__}")
