"""Templates: the locale that is chosen, and how values are filled in."""

from html import escape
from pathlib import Path
from string import Template

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otpmail.compose.catalog import Templates
from otpmail.compose.templates import MailTemplate, _compiled
from otpmail.errors import InvalidArgument, SettingsError

VALUES = {"code": "271828", "reference": "K7QD", "email": "ada@example.org"}


def _write(folder: Path, locale: str, *, subject: str = "$code", text: str = "$code", html: str | None = None) -> None:
    (folder / locale).mkdir()
    (folder / locale / "subject.txt").write_text(subject, "utf-8")
    (folder / locale / "body.txt").write_text(text, "utf-8")
    if html is not None:
        (folder / locale / "body.html").write_text(html, "utf-8")


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
def test_the_nearest_locale_is_chosen(tmp_path: Path, asked: str, subject: str, folder: str) -> None:
    """Lookup tries the tag, then shorter tags, then the default (RFC 4647, 3.4), in any case, with - or _."""
    for locale in ("en", "de"):
        _write(tmp_path, locale, subject=locale)
    _write(tmp_path, folder, subject="pt-br")
    assert (
        Templates(tmp_path, default_locale="en").render(asked, "login", VALUES, valid_seconds=600.0).subject == subject
    )


@pytest.mark.parametrize("default", ["pt-BR", "pt_BR", "PT-br"])
def test_the_default_locale_in_any_spelling(tmp_path: Path, default: str) -> None:
    """OTP_LOCALE is read as a request's locale is."""
    _write(tmp_path, "pt-BR", subject="pt-br")
    assert (
        Templates(tmp_path, default_locale=default).render("", "login", VALUES, valid_seconds=600.0).subject == "pt-br"
    )


def test_values_are_text(tmp_path: Path) -> None:
    """A value is escaped in HTML, left alone in text, and never read as a template again."""
    _write(tmp_path, "en", subject="$name", text="${name} $$5 $code", html="<p title='$name'>$name $$5</p>$code")
    mail = Templates(tmp_path, default_locale="en").render(
        "en", "login", {**VALUES, "name": "<b>\"'&$code"}, valid_seconds=600.0
    )
    assert mail.subject == "<b>\"'&$code"
    assert mail.text == "<b>\"'&$code $5 271828"
    assert mail.html == "<p title='&lt;b&gt;&quot;&#x27;&amp;$code'>&lt;b&gt;&quot;&#x27;&amp;$code $5</p>271828"


def test_a_template_may_have_minutes_alone(tmp_path: Path) -> None:
    """A template without words for it has the time by symbols, and one with `$minutes` whole minutes, at least one."""
    _write(tmp_path, "en", subject="s", text="$code $valid_for, $minutes min")
    templates = Templates(tmp_path, default_locale="en")
    for seconds, text in (
        (600.0, "10 min, 10 min"),
        (110.0, "110 s, 1 min"),
        (119.0, "2 min, 2 min"),
        (30.0, "30 s, 1 min"),
    ):
        assert templates.render("en", "login", VALUES, valid_seconds=seconds).text == f"271828 {text}"


def test_words_that_can_not_be_read_are_a_settings_error(tmp_path: Path) -> None:
    """A file with other lines than the three forms is named by its locale."""
    _write(tmp_path, "en")
    (tmp_path / "en" / "valid_for.txt").write_text("minutes: $n minutes", "utf-8")
    with pytest.raises(SettingsError, match=r"^OTP_TEMPLATES_DIR: en: valid_for\.txt must have three lines"):
        Templates(tmp_path, default_locale="en")


def test_a_template_without_html(tmp_path: Path) -> None:
    """A template without body.html makes a mail of text alone."""
    _write(tmp_path, "en")
    assert Templates(tmp_path, default_locale="en").render("en", "login", VALUES, valid_seconds=600.0).html == ""


def test_a_missing_variable_is_named(tmp_path: Path) -> None:
    """A value that the template needs and that is missing is InvalidArgument for `variables`, with its name."""
    _write(tmp_path, "en", text="$code $shop")
    with pytest.raises(InvalidArgument, match="'shop'") as caught:
        Templates(tmp_path, default_locale="en").render("en", "login", VALUES, valid_seconds=600.0)
    assert caught.value.field == "variables"


@pytest.mark.parametrize(("text", "line"), [("costs $5", 1), ("a\n${code", 2), ("\n$code\n100 $\n", 3)])
def test_a_dollar_that_begins_no_name_is_a_settings_error(tmp_path: Path, text: str, line: int) -> None:
    """A template that could not be rendered is found at the start and named by its locale, file and line."""
    _write(tmp_path, "en", text=text)
    with pytest.raises(SettingsError, match=rf"^OTP_TEMPLATES_DIR: en: body\.txt:{line}: has a \$ that"):
        Templates(tmp_path, default_locale="en")


