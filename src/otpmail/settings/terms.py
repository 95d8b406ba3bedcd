"""Names the settings of a relay as its operator has written them: as variables, or as parts of a URL in EMAIL_RELAYS.

Beside EMAIL_RELAYS the variables have no effect, so no advice may name them.
"""

import re
from itertools import chain, repeat

from otpmail.settings.relay import RelaySettings

_IN_A_URL = {
    "EMAIL_SECURITY=tls": "smtps://",
    "EMAIL_SECURITY=starttls": "smtp://",
    "EMAIL_SECURITY=plain": "smtp+plain://",
    "EMAIL_AUTH=": "?auth=",
    "EMAIL_AUTH": "?auth=",
    "EMAIL_TOKEN_FILE": "?token_file=",
    "EMAIL_TLS_NAME": "?tls_name=",
    "EMAIL_HOST": "the host",
    "EMAIL_PORT": "the port",
    "EMAIL": "the user",
    "APP_PASSWORD": "the password",
}
_NAMES = re.compile(rf"\b(?:{'|'.join(sorted(_IN_A_URL, reverse=True))})(?![A-Z_])")


def in_terms_of(relay: RelaySettings, advice: str) -> str:
    """Return advice, which names variables, with the parts of a URL in their places where EMAIL_RELAYS names the relay.

    The advice holds no words of the relay.
    """
    if not relay.named_by_url:
        return advice
    where = chain([" in EMAIL_RELAYS"], repeat(""))
    return _NAMES.sub(lambda name: _IN_A_URL[name[0]] + ("" if name[0].endswith("=") else next(where)), advice)
