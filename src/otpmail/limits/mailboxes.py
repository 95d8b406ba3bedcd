"""The mailbox whose limits of mails an address shares: one with a tag reaches the same person as one without."""

from otpmail.local_part import bare_of, wire_form

_GMAIL = frozenset({"gmail.com", "googlemail.com"})  # one mailbox by both names, with or without dots


def mailbox_of(key: str, *, gmail_dots: bool) -> str:
    """Return the mailbox of an address by the form under which codes are kept (`Address.key`).

    A tag stands between a plus sign and the @ (RFC 5233), also within quotes, where relays find it too. A local part
    that begins with a plus sign has none. With `gmail_dots` the dots of Gmail's addresses do not count.
    """
    local, _, domain = key.rpartition("@")
    bare = bare_of(local)
    if bare.startswith("+"):
        return key
    bare = bare.partition("+")[0]
    if gmail_dots and domain in _GMAIL:
        bare, domain = bare.replace(".", "") or bare, "gmail.com"
    return f"{wire_form(bare) if bare.isascii() else bare}@{domain}"  # no quotes hold other letters
