"""Changes of CALLERS_FILE by the commands: tables and tokens are added, and all else stays."""

import re
import subprocess
import threading
from pathlib import Path

import pytest

from otpmail.cli.callers_file import add_token, append_table
from otpmail.errors import SettingsError
from otpmail.settings.callers import read_callers

METHODS = ("/otpmail.v1.OtpService/SendCode",)
A, B = "a" * 64, "b" * 64

_WRITTEN = f"""# ours
[callers.shop]   # the shop
tokens = [
  # made in May
  "{A}",
]
methods = ["SendCode"]  # only codes

[callers."old.one"]
sans = ["old.example"]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file that a person has written, which the group may read."""
    file = tmp_path / "callers.toml"
    file.write_text(_WRITTEN)
    file.chmod(0o640)
    return file


def _problem(change: object) -> str:
    assert callable(change)
    with pytest.raises(SettingsError) as caught:
        change()
    return str(caught.value)


def test_a_new_file(tmp_path: Path) -> None:
    """A file that is not there is made, for its owner alone."""
    file = tmp_path / "callers.toml"
    subject = 'CN=\\"a\\" \\, b,O=B\\C3\\BCcher'
    append_table(
        file, "shop", {"tokens": [A], "subjects": [subject], "from": ["ö@example.org"], "methods": []}, METHODS
    )
    (entry,) = read_callers(file, METHODS).entries
    assert entry.certificates == (f"subject:{subject}",)
    assert entry.caller.may.senders == frozenset({"ö@example.org"})
    assert entry.caller.may.methods is None
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_table_is_added(file: Path) -> None:
    """A table comes to the end; comments, the mode, and a link to the file stay."""
    link = file.with_name("link.toml")
    link.symlink_to(file)
    append_table(link, "news", {"tokens": [B]}, METHODS)
    assert file.read_text() == f'{_WRITTEN}\n[callers.news]\ntokens = ["{B}"]\n'
    assert file.stat().st_mode & 0o777 == 0o640
    assert link.is_symlink()
    assert sorted(path.name for path in file.parent.iterdir()) == ["callers.toml", "link.toml"]


@pytest.mark.parametrize("before", ["# ours\n", " \n\n", "\ufeff", "[callers]\n", "# ours"])
def test_a_file_that_names_nobody_yet(file: Path, before: str) -> None:
    """A file of comments, as one that was emptied, takes a first table."""
    file.write_text(before)
    assert "there is no caller news; `otpmail caller add news`" in _problem(lambda: add_token(file, "news", B, METHODS))
    append_table(file, "news", {"tokens": [B]}, METHODS)
    assert [entry.caller.name for entry in read_callers(file, METHODS).entries] == ["news"]
    assert file.read_text().startswith(before.removeprefix("\ufeff"))


def test_a_link_to_itself(tmp_path: Path) -> None:
    """A link that leads to itself is no file, and is not replaced by one."""
    file = tmp_path / "callers.toml"
    file.symlink_to(file.name)
    for change in (lambda: append_table(file, "news", {"tokens": [B]}, METHODS), lambda: add_token(file, "a", B, ())):
        assert "can't be read: Too many levels of symbolic links" in _problem(change)
    assert file.is_symlink()


def test_a_file_without_a_last_line_end(file: Path) -> None:
    """A table that follows an unfinished line begins one of its own."""
    file.write_text(_WRITTEN.rstrip("\n"))
    append_table(file, "news", {"tokens": [B]}, METHODS)
    assert len(read_callers(file, METHODS).entries) == 3


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("shop", {"tokens": [B]}, "shop is there already; `otpmail caller rotate shop` gives it another token"),
        ("news", {"tokens": [A]}, "tokens: is a token that [callers.shop] has too"),
        ("news", {"methods": ["SendCod"]}, "--methods: 'SendCod' is no method or service; did you mean SendCode?"),
        ("news", {"from": ["a b"]}, "--from: 'a b' is neither an address nor an @ with a domain"),
        ("news", {"return_paths": [""]}, "--return-paths: '' is neither an address nor an @ with a domain"),
        ("news", {"priorities": ["slow"]}, "--priorities: 'slow' is no priority; there are urgent, normal, bulk"),
        ("news", {"sans": ["a b"]}, "--san: 'a b' is no name in a certificate"),
        ("news", {"sans": ["old.example"]}, "--san: is the 'dns:old.example' that [callers.\"old.one\"] has too"),
        ("news", {"subjects": ["CN=a\x7f"]}, "--subject: 'CN=a\\x7f' is no subject of a certificate"),
        ("a b", {}, "NAME: 'a b' is no name of a caller; use 1 to 64 letters"),
        ("anonymous", {}, "NAME: 'anonymous' is the name of callers without a token"),
        ('x"]\n[callers.evil', {}, "NAME: 'x\"]\\n[callers.evil' is no name of a caller"),
    ],
)
def test_a_table_that_can_not_be_added(file: Path, name: str, values: dict[str, list[str]], words: str) -> None:
    """A table that the service would refuse leaves the file as it was; the error opens with the option, not a line."""
    problem = _problem(lambda: append_table(file, name, {"tokens": [B]} | values, METHODS))
    assert problem.removeprefix(f"CALLERS_FILE: {file}: ").startswith(words)
    assert file.read_text() == _WRITTEN


