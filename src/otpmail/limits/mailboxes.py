"""The mailbox whose limits of mails an address shares: one with a tag reaches the same person as one without."""

_GMAIL = frozenset({"gmail.com", "googlemail.com"})  # one mailbox by both names, with or without dots


def mailbox_of(key: str, *, gmail_dots: bool) -> str:
    """Return the mailbox of an address by the form under which codes are kept (`Address.key`).

    A tag stands between a plus sign and the @ (RFC 5233). With `gmail_dots` the dots of Gmail's addresses do
    not count. A local part in quotes, or one that begins with a plus sign, is left as it is.
    """
    local, _, domain = key.rpartition("@")
    if local.startswith(('"', "+")):
        return key
    local = local.partition("+")[0]
    if gmail_dots and domain in _GMAIL:
        return f"{local.replace('.', '')}@gmail.com"
    return f"{local}@{domain}"
