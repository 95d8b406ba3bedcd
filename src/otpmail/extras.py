"""How to install what is missing: otpmail is not released, so its clone is what pip installs."""


def install_command(extra: str) -> str:
    """Return the command that installs otpmail with an extra, as docs/client.md has it."""
    return f"pip install 'PATH_OF_CLONE[{extra}]'"
