"""Files that an earlier version has written (tests/store/sqlite/earlier)."""

import gzip
from pathlib import Path

EARLIER = Path(__file__).parent / "store/sqlite/earlier"
FILES = sorted(EARLIER.glob("*.db.gz"))


def unpack(packed: Path, path: Path) -> Path:
    """Write a copy of the file to `path`, for a store to open, and return that."""
    path.write_bytes(gzip.decompress(packed.read_bytes()))
    return path
