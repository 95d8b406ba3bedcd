"""The mails that carry codes: which locale is taken, and how values are filled in."""

from pathlib import Path
from string import Template

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otpmail.compose.templates import SHIPPED, MailTemplate, Templates, _compiled
from otpmail.errors import InvalidArgument, SettingsError

VALUES = {"code": "271828", "reference": "K7QD", "minutes": "2", "email": "ada@example.org"}


def _write(folder: Path, locale: str, *, subject: str = "$code", text: str = "$code", html: str | None = None) -> None:
    (folder / locale).mkdir()
    (folder / locale / "subject.txt").write_text(subject, "utf-8")
    (folder / locale / "body.txt").write_text(text, "utf-8")
    if html is not None:
        (folder / locale / "body.html").write_text(html, "utf-8")


@pytest.mark.parametrize("locale", ["en", "de", "fr", "es"])
def test_each_shipped_mail_says_what_it_must(locale: str) -> None:
    """Code, time left and reference stand in both parts; the code also in the subject, where a phone shows it."""
    mail = Templates(SHIPPED, default_locale="en").render(locale, VALUES)
    assert "271828" in mail.subject
    assert "\n" not in mail.subject
    for part in (mail.text, mail.html):
        assert all(VALUES[name] in part for name in ("code", "reference", "minutes"))
        assert "$" not in part
    assert f'lang="{locale}"' in mail.html


@pytest.mark.parametrize(
    ("asked", "subject"),
    [
        ("de", "de"),
        ("DE", "de"),
        ("de-AT", "de"),
        ("de_AT_1996", "de"),
        ("pt-BR", "pt-br"),
        ("pt_BR", "pt-br"),
        ("pt-BR-x-a", "pt-br"),
        ("pt", "en"),
        ("pt-PT", "en"),
        ("xx", "en"),
        ("", "en"),
    ],
)
@pytest.mark.parametrize("folder", ["pt-BR", "pt_BR"])
def test_the_nearest_locale_is_taken(tmp_path: Path, asked: str, subject: str, folder: str) -> None:
    """The tag itself, then the tag cut from its end, then the default (RFC 4647, 3.4); case and - or _ don't matter."""
    for locale in ("en", "de"):
        _write(tmp_path, locale, subject=locale)
    _write(tmp_path, folder, subject="pt-br")
    assert Templates(tmp_path, default_locale="en").render(asked, VALUES).subject == subject


@pytest.mark.parametrize("default", ["pt-BR", "pt_BR", "PT-br"])
def test_the_default_may_be_spelt_as_a_request_may(tmp_path: Path, default: str) -> None:
    """OTP_LOCALE is read by the same rule."""
    _write(tmp_path, "pt-BR", subject="pt-br")
    assert Templates(tmp_path, default_locale=default).render("", VALUES).subject == "pt-br"


def test_values_are_text(tmp_path: Path) -> None:
    """A value is escaped in HTML, left alone in text, and never read as a template again."""
    _write(tmp_path, "en", subject="$name", text="${name} $$5", html="<p title='$name'>$name $$5</p>")
    mail = Templates(tmp_path, default_locale="en").render("en", {"name": "<b>\"'&$code"})
    assert mail.subject == "<b>\"'&$code"
    assert mail.text == "<b>\"'&$code $5"
    assert mail.html == "<p title='&lt;b&gt;&quot;&#x27;&amp;$code'>&lt;b&gt;&quot;&#x27;&amp;$code $5</p>"


def test_without_html_there_is_none(tmp_path: Path) -> None:
    """body.html may be left out."""
    _write(tmp_path, "en")
    assert Templates(tmp_path, default_locale="en").render("en", VALUES).html == ""


def test_a_variable_that_was_not_given_is_named(tmp_path: Path) -> None:
    """InvalidArgument for `variables`, with the name that the template needs."""
    _write(tmp_path, "en", text="$shop")
    with pytest.raises(InvalidArgument, match="'shop'") as caught:
        Templates(tmp_path, default_locale="en").render("en", VALUES)
    assert caught.value.field == "variables"


@pytest.mark.parametrize(
    ("text", "said"),
    [("costs $5", r"\$"), ("${code", r"\$"), ("100 $", r"\$")],
)
def test_a_dollar_that_opens_no_name_stops_the_start(tmp_path: Path, text: str, said: str) -> None:
    """A template that could not be filled in is found at the start, named by its locale."""
    _write(tmp_path, "en", text=text)
    with pytest.raises(SettingsError, match=f"^OTP_TEMPLATES_DIR: en: .*{said}"):
        Templates(tmp_path, default_locale="en")


def test_a_locale_without_its_files_stops_the_start(tmp_path: Path) -> None:
    """A folder that lacks a part is named."""
    _write(tmp_path, "en")
    (tmp_path / "en" / "body.txt").unlink()
    with pytest.raises(SettingsError, match=r"^OTP_TEMPLATES_DIR: en: .*body\.txt"):
        Templates(tmp_path, default_locale="en")


@given(
    st.lists(st.sampled_from(["$a", "${b}", "$$", "%", "%s", "%(a)s", "%%", "{", "}", "a", "\n", "ü"])).map(" ".join)
)
def test_filled_in_as_by_the_standard_library(text: str) -> None:
    """A template is compiled into another form; what comes of it is what string.Template makes of it."""
    values = {"a": "1 %s $b", "b": "%"}
    assert _compiled(text) % values == Template(text).substitute(values)


def test_text_or_html_is_enough(tmp_path: Path) -> None:
    """A folder may have either body alone, and knows what is to be filled in."""
    _write(tmp_path, "en", subject="$a", html="${b} $a $$c")
    (tmp_path / "en" / "body.txt").unlink()
    template = MailTemplate.read(tmp_path / "en")
    assert template.names == {"a", "b"}
    rendered = template.render({"a": "<", "b": "2"})
    assert (rendered.subject, rendered.text, rendered.html) == ("<", "", "2 &lt; $c")


def test_a_file_that_is_not_utf8_stops_the_start(tmp_path: Path) -> None:
    """One line that names the locale."""
    _write(tmp_path, "en")
    (tmp_path / "en" / "subject.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match=r"^OTP_TEMPLATES_DIR: en: "):
        Templates(tmp_path, default_locale="en")


@pytest.mark.parametrize("empty", [True, False])
def test_a_default_that_is_not_there_stops_the_start(tmp_path: Path, empty: bool) -> None:  # noqa: FBT001
    """OTP_LOCALE must be one of those that there are, which are listed."""
    if not empty:
        _write(tmp_path, "en")
    with pytest.raises(SettingsError, match=rf"^OTP_LOCALE: .*'tlh'.*{'none' if empty else 'en'}"):
        Templates(tmp_path, default_locale="tlh")


def test_what_is_no_locale_is_passed_over(tmp_path: Path) -> None:
    """Files, hidden folders and caches beside the locales are no templates."""
    _write(tmp_path, "en")
    (tmp_path / "README.md").write_text("about these", "utf-8")
    for name in (".git", "__pycache__"):
        (tmp_path / name).mkdir()
    assert repr(Templates(tmp_path, default_locale="en")) == "<Templates en>"


def test_a_filled_in_mail_is_in_no_repr() -> None:
    """It holds the code."""
    assert "271828" not in repr(Templates(SHIPPED, default_locale="en").render("en", VALUES))
