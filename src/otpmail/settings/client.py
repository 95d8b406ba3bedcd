"""How the commands reach a service that asks who calls, or speaks TLS. The service itself reads none of it."""

from collections.abc import Iterator
from pathlib import Path

from pydantic import SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from otpmail.errors import SettingsError
from otpmail.settings.certificates import check_client_files
from otpmail.settings.problems import Problem
from otpmail.settings.section import Section, broken_rule, readable_file


class ClientSettings(Section):
    """The token to show a service, the authorities to trust for its certificate, and a certificate to show it."""

    model_config = SettingsConfigDict(env_prefix="OTPMAIL_")

    token: SecretStr = SecretStr("")
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    tls_name: str = ""

    @field_validator("token")
    @classmethod
    def _as_metadata(cls, value: SecretStr) -> SecretStr:
        text = value.get_secret_value()
        if not (text.isascii() and text.isprintable()) or " " in text:
            raise broken_rule("holds blanks or characters that no token has")
        return value

    _readable = field_validator("ca_file", "cert_file", "key_file")(readable_file)

    def conflicts(self) -> Iterator[Problem]:
        """Yield a problem for each setting that has no effect without another, and one for files that TLS can't use."""
        others = (("OTPMAIL_CERT_FILE", self.cert_file), ("OTPMAIL_TLS_NAME", self.tls_name))
        for name, value in others:
            if value and self.ca_file is None:
                yield Problem(
                    f"{name}: is set, and OTPMAIL_CA_FILE is not, so TLS is not used", (name, "OTPMAIL_CA_FILE")
                )
        if self.key_file is not None and self.cert_file is None:
            yield Problem(
                "OTPMAIL_KEY_FILE: is set, and OTPMAIL_CERT_FILE is not", ("OTPMAIL_KEY_FILE", "OTPMAIL_CERT_FILE")
            )
        if self.ca_file is not None:
            try:
                check_client_files(self.ca_file, self.cert_file, self.key_file)
            except SettingsError as error:
                yield Problem(error.problems[0], ("OTPMAIL_CA_FILE", "OTPMAIL_CERT_FILE", "OTPMAIL_KEY_FILE"))