def test_a_faulty_file(file: Path) -> None:
    """A file with a mistake is not changed, and the error names the line of the mistake."""
    file.write_text(f"{_WRITTEN}prio = 5\n")
    assert "line 11" in _problem(lambda: append_table(file, "news", {"tokens": [B]}, METHODS))
    assert file.read_text() == f"{_WRITTEN}prio = 5\n"


def test_a_token_is_added(file: Path) -> None:
    """A token comes before those that a caller has, which stay good; comments stay."""
    assert add_token(file, "shop", B, METHODS) == 2
    assert file.read_text() == _WRITTEN.replace("tokens = [\n", f'tokens = ["{B}", \n')
    assert read_callers(file, METHODS).entries[0].tokens == 2


def test_the_first_token_of_a_caller(file: Path) -> None:
    """A caller that was known by its certificate alone can have a token too."""
    assert add_token(file, "old.one", B, METHODS) == 1
    first, second = read_callers(file, METHODS).entries
    assert (first.tokens, second.tokens) == (1, 1)


def test_no_token_for_whom_there_is_no_table(file: Path) -> None:
    """A token is for a caller in the file, and the error names the way to add one."""
    words = "there is no caller news; `otpmail caller add news` adds it"
    assert words in _problem(lambda: add_token(file, "news", B, METHODS))
    assert file.read_text() == _WRITTEN


def test_a_table_that_is_written_in_another_way(file: Path) -> None:
    """A table in a form of TOML that is not looked for is not changed; the error says how to add a token by hand."""
    text = f'[callers]\nshop = {{tokens = ["{A}"]}}\n'
    file.write_text(text)
    problem = _problem(lambda: add_token(file, "shop", B, METHODS))
    assert "add to its `tokens` by hand what `printf %s TOKEN | sha256sum | cut -c1-64` prints" in problem
    assert B not in problem  # nobody would have its token
    assert file.read_text() == text


def test_a_digest_made_by_hand_is_a_token(file: Path) -> None:
    """The command in the error and in docs/callers.md prints a digest that is good in `tokens` unchanged."""
    file.write_text(f'[callers]\nshop = {{tokens = ["{A}"]}}\n')
    found = re.search(r"`(printf %s TOKEN [^`]*)`", _problem(lambda: add_token(file, "shop", B, METHODS)))
    assert found is not None
    assert found[0] in (Path(__file__).parents[2] / "docs/callers.md").read_text("utf-8")
    made = subprocess.run(["/bin/sh", "-c", found[1]], capture_output=True, text=True, check=True, timeout=10).stdout
    file.write_text(f'[callers]\nshop = {{tokens = ["{made.rstrip()}"]}}\n')
    assert read_callers(file, METHODS).entries[0].tokens == 1


def test_callers_in_braces(file: Path) -> None:
    """No table can follow callers that one inline table holds; the error says so, and not where TOML gave up."""
    text = f'callers = {{shop = {{tokens = ["{A}"]}}}}\n'
    file.write_text(text)
    problem = _problem(lambda: append_table(file, "news", {"tokens": [B]}, METHODS))
    assert "the callers are written in braces" in problem
    assert "line" not in problem
    assert file.read_text() == text


def test_a_table_in_a_text_is_none(file: Path) -> None:
    """A text that looks like a caller's table gets no token."""
    text = f'''["callers"."old"]
sans = ["""x://\\
[callers.shop]\\
tokens=["""]
[callers.'shop']
tokens = ["{A}"]
'''
    file.write_text(text)
    assert "by hand" in _problem(lambda: add_token(file, "shop", B, METHODS))
    assert file.read_text() == text


def test_commands_at_the_same_time(file: Path) -> None:
    """Of several changes at once none is lost."""
    names = [f"c{number}" for number in range(8)]
    threads = [
        threading.Thread(target=append_table, args=(file, name, {"sans": [f"{name}.example"]}, METHODS))
        for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {entry.caller.name for entry in read_callers(file, METHODS).entries} == {"shop", "old.one", *names}


def test_a_folder_that_is_not_there(file: Path) -> None:
    """The error about a file that can't be written names its path."""
    missing = file.parent / "missing" / "callers.toml"
    assert _problem(lambda: append_table(missing, "news", {"tokens": [B]}, METHODS)) == (
        f"CALLERS_FILE: {missing} can't be written: No such file or directory"
    )
