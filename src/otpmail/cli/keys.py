"""`otpmail keys new`: makes a key for OTP_KEYS, and says what to do with it."""

import base64
import re
import secrets
from collections.abc import Collection

import typer
from rich.markup import escape

from otpmail.cli.help import Command, Group
from otpmail.cli.output import err, wrong_usage
from otpmail.errors import SettingsError

keys = typer.Typer(cls=Group, help="Make keys for codes and stored mails.", no_args_is_help=True)

_OCTETS = 32
_NUMBERED = re.compile(r"k([0-9]{1,9})")


@keys.callback()
def keys_of_codes() -> None:
    """Make keys for codes and stored mails."""


@keys.command("new", cls=Command)
def new_key() -> None:
    """Print a new entry for OTP_KEYS, under an id that the present value does not have."""
    try:
        known = _known_ids()
    except SettingsError as error:
        raise wrong_usage(*error.problems) from None
    key_id = f"k{_greatest(known) + 1}"
    entry = f"{key_id}:{base64.b64encode(secrets.token_bytes(_OCTETS)).decode()}"
    print(entry, flush=True)  # noqa: T201  programs read it, so no markup
    err.print(escape(_advice(key_id, known, shared=_has_shared_store())))


def _known_ids() -> Collection[str]:
    from otpmail.settings import OtpSettings, load_section

    return load_section(OtpSettings).derivation_keys.keys()


def _greatest(known: Collection[str]) -> int:
    """Return the greatest number of an id: a smaller one may be that of an earlier key, which the store still names."""
    numbers = [int(match[1]) for key_id in known if (match := _NUMBERED.fullmatch(key_id))]
    return max(numbers, default=0)


def _has_shared_store() -> bool:
    from otpmail.settings import StoreSettings, load_section

    try:
        return load_section(StoreSettings).is_shared
    except SettingsError:  # the key is good all the same
        return False


def _advice(key_id: str, known: Collection[str], *, shared: bool) -> str:
    if not known:
        return "set OTP_KEYS to this line; keep it secret, and keep it: what is stored can't be read without it"
    old = ", ".join(known)
    if shared:
        return (
            "put it behind the present value of OTP_KEYS, with a comma between, and restart each process that shares "
            f"the store. Then put it in front, and restart each again. {key_id} writes from then on, and {old} can "
            "still read; docs/operations.md says when to remove an old key"
        )
    return (
        f"put it in front of the present value of OTP_KEYS, with a comma between, and restart. {key_id} writes from "
        f"then on, and {old} can still read; docs/operations.md says when to remove an old key"
    )
