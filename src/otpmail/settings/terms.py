"""Names the settings of a relay as its operator has written them: as variables, or as parts of a URL in EMAIL_RELAYS.

In EMAIL_RELAYS the URL wins over the variables, most of which have no effect beside it. So no advice may name them.
"""

import re
from itertools import chain, repeat

from otpmail.settings.relay import RelaySettings
from otpmail.settings.relays import OPTIONS, SECURITY

_SCHEMES = {f"EMAIL_SECURITY={security}": f"{scheme}://" for scheme, security in reversed(SECURITY.items())}
_PARTS = {
    "EMAIL_HOST": "the host",
    "EMAIL_PORT": "the port",
    "EMAIL": "the user",
    "APP_PASSWORD": "the password",
    **{variable: f"?{option}=" for option, variable in OPTIONS.items()},
}
_IN_A_URL = _SCHEMES | _PARTS | {f"{variable}=": part for variable, part in _PARTS.items()}
_NAMES = re.compile(rf"\b(?:{'|'.join(sorted(_IN_A_URL, reverse=True))})(?![A-Z_])")


def in_terms_of(relay: RelaySettings, advice: str) -> str:
    """Return advice, which names variables, with the parts of a URL in their places where EMAIL_RELAYS names the relay.

    The advice holds no words of the relay.
    """
    if not relay.named_by_url:
        return advice
    where = chain([" in EMAIL_RELAYS"], repeat(""))
    return _NAMES.sub(lambda name: _IN_A_URL[name[0]] + ("" if name[0].endswith("=") else next(where)), advice)
