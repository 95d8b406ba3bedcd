"""Looks for inputs that break a rule of `attacks.parsers`, by atheris, guided by the branches that each input takes.

A program: `python -m attacks.fuzzer NAME CORPUS [libFuzzer options]`, where CORPUS is a folder of earlier inputs.
"""

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["otpmail"]):
    from attacks.parsers import PARSERS, SEEDS


def main() -> None:
    """Fuzz what the first argument names, until libFuzzer's options end it or an input fails."""
    name = sys.argv.pop(1)
    corpus = Path(sys.argv[1])
    for number, seed in enumerate(SEEDS[name]):
        (corpus / f"seed-{number}").write_bytes(seed)
    atheris.Setup(sys.argv, PARSERS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
