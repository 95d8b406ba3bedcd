"""Where results and figures are kept."""

from pathlib import Path

DIRECTORY = Path(__file__).parents[1] / "results"


def file_of(name: str, directory: Path, *, quick: bool, suffix: str = ".json") -> Path:
    """The file of a benchmark's results, or of a figure; git ignores those of quick runs."""
    return directory / f"{'quick-' if quick else ''}{name}{suffix}"
