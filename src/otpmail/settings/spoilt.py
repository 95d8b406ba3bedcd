"""Recognises values that were spoilt on their way here: by quotes that were kept, or characters that nobody sees."""

ASCII_SPACE = " \t\r\n\f\v"
"""Characters that may be dropped from the ends of a value without a word."""

_QUOTED = (
    "is in quotes, which Docker's --env-file and systemd's unit files may leave there; remove them, or put a value "
    "that has quotes into .env"
)
_TYPOGRAPHIC = ("“”", "‘’", "„“", "«»", "””", "’’")
_NAMES = {"\xa0": "a no-break space", "\u200b": "a zero-width space", "\ufeff": "a byte order mark"}


def holds_control_character(text: str) -> bool:
    """Whether a text holds a control character of ASCII: no password does, and some would end a line of SMTP."""
    return any(ord(char) < 32 or char == "\x7f" for char in text)


def fault_of_quotes(value: str) -> str | None:
    """Say that the whole value is in quotes, if it is."""
    return _QUOTED if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else None


def fault_at_ends(value: str) -> str | None:
    """Name a character at an end of the value that cannot be seen: it comes with a copied text or a Windows file."""
    if value.endswith("\r"):
        return "ends with a carriage return, as in a file with Windows line ends; remove it"
    if value[0] + value[-1] in _TYPOGRAPHIC and len(value) > 1:
        return f"is in the quotes {value[0]} and {value[-1]}, as word processors make them; remove them"
    for where, char in (("begins", value[0]), ("ends", value[-1])):
        if not char.isascii() and not char.isprintable():
            return f"{where} with {_NAMES.get(char, 'an invisible character')} (U+{ord(char):04X}); remove it"
    return None
