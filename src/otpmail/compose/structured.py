"""Values of header fields that have a structure: addresses, message ids, URLs, JSON. They are never encoded.

An encoded word means nothing in them (RFC 2047, 5): a List-Unsubscribe in base64 unsubscribes nobody.
"""

import re

MAX_WORD = 997  # RFC 5322, 2.1.1: 998 characters of a line, less the blank that begins a folded one

# By their usual spelling in lower case. Fields of a relay's own are for its programs, not for people.
_NAMES = frozenset(
    {
        *("references", "in-reply-to", "original-message-id", "supersedes", "archived-at", "message-context"),
        *("auto-submitted", "autosubmitted", "precedence", "importance", "priority", "sensitivity", "expires"),
        *("expiry-date", "reply-by", "tls-required", "mt-priority", "deferred-delivery", "autocrypt", "bimi-selector"),
        *("disposition-notification-to", "disposition-notification-options", "return-receipt-to", "errors-to"),
        *("original-recipient", "mail-followup-to", "mail-reply-to", "authentication-results", "received-spf"),
        *("require-recipient-valid-since", "vbr-info", "openpgp", "thread-index", "envelope-to", "abuse-reports-to"),
        *("x-original-to", "x-forwarded-to", "x-forwarded-for", "x-envelope-to", "x-loop", "x-complaints-to"),
        *("idempotency-key", "x-idempotency-key", "x-unsubscribe", "x-unsubscribe-web", "x-unsubscribe-url"),
        *("feedback-id", "x-feedback-id", "x-priority", "x-msmail-priority", "x-confirm-reading-to"),
        *("x-auto-response-suppress", "x-entity-ref-id", "x-abuse-reports-to", "x-report-abuse-to", "x-campaign-id"),
        *("x-smtpapi", "x-msys-api", "x-msfbl", "x-virtual-mta", "x-job", "x-accordstats", "x-csa-complaints"),
    }
)
_PREFIXES = (
    *("list-", "arc-", "dkim-", "bimi-", "x-list-", "x-ms-", "x-msg-", "x-gm-", "x-google-", "x-ses-", "x-amz-"),
    *("x-mc-", "x-mandrill-", "x-mailgun-", "x-pm-", "x-mj-", "x-mailjet-", "x-sib-", "x-mailin-", "x-sg-"),
    *(
        "x-mt-",
        "x-postal-",
        "x-greenarrow-",
        "x-mailersend-",
        "x-elasticemail-",
        "x-smtp2go-",
        "x-resend-",
        "resend-",
        "x-ee-",
        "x-sparkpost-",
    ),
)

_QUOTED = r'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)'  # to the end, where the quotes are not closed
_OUTSIDE_QUOTES = re.compile(f"({_QUOTED})")
_BLANKS = re.compile(r"[ \t]+")
_TO_A_COMMA = re.compile(rf"[ \t]*+(?:(?:{_QUOTED}|<[^<>]*+>|[^ \t,])++,*+|,++)")
_WORD = re.compile(rf'[ \t]*+(?:(?:{_QUOTED}|<[^<>]*+>|://[^ \t<>"]*+|[^ \t,])++,*+|,++)')  # a URL may hold commas
_NO_BLANK = re.compile(r"[ \t]*+[^ \t]++")


def is_structured(name: str) -> bool:
    """Whether a field of this name has a structure, in any case of its letters."""
    lowered = name.lower()
    return lowered in _NAMES or lowered.startswith(_PREFIXES)


def fault(value: str) -> str:
    """The reason why a field with a structure can't have this value; empty for a good one."""
    if not value.isascii():
        return "is not ASCII, and this header can't be encoded (RFC 2047, 5)"
    if not value.strip(" \t"):
        return "is empty"
    # fast path: most long values may be folded at their blanks, 15 us a kilobyte; held to the full path by
    # tests/compose/test_structured.py
    if len(value) <= MAX_WORD or ('"' not in value and max(map(len, value.split())) <= MAX_WORD):
        return ""
    long = [word for word in _WORD.findall(value) if len(word) > MAX_WORD]
    if all(_fits(part) for word in long for part in _TO_A_COMMA.findall(word) if len(part) > MAX_WORD):
        return ""
    return f"has more than {MAX_WORD} characters without a blank or a comma where a line could end (RFC 5322, 2.1.1)"


def _fits(word: str) -> bool:
    """Whether a long word may be written on lines of 998 characters, each of which begins with a blank."""
    parts = _NO_BLANK.findall(word.lstrip(" \t"))
    return all(len(part) + (part[0] not in " \t") <= MAX_WORD + 1 for part in parts)


def squeezed(value: str) -> str:
    """A value with one blank for each run of them, and none at its ends; those in quotes stay."""
    if '"' not in value:
        return " ".join(value.split())
    parts = _OUTSIDE_QUOTES.split(value.strip(" \t"))
    parts[::2] = [_BLANKS.sub(" ", part) for part in parts[::2]]
    return "".join(parts)


def words_of(value: str) -> list[str]:
    """The words of a value between which a line may end, each with the blanks before it.

    A line may end at a blank, and behind a comma that is in no quotes, angle brackets or URL. Only a word that no line
    would hold is divided at the commas of a URL, and then at the blanks within its quotes.
    """
    words = _WORD.findall(value)
    for finer in (_TO_A_COMMA, _NO_BLANK):
        if max(map(len, words), default=0) <= MAX_WORD:
            break
        words = [part for word in words for part in (finer.findall(word) if len(word) > MAX_WORD else (word,))]
    return words
