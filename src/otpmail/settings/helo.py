"""The name in EHLO (RFC 5321, 4.1.4), as far as it follows from settings and the name of this machine."""

import re
import socket

from otpmail.address import Address

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST_NAME = re.compile(rf"(?=.{{1,253}}$){_LABEL}(?:\.{_LABEL})*")
_LITERAL = re.compile(r"\[[0-9A-Za-z.:]+\]")
_NUMBER = re.compile(r"\d+")

# Postfix and others refuse a client that says it is a provider which it is not.
_MAILBOX_PROVIDERS = """
    gmail.com googlemail.com google.com outlook.com hotmail.com live.com msn.com office365.com onmicrosoft.com
    yahoo.com ymail.com rocketmail.com aol.com icloud.com me.com mac.com proton.me protonmail.com pm.me gmx.com
    gmx.net gmx.de gmx.at gmx.ch web.de t-online.de freenet.de mail.com email.com zoho.com zohomail.com fastmail.com
    yandex.com yandex.ru mail.ru bk.ru inbox.ru list.ru rambler.ru qq.com foxmail.com 163.com 126.com sina.com
    sohu.com naver.com daum.net hanmail.net docomo.ne.jp ezweb.ne.jp softbank.ne.jp orange.fr wanadoo.fr free.fr
    laposte.net sfr.fr libero.it virgilio.it tiscali.it comcast.net verizon.net att.net sbcglobal.net cox.net
    btinternet.com sky.com virginmedia.com hey.com tutanota.com tuta.com mailbox.org posteo.de rediffmail.com
    seznam.cz wp.pl onet.pl o2.pl interia.pl uol.com.br bol.com.br terra.com.br
"""


def is_host_name(text: str) -> bool:
    """Whether the text can be a host name, with or without dots (RFC 1123, 2.1)."""
    return _HOST_NAME.fullmatch(text) is not None


def is_helo(text: str) -> bool:
    """Whether the text can stand behind EHLO: a host name or an address literal."""
    return is_host_name(text) or _LITERAL.fullmatch(text) is not None


def host_name() -> str:
    """The host name of this machine if others may know it: one with a dot that does not mean loopback; else empty."""
    name = socket.gethostname().removesuffix(".")
    return name if _is_public(name) else ""


def sender_domain(sender: Address, relay_host: str) -> str:
    """The domain of EMAIL_FROM, if this machine may call itself that; else empty.

    It may not where the name is the relay's own, or that of a provider of mailboxes.
    """
    domain, host = sender.domain.lower(), relay_host.lower()
    is_the_relays = host == domain or host.endswith(f".{domain}")
    is_a_providers = any(domain == name or domain.endswith(f".{name}") for name in _MAILBOX_PROVIDERS.split())
    return domain if _is_public(domain) and not is_the_relays and not is_a_providers else ""


def _is_public(name: str) -> bool:
    *others, last = name.lower().split(".")
    is_local = "localhost" in (last, *others[:1]) or last == "localdomain"
    return bool(others) and is_host_name(name) and not _NUMBER.fullmatch(last) and not is_local
