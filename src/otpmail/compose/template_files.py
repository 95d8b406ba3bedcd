"""Reads the files of a template, and names the one that can't be read."""

from importlib.resources.abc import Traversable


def read_text(folder: Traversable, name: str) -> str | None:
    """Return the text of a file in UTF-8, None where no file is. Raises ValueError, which opens with its name.

    A pipe, a device, a folder or a link to nothing is an error: a pipe would block its reader.
    """
    try:
        if not folder.joinpath(name).is_file():
            if any(entry.name == name for entry in folder.iterdir()):
                raise ValueError(f"{name}: is not a file")
            return None
        return folder.joinpath(name).read_text("utf-8-sig")  # editors of Windows write a byte order mark
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{name}:{line}: is not text in UTF-8") from None
    except OSError as error:
        raise ValueError(f"{name} can't be read: {error.strerror}") from None
