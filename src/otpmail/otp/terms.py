"""The terms of codes by caller and purpose: what a profile of CALLERS_FILE says, else the settings.

They are made once, when the file is read. A call finds its own by the names of its caller and its purpose.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import field, replace
from pathlib import Path
from types import MappingProxyType

from otpmail.address import Address
from otpmail.callers import ANONYMOUS, ANY_PURPOSE, Caller, FixedCode, Profile, TableKey, head_of
from otpmail.compose.catalog import Templates
from otpmail.errors import PermissionDenied, SettingsError
from otpmail.limits.rules import Windows
from otpmail.otp.policy import Policy
from otpmail.product import Product
from otpmail.settings import OtpSettings
from otpmail.settings.profiles import ProfileRules
from otpmail.values import frozen

_LIMITS = ("attempts", "failures_per_hour", "failures_per_day", "sends_per_hour", "sends_per_day", "resend")

TermsOfCallers = Mapping[str, Mapping[str, "Terms"]]
"""Terms by caller, then by purpose."""


@frozen(kw_only=True)
class Terms:
    """The terms of a code. None, and 0 attempts, leave a term to the store's rules, and to the service's templates.

    `lifespan` and `compat_lifespan`, for the original's contract, are in seconds. `wait` is as in `Policy`.
    """

    length: int
    lifespan: float
    compat_lifespan: float
    attempts: int = 0
    rules: Policy | None = None
    wait: float = 0.0
    sender: Address | None = None
    templates: Templates | None = None
    folder: Path | None = None
    """Where the templates are, if the profile names a folder."""
    relay: str = ""
    test_addresses: Mapping[str, FixedCode] | None = field(default=None, repr=False)
    fixed_rules: Policy | None = None
    """The rules of test addresses: no mail could bring them a longer code when they are under attack."""

    def named(self, limit: str) -> TableKey | None:
        """Return the key of CALLERS_FILE that sets a limit by its name in scripts, None for a setting."""
        return None if self.rules is None else self.rules.table_keys.get(limit)


class Profiles:
    """The terms of all callers. `usual` are those of a caller without profiles, `relays` the names of all relays."""

    def __init__(
        self, settings: OtpSettings, relays: Collection[str] | None = None, templates: Templates | None = None
    ) -> None:
        self._settings = settings
        self.templates = templates or Templates.load(settings)
        """Those of codes without a profile. A profile has their product and folder where it names none of its own."""
        self._by_caller: TermsOfCallers = {}
        self.usual = self._terms(Profile(), Policy.of(settings), None)
        self.rules = ProfileRules(settings, self._read_templates, relays)
        """The checks of profiles in CALLERS_FILE."""
        self.folders = set[Path]()
        """The folders of templates that were read since this was last emptied."""
        self._known_slips = frozenset[tuple[str, str]]()

    def __repr__(self) -> str:
        return f"<Profiles of {len(self._by_caller)} callers>"

    def of(self, caller: Caller, purpose: str) -> Terms:
        """Return the terms of a caller with profiles for a purpose. Raises PermissionDenied where it has none."""
        by_purpose = self._by_caller.get(caller.name)
        if by_purpose is None:  # the file has changed since the call began
            return self.usual
        terms = by_purpose.get(purpose) or by_purpose.get(ANY_PURPOSE)
        if terms is None:
            raise PermissionDenied(
                f"purpose: {caller.name} has no profile for {purpose!r}; add one to `profiles` in {caller.place}, or "
                f'"{ANY_PURPOSE}" for any purpose'
            )
        return terms

    def read(self, callers: Iterable[Caller]) -> TermsOfCallers:
        """Return the terms of these callers, to be in force after `renew`. Reads templates, so it runs in a thread.

        Raises SettingsError.
        """
        policy = Policy.of(self._settings)
        return {
            caller.name: {
                purpose: self._terms(profile, policy, self._templates_of(profile), _keys_of(profile, caller, purpose))
                for purpose, profile in caller.may.profiles.items()
            }
            for caller in callers
            if caller.may.profiles is not None
        }

    def renew(self, terms: TermsOfCallers) -> None:
        """Use these terms from the next call on."""
        self._by_caller = terms

    def new_slips(self) -> tuple[tuple[str, str], ...]:
        """Return the names in folders of templates that are probably misspelt, except those of the last time.

        Each is a setting, and words that open with it.
        """
        found = dict.fromkeys(self._slips())
        known, self._known_slips = self._known_slips, frozenset(found)
        return tuple([slip for slip in found if slip not in known])

    def _slips(self) -> Iterator[tuple[str, str]]:
        usual = self.templates
        for words in usual.slips:
            yield "OTP_TEMPLATES_DIR", f"OTP_TEMPLATES_DIR: {words}"
        every = [terms for by_purpose in self._by_caller.values() for terms in by_purpose.values()]
        for folder, templates in {terms.folder: terms.templates for terms in every}.items():
            if folder is not None and templates is not None and folder != usual.folder:
                for words in templates.slips:
                    yield "CALLERS_FILE", f"CALLERS_FILE: {folder}/{words}"

    def _terms(
        self,
        profile: Profile,
        policy: Policy,
        templates: Templates | None,
        keys: Mapping[str, TableKey] = MappingProxyType({}),
    ) -> Terms:
        settings = self._settings
        rules = _rules_of(profile, policy, keys)
        return Terms(
            length=profile.length or settings.digits,
            lifespan=profile.lifespan or settings.lifespan(compat=False),
            compat_lifespan=profile.lifespan or settings.lifespan(compat=True),
            attempts=profile.attempts or 0,
            rules=None if rules == policy else rules,
            wait=rules.wait,
            sender=profile.sender,
            templates=templates,
            folder=profile.templates,
            relay=profile.relay,
            test_addresses=profile.test_addresses or None,
            fixed_rules=replace(rules, locks=True) if profile.test_addresses else None,
        )

    def _templates_of(self, profile: Profile) -> Templates | None:
        if profile.templates is None and profile.product is None:
            return None
        try:
            return self._read_templates(profile.templates, profile.product)
        except ValueError as error:
            raise SettingsError(f"CALLERS_FILE: {profile.templates or 'a product'}: {error}") from None

    def _read_templates(self, folder: Path | None, product: Product | None = None) -> Templates:
        """Read the templates of a profile, else those of the settings in force. Raises ValueError."""
        if folder is not None:
            self.folders.add(folder)
        usual = self.templates
        look = replace(usual.look, product=(product or Product()).or_else(usual.look.product))
        try:
            return Templates(folder or usual.folder, default_locale=usual.default_locale, look=look)
        except SettingsError as error:
            raise ValueError(error.problems[0].partition(": ")[2]) from None


def _keys_of(profile: Profile, caller: Caller, purpose: str) -> Mapping[str, TableKey]:
    """Return the limits that a profile sets, by their names, with the keys that do so."""
    table = ("anonymous",) if caller.name == ANONYMOUS.name else ("callers", caller.name)
    place = f"{head_of(*table, 'profiles', purpose)} of CALLERS_FILE"
    given = [key for key in _LIMITS if getattr(profile, key) is not None]
    return {key: TableKey(f"profiles.{purpose}.{key}", place) for key in given}


def _rules_of(profile: Profile, policy: Policy, keys: Mapping[str, TableKey]) -> Policy:
    """Return the rules of a profile. Its limits are stricter ones on logs that all purposes share."""
    failures, sends = policy.failures, policy.sends
    return Policy(
        policy.attempts,
        Windows(
            profile.failures_per_hour or failures.per_hour,
            profile.failures_per_day or failures.per_day,
            failures.most,
        ),
        Windows(profile.sends_per_hour or sends.per_hour, profile.sends_per_day or sends.per_day, sends.most),
        policy.resend,
        policy.locks,
        policy.digits,
        policy.shadows,
        0.0 if profile.resend is None else profile.resend - policy.resend,
        keys,
    )