@pytest.mark.parametrize("part", ["body.txt", "body.html"])
def test_a_body_without_the_code_is_a_settings_error(tmp_path: Path, part: str) -> None:
    """A body that does not show the code is named at the start."""
    _write(tmp_path, "en", html="$code")
    (tmp_path / "en" / part).write_text("Hello")
    with pytest.raises(SettingsError, match=rf"^OTP_TEMPLATES_DIR: en: {part}: has no \$code$"):
        Templates(tmp_path, default_locale="en")


def test_a_locale_without_its_files_is_a_settings_error(tmp_path: Path) -> None:
    """A folder without any body is named at the start."""
    _write(tmp_path, "en")
    (tmp_path / "en" / "body.txt").unlink()
    with pytest.raises(SettingsError, match=r"^OTP_TEMPLATES_DIR: en: .*body\.txt"):
        Templates(tmp_path, default_locale="en")


@given(
    st.lists(st.sampled_from(["$a", "${b}", "$$", "%", "%s", "%(a)s", "%%", "{", "}", "a", "\n", "ü"])).map(" ".join)
)
def test_values_are_filled_in_as_by_the_standard_library(text: str) -> None:
    """A compiled template renders as string.Template does."""
    values = {"a": "1 %s $b", "b": "%"}
    form = _compiled(text)
    assert form % values == Template(text).substitute(values)
    names = tuple(Template(text).get_identifiers())
    in_html = form % {name: escape(value) for name, value in values.items()}
    assert MailTemplate("", None, form, frozenset(names), names).render(values).html == in_html


def test_text_or_html_is_enough(tmp_path: Path) -> None:
    """A template may have either body alone, and knows the names of its values."""
    _write(tmp_path, "en", subject="$a", html="${b} $a $$c")
    (tmp_path / "en" / "body.txt").unlink()
    template = MailTemplate.read(tmp_path / "en")
    assert template.names == {"a", "b"}
    rendered = template.render({"a": "<", "b": "2"})
    assert (rendered.subject, rendered.text, rendered.html) == ("<", "", "2 &lt; $c")


@pytest.mark.parametrize("name", ["subject.txt", "body.txt", "body.html", "valid_for.txt"])
def test_a_file_that_can_not_be_read_is_a_settings_error(tmp_path: Path, name: str) -> None:
    """A file that is not UTF-8, or is a directory, is named with its locale, in words."""
    _write(tmp_path, "en")
    file = tmp_path / "en" / name
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match=rf"^OTP_TEMPLATES_DIR: en: {name}:1: is not text in UTF-8$"):
        Templates(tmp_path, default_locale="en")
    file.unlink()
    file.mkdir()
    with pytest.raises(SettingsError, match=rf"^OTP_TEMPLATES_DIR: en: {name}: is not a file$"):
        Templates(tmp_path, default_locale="en")


def test_a_template_without_a_subject_is_a_settings_error(tmp_path: Path) -> None:
    """A subject that is missing is named; a byte order mark, as editors of Windows write it, is no part of one."""
    _write(tmp_path, "en")
    subject = tmp_path / "en" / "subject.txt"
    subject.write_text("Hi", "utf-8-sig")
    assert MailTemplate.read(tmp_path / "en").subject == "Hi"
    subject.unlink()
    with pytest.raises(SettingsError, match=r"^OTP_TEMPLATES_DIR: en: subject\.txt is missing$"):
        Templates(tmp_path, default_locale="en")


@pytest.mark.parametrize("empty", [True, False])
def test_a_default_without_a_template_is_a_settings_error(tmp_path: Path, empty: bool) -> None:  # noqa: FBT001
    """OTP_LOCALE must name a locale of the directory; the error lists them."""
    if not empty:
        _write(tmp_path, "en")
    with pytest.raises(SettingsError, match=rf"^OTP_LOCALE: .*'tlh'.*{'none' if empty else 'en'}"):
        Templates(tmp_path, default_locale="tlh")


def test_other_entries_are_ignored(tmp_path: Path) -> None:
    """Files, hidden folders and caches beside the locales are not read as templates."""
    _write(tmp_path, "en")
    (tmp_path / "README.md").write_text("about these", "utf-8")
    for name in (".git", "__pycache__"):
        (tmp_path / name).mkdir()
    assert repr(Templates(tmp_path, default_locale="en")) == "<Templates en>"


def test_a_rendered_mail_is_in_no_repr() -> None:
    """A rendered mail holds the code, so its repr is empty."""
    assert "271828" not in repr(Templates(None, default_locale="en").render("en", "login", VALUES, valid_seconds=600.0))
