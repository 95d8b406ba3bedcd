"""The kinds of purposes that the mails of codes have words for, by the names that callers give purposes."""

SIGN_IN, SIGN_UP, RESET, VERIFY, CHANGE, CONFIRM = KINDS = (
    "sign_in",
    "sign_up",
    "reset",
    "verify",
    "change_address",
    "confirm",
)
NEUTRAL = "code"
"""The kind of every other purpose."""

ALL_KINDS = (*KINDS, NEUTRAL)

# Without - and _.
_NAMES = {
    SIGN_IN: ("signin", "login", "logon", "auth", "authentication", "2fa", "mfa", "twofactor"),
    SIGN_UP: ("signup", "register", "registration", "join"),
    RESET: ("reset", "resetpassword", "passwordreset", "pwreset", "forgotpassword", "recovery", "accountrecovery"),
    VERIFY: ("verify", "verification", "verifyemail", "emailverification", "verifyaddress", "verifymail"),
    CHANGE: ("changeaddress", "addresschange", "changeemail", "emailchange", "newemail", "newaddress", "updateemail"),
    CONFIRM: ("confirm", "confirmation", "confirmaction", "action", "transaction", "payment", "stepup", "approve"),
}
_KIND_OF = {name: kind for kind, names in _NAMES.items() for name in names}


def names_of(kind: str) -> tuple[str, ...]:
    """Return the names of purposes of a kind, without - and _."""
    return _NAMES.get(kind, ())


def kind_of(purpose: str) -> str:
    """Return the kind of a purpose: `sign-up`, `sign_up` and `register` are one."""
    return _KIND_OF.get(purpose.lower().replace("-", "").replace("_", ""), NEUTRAL)
