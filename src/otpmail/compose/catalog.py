"""The mails of codes: which template a mail has, by the locale of its reader and the purpose of its code."""

from collections.abc import Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Self

from otpmail.compose.building import CodeMail, Look, ShippedMails, build
from otpmail.compose.folders import read_files
from otpmail.compose.locales import fallbacks, tag_of
from otpmail.compose.purposes import kind_of
from otpmail.compose.shown_code import BARE, SPELLED, code_values
from otpmail.compose.slips import slips
from otpmail.compose.templates import Rendered
from otpmail.errors import InvalidArgument, SettingsError
from otpmail.product import Product
from otpmail.settings import OtpSettings, quoted

SHIPPED = resources.files("otpmail").joinpath("templates", "code")


class Templates:
    """The templates of the mails with codes: those of a folder, else the shipped ones.

    Those of a folder, and of the default language, are compiled when it is made. Raises SettingsError for one that
    can't be used.
    """

    def __init__(self, folder: Traversable | None, *, default_locale: str, look: Look | None = None) -> None:
        self.look, self.folder, self.default_locale = look or Look(), folder, default_locale
        try:
            self.files = read_files(folder, SHIPPED)
            self.by_locale = build(self.files, self.look)
        except ValueError as error:
            raise SettingsError(f"OTP_TEMPLATES_DIR: {error}") from None
        found = self._find(tag_of(default_locale))
        if found is None:
            known = ", ".join(sorted(self.by_locale)) or "none"
            raise SettingsError(f"OTP_LOCALE: there is no template for {quoted(default_locale)}; there are: {known}")
        self._default = found
        self.slips = tuple(slips(self.files, default_locale))
        """The names in the folder that are probably misspelt, in words that open with a path."""
        if isinstance(found, ShippedMails):
            found.build_all()

    @classmethod
    def load(cls, settings: OtpSettings, product: Product | None = None) -> Self:
        """Load OTP_TEMPLATES_DIR, else the shipped templates. Raises SettingsError naming the one that is wrong."""
        look = Look(product or Product(), settings.show_reference, settings.domain)
        return cls(settings.templates_dir, default_locale=settings.locale, look=look)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Templates):
            return NotImplemented
        return (self.files, self.look, self.default_locale) == (other.files, other.look, other.default_locale)

    def __hash__(self) -> int:
        return hash(frozenset(self.by_locale))

    def __repr__(self) -> str:
        return f"<Templates {', '.join(sorted(self.by_locale))}>"

    def render(self, locale: str, purpose: str, values: Mapping[str, str], *, valid_seconds: float) -> Rendered:
        """Render the mail in `locale`, else in its language, else in the default (BCP 47 lookup, RFC 4647, 3.4).

        `valid_seconds` is how long the code is still valid. Raises InvalidArgument naming `variables` when the template
        needs one that is missing.
        """
        mails = self._default
        if locale:
            # A language has no mail before its first one, so its truth says nothing.
            found: Mapping[str, CodeMail] | None = self.by_locale.get(locale)
            if found is None:
                found = self._find(tag_of(locale))
            mails = mails if found is None else found
        mail = mails.get(purpose) or mails[kind_of(purpose)]
        code = values["code"]
        # fast path: most codes are numbers, a call less; held to the full path by tests/compose/test_shown_code.py
        forms = {BARE: code, SPELLED: " ".join(code)} if code.isdecimal() else code_values(code)
        try:
            return mail.template.render({**values, **forms, **mail.times.values(valid_seconds)})
        except KeyError as error:
            raise InvalidArgument("variables", f"the template needs {error.args[0]!r}") from None
        except ValueError as error:
            raise InvalidArgument("variables", f"can't be filled into the template: {error}") from None

    def build_all(self) -> None:
        """Build all mails, also of languages that nobody has asked for yet."""
        for mails in self.by_locale.values():
            if isinstance(mails, ShippedMails):
                mails.build_all()

    def _find(self, tag: str) -> Mapping[str, CodeMail] | None:
        return next((found for one in fallbacks(tag) if (found := self.by_locale.get(one)) is not None), None)
