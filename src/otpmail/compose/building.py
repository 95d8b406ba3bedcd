"""Builds the mails of codes from their files: for each locale and kind of purpose, once, before the first call."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol
from urllib.parse import quote

from otpmail.compose.checks import check_body, check_parts, check_subject, one_line, shown_in
from otpmail.compose.folders import SHIPPED_PARTS, Files, JinjaFiles, LocaleFiles, Part, PlainFiles
from otpmail.compose.jinja import Engine, RenderError
from otpmail.compose.locales import fallbacks
from otpmail.compose.purposes import ALL_KINDS, KINDS, NEUTRAL, kind_of, names_of
from otpmail.compose.shown_code import BARE, SPELLED
from otpmail.compose.templates import MailTemplate, Rendered
from otpmail.compose.validity import ValidityWords
from otpmail.compose.varying import VARYING, Marks, Space, as_format, mark
from otpmail.compose.words import Words, fill, kept_together, read_words
from otpmail.product import Product
from otpmail.values import frozen

_SAMPLE = "135790"
_IN_PHRASES = {
    "code": "code",
    "time": "valid_for",
    "reference": "reference",
    "product": "product_name",
    "support": "support_address",
}
"""The holes of phrases, and the values that fill them."""


class _Template(Protocol):
    def render(self, values: Mapping[str, str]) -> Rendered:
        """Fill in the template."""
        ...


class _Times(Protocol):
    def values(self, seconds: float) -> dict[str, str]:
        """Return `valid_for` and `minutes` of a time."""
        ...


@frozen()
class Look:
    """The content that all mails of codes share: a product, the reference or none, the domain the code is bound to."""

    product: Product = Product()
    shows_reference: bool = True
    domain: str = ""


@frozen()
class CodeMail:
    """A mail that values are filled into, and the words for the time that its code has left."""

    template: _Template
    times: _Times


def build(files: Files, look: Look) -> Mapping[str, dict[str, CodeMail]]:
    """Return the mails by locale, then by purpose or its kind. Raises ValueError, which names a file."""
    builder = _Builder(files, look)
    if files.locales is None:
        return {tag: ShippedMails(partial(builder.shipped, _words(tag, table))) for tag, table in files.words.items()}
    found = {tag: builder.locale(tag, locale) for tag, locale in files.locales.items()}
    # fast path: a name of a kind finds its mail at once, 0.3 us; held to the full path by tests/compose/test_catalog.py
    for mails in found.values():
        for kind in KINDS:
            for name in names_of(kind):
                mails.setdefault(name, mails[kind])
    return found


class ShippedMails(dict[str, CodeMail]):
    """The mails of a language by the shipped templates. Each is built when it is first asked for, in 0.3 ms.

    All of them together are 98, and took 25 ms of each start. No file of an operator is in them, so none can be wrong.
    """

    def __init__(self, build_kind: Callable[[str], CodeMail]) -> None:
        super().__init__()
        self._build_kind = build_kind

    def __missing__(self, purpose: str) -> CodeMail:
        kind = kind_of(purpose)
        mail = self.get(kind)
        if mail is None:
            mail = self._build_kind(kind)
            self.update(dict.fromkeys((kind, *names_of(kind)), mail))
        return mail

    def build_all(self) -> None:
        """Build those that are still missing."""
        for kind in ALL_KINDS:
            self[kind]


class _Builder:
    def __init__(self, files: Files, look: Look) -> None:
        self._shipped_words = files.words
        self._engine = Engine(files.sources)
        self._look = look

    def shipped(self, words: Words, kind: str) -> CodeMail:
        return self._jinja(SHIPPED_PARTS, kind, words, words.tag)

    def locale(self, tag: str, files: LocaleFiles) -> dict[str, CodeMail]:
        """Return the mails of a language by kind: from its own files, else the shipped ones with its words."""
        words = self._words_of(tag, files)
        if files.usual is not None:
            mails = {kind: self._part(files.usual, kind, words, tag) for kind in ALL_KINDS}
        elif words is not None:
            mails = {kind: self.shipped(words, kind) for kind in ALL_KINDS}
        else:
            where = "" if kind_of(tag) == NEUTRAL else f"; a purpose is a folder in that of a language, as en/{tag}"
            raise ValueError(
                f"{tag}: needs a mail for all purposes, or words.toml: there are no shipped words for it{where}"
            )
        for purpose, part in files.by_purpose.items():
            kind = kind_of(purpose)
            mails[purpose] = mail = self._part(part, kind, words, tag)
            if kind != NEUTRAL:
                mails[kind] = mail
        return mails

    def _words_of(self, tag: str, files: LocaleFiles) -> Words | None:
        """The words of a locale: those shipped for it or its language, with its own in their places."""
        shipped = next((self._shipped_words[one] for one in fallbacks(tag) if one in self._shipped_words), None)
        if files.words is None:
            return None if shipped is None else _words(tag, shipped)
        return _words(tag, _merged(shipped or {}, files.words), f"{tag}/words.toml")

    def _part(self, part: Part, kind: str, words: Words | None, tag: str) -> CodeMail:
        if isinstance(part, JinjaFiles):
            return self._jinja(part, kind, words, tag)
        return self._plain(part, tag)

    def _plain(self, part: PlainFiles, tag: str) -> CodeMail:
        template = part.template
        check_subject(f"{tag}: subject.txt", template.subject)
        text, html = template.text, template.html
        for name, body, shown in (("body.txt", text, text), ("body.html", html, shown_in(html or ""))):
            if body is not None and shown is not None:
                check_body(f"{tag}: {name}", body, shown, {"%(code)s"}, "$code")
        return CodeMail(self._bound(template), part.times)

    def _jinja(self, part: JinjaFiles, kind: str, words: Words | None, tag: str) -> CodeMail:
        paths = [path for path in (part.subject, part.text, part.html) if path]
        checked = [self._engine.check(path) for path in paths]
        fixed = self._fixed(kind, words, tag)
        live = LiveTemplate(self._engine, part, fixed, self._phrases(kind, words), self._look.domain)
        times: _Times = part.times or (ValidityWords() if words is None else words.times)
        if not all(checked):
            live.check()
            return CodeMail(live, times)
        marks = {name: mark(name) for name in VARYING}
        rendered = live.parts(marks, Marks({}))
        check_parts(part, rendered, {mark("code"), mark("spelled_code")})
        subject, text, html = (as_format(part) for part in rendered)
        template = MailTemplate(
            subject[0].strip(),
            text[0] if part.text else None,
            html[0] if part.html else None,
            frozenset({*subject[1], *text[1], *html[1]}),
            html[1],
        )
        return CodeMail(self._bound(template), times)

    def _fixed(self, kind: str, words: Words | None, tag: str) -> dict[str, object]:
        product = self._look.product
        name = product.name if words is None or not words.right_to_left else kept_together(product.name)
        return {
            "product_name": name,
            "product_url": product.url,
            "product_logo_url": product.logo_url,
            "product_color": product.accent,
            "product_text_color": product.on_accent,
            "has_color": bool(product.color),
            "support_address": product.support_address,
            **_around_address(product.support_address, self._phrases(kind, words).get("support", "")),
            "kind": kind,
            "lang": tag,
            "dir": "ltr" if words is None else words.direction,
            "shows_reference": self._look.shows_reference,
        }

    def _phrases(self, kind: str, words: Words | None) -> Mapping[str, str]:
        return {} if words is None else words.of(kind, with_product=bool(self._look.product.name))

    def _bound(self, template: MailTemplate) -> MailTemplate:
        """Let the text end with the domain that may use the code, for browsers that fill it in."""
        if not self._look.domain or template.text is None:
            return template
        text = f"{template.text.rstrip()}\n\n{_binding(self._look.domain).replace('%', '%%')}%({BARE})s\n"
        names = template.names | {BARE}
        return MailTemplate(template.subject, text, template.html, names, template.escaped)


@frozen()
class LiveTemplate:
    """A template of Jinja2 that each mail renders, since more than its printed values differ."""

    engine: Engine
    files: JinjaFiles
    fixed: Mapping[str, object]
    phrases: Mapping[str, str]
    domain: str

    def check(self) -> None:
        """Raise ValueError, with file and line, for a template that fails or does not show the code."""
        sample = {**dict.fromkeys(VARYING, "1"), "code": _SAMPLE, "spelled_code": " ".join(_SAMPLE)}
        check_parts(self.files, self.parts(sample, _Anything({})), {_SAMPLE, " ".join(_SAMPLE)})

    def render(self, values: Mapping[str, str]) -> Rendered:
        """Fill in the template. Raises ValueError, for the caller whose variables make it fail, without any value."""
        given = {name: values[SPELLED if name == "spelled_code" else name] for name in VARYING}
        try:
            subject, text, html = self.parts(given, Space(values))
        except RenderError as error:
            raise ValueError(error.missing or f"fails at {error.place}") from None
        if self.domain and text:
            text = f"{text.rstrip()}\n\n{_binding(self.domain)}{values[BARE]}\n"
        return Rendered(one_line(subject, self.files.subject), text, html)

    def parts(self, varying: Mapping[str, str], variables: Space) -> tuple[str, str, str]:
        """Return subject, text and HTML, each empty where the template has none."""
        everything: dict[str, object] = {**self.fixed, **varying, "variables": variables}
        in_phrases = {hole: str(everything[name]) for hole, name in _IN_PHRASES.items()}
        everything["words"] = Space({name: fill(phrase, in_phrases) for name, phrase in self.phrases.items()})
        render, files = self.engine.render, self.files
        return (
            render(files.subject, everything),
            render(files.text, everything) if files.text else "",
            render(files.html, everything) if files.html else "",
        )


class _Anything(Space):
    """A value for any variable, to try a template."""

    __slots__ = ()

    def __contains__(self, name: object) -> bool:
        return True

    def __getitem__(self, name: str) -> str:
        return "1"


def _around_address(address: str, phrase: str) -> dict[str, str]:
    """Return the link to an address, and what stands before and behind it; no link where a phrase lacks its hole."""
    before, hole, after = phrase.partition("{support}")
    is_linked = address and hole and "{" not in before + after
    link = f"mailto:{quote(address, safe='@')}" if is_linked else ""  # RFC 6068
    return {"support_link": link, "support_before": before, "support_after": after}


def _binding(domain: str) -> str:
    """How the last line binds a code to a domain, before the code (WICG, origin-bound one-time codes)."""
    return f"@{domain} #"


def _words(tag: str, table: Mapping[str, Any], path: str = "") -> Words:
    try:
        return read_words(tag, table)
    except ValueError as error:
        raise ValueError(f"{path or f'{tag}.toml'}: {error}") from None


def _merged(shipped: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The words of a language with others in their places."""
    merged = dict(shipped)
    for name, value in own.items():
        before = merged.get(name)
        merged[name] = {**before, **value} if isinstance(before, dict) and isinstance(value, dict) else value
    return merged
