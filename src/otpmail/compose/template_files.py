"""Reads the files of a template, and names the one that can't be read."""

from importlib.resources.abc import Traversable


def read_text(folder: Traversable, name: str) -> str | None:
    """Return the text of a file in UTF-8, None where no file is. Raises ValueError, which opens with its name."""
    try:
        return folder.joinpath(name).read_text("utf-8-sig")  # editors of Windows write a byte order mark
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{name}:{line}: is not text in UTF-8") from None
    except OSError as error:
        raise ValueError(f"{name} can't be read: {error.strerror}") from None
