"""CALLERS_FILE: what each key means, and the line for each mistake."""

import re
from hashlib import sha256
from pathlib import Path
from random import Random

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID, ObjectIdentifier
from hypothesis import example, given
from hypothesis import strategies as st

from otpmail.api.certificate import subject_of
from otpmail.callers import Caller, Rates, Shares
from otpmail.errors import SettingsError
from otpmail.model import Priority
from otpmail.settings.caller_names import subject
from otpmail.settings.callers import CallersFile, parse_callers, read_callers

METHODS = (
    "/otpmail.v1.OtpService/SendCode",
    "/otpmail.v1.OtpService/ValidateCode",
    "/otpmail.v1.MailService/SendMail",
    "/mail.OtpService/SendCode",
)
A, B = (sha256(token).hexdigest() for token in (b"a", b"b"))


def _read(path: Path, text: str) -> CallersFile:
    file = path / "callers.toml"
    file.write_text(text, encoding="utf-8")
    return read_callers(file, METHODS)


def _problems(path: Path, text: str) -> list[str]:
    """Return the lines about a file, without the setting and the path that each of them begins with."""
    with pytest.raises(SettingsError) as caught:
        _read(path, text)
    start = f"CALLERS_FILE: {path}/callers.toml"
    assert all(problem.startswith(start) for problem in caught.value.problems)
    return [problem.removeprefix(start).removeprefix(":").strip() for problem in caught.value.problems]


def _only(file: CallersFile) -> Caller:
    (entry,) = file.entries
    return entry.caller


def test_a_caller_by_its_tokens(tmp_path: Path) -> None:
    """Each token of a caller, by its SHA-256 in either case of letters, is the caller's."""
    file = _read(tmp_path, f'[callers.shop]\ntokens = ["{A}", "{B.upper()}"]\n')
    assert file.callers.by_token == {bytes.fromhex(A): _only(file), bytes.fromhex(B): _only(file)}
    assert file.callers.anonymous is None
    assert _only(file).name == "shop"
    assert file.entries[0].tokens == 2


def test_a_token_that_is_there_twice(tmp_path: Path) -> None:
    """A token that its caller has twice, in whatever case of letters, counts once."""
    assert _read(tmp_path, f'[callers.shop]\ntokens = ["{A}", "{A.upper()}"]\n').entries[0].tokens == 1


def test_a_caller_by_its_certificate(tmp_path: Path) -> None:
    """A subject is kept unchanged; other names have their kind, and a form in which they can be compared."""
    sans = '["Shop.Example.org", "spiffe://example/Shop", "urn:Shop:1", "ops@example.org", "2001:DB8::0:1"]'
    file = _read(tmp_path, f'[callers.shop]\nsubjects = ["CN=shop,O=Example"]\nsans = {sans}\n')
    names = ["subject:CN=shop,O=Example", "dns:shop.example.org", "uri:spiffe://example/Shop"]
    assert list(file.callers.by_certificate) == [*names, "uri:urn:Shop:1", "email:ops@example.org", "ip:2001:db8::1"]
    assert set(file.callers.by_certificate.values()) == {_only(file)}


def test_without_further_keys(tmp_path: Path) -> None:
    """A caller may call every method and send as EMAIL_FROM_ALLOWED says, but no urgent mails."""
    may = _only(_read(tmp_path, f'[callers.shop]\ntokens = ["{A}"]')).may
    assert (may.methods, may.senders, may.return_paths) == (None, None, None)
    assert may.priorities == (Priority.NORMAL, Priority.BULK)


@pytest.mark.parametrize(
    ("name", "paths"),
    [
        ("SendCode", {METHODS[0], METHODS[3]}),
        ("otpmail.v1.OtpService", {METHODS[0], METHODS[1]}),
        ("otpmail.v1.OtpService/SendCode", {METHODS[0]}),
    ],
)
def test_methods(tmp_path: Path, name: str, paths: set[str]) -> None:
    """A method is named by itself, which means both contracts, by its service, or by both together."""
    assert _only(_read(tmp_path, f'[callers.shop]\ntokens = ["{A}"]\nmethods = ["{name}"]')).may.methods == frozenset(
        paths
    )


def test_addresses_and_priorities(tmp_path: Path) -> None:
    """Addresses are kept as they are compared; bounces go to those in `from`, unless `return_paths` names others."""
    text = (
        f'[callers.shop]\ntokens = ["{A}"]\nfrom = ["News@Shop.example", "@bücher.example"]\npriorities = ["Urgent"]\n'
    )
    may = _only(_read(tmp_path, text)).may
    assert may.senders == frozenset({"news@shop.example", "@xn--bcher-kva.example"})
    assert may.return_paths == may.senders
    assert may.priorities == (Priority.URGENT,)
    own = _only(_read(tmp_path, f'{text}return_paths = ["bounces@shop.example"]')).may
    assert own.return_paths == frozenset({"bounces@shop.example"})


def test_rates(tmp_path: Path) -> None:
    """A caller may have a rate of mails in an hour, one in a day, both, or none."""
    shop = f'[callers.shop]\ntokens = ["{A}"]\n'
    assert _only(_read(tmp_path, shop)).may.rates is None
    assert _only(_read(tmp_path, f"{shop}mails_per_day = 9")).may.rates == Rates(None, 9)
    assert _only(_read(tmp_path, f"{shop}mails_per_hour = 5\nmails_per_day = 9")).may.rates == Rates(5, 9)


def test_codes_per_hour(tmp_path: Path) -> None:
    """A caller, and an anonymous one too, may have a cap of its own on codes in an hour."""
    assert _only(_read(tmp_path, f'[callers.shop]\ntokens = ["{A}"]\ncodes_per_hour = 500')).may.codes_per_hour == 500
    assert _only(_read(tmp_path, f'[callers.shop]\ntokens = ["{A}"]')).may.codes_per_hour is None


def test_guesses_per_hour(tmp_path: Path) -> None:
    """A caller may have a cap of its own on the wrong codes of strangers in an hour."""
    assert _only(_read(tmp_path, f"{_SHOP}guesses_per_hour = 50")).may.guesses_per_hour == 50
    assert _only(_read(tmp_path, _SHOP)).may.guesses_per_hour is None


def test_shares(tmp_path: Path) -> None:
    """A caller has no share of the queue or of the memory that is less than the whole, unless the file gives it one."""
    assert _only(_read(tmp_path, f'[callers.shop]\ntokens = ["{A}"]\nqueue_share = 1')).may.shares is None
    may = _only(_read(tmp_path, f'[callers.shop]\ntokens = ["{A}"]\nmemory_share = 0.25')).may
    assert may.shares == Shares(queue=1.0, memory=0.25)


def test_anonymous(tmp_path: Path) -> None:
    """The table [anonymous] is for calls without a token or certificate, and has permissions like others."""
    file = _read(tmp_path, '[anonymous]\nmethods = ["SendCode"]\n')
    assert file.callers.anonymous == Caller("anonymous", _only_anonymous(file).may)
    assert _only_anonymous(file).may.methods == frozenset({METHODS[0], METHODS[3]})
    assert _only_anonymous(file).may.priorities == (Priority.NORMAL, Priority.BULK)
    assert file.entries == ()


def _only_anonymous(file: CallersFile) -> Caller:
    assert file.callers.anonymous is not None
    return file.callers.anonymous


_SHOP = f'[callers.shop]\ntokens = ["{A}"]\n'


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "names no caller; otpmail caller add NAME adds one"),
        ("# only a comment\n", "names no caller; otpmail caller add NAME adds one"),
        (
            f"{_SHOP}prioritys = []",
            "line 3: [callers.shop] prioritys is no key of this table; did you mean priorities?",
        ),
        ("[caller.shop]\n", "line 1: 'caller' is no key of this table; did you mean callers?"),
        (
            f'[anonymous]\ntokens = ["{A}"]',
            (
                "line 2: [anonymous] tokens is no key of this table; there are methods, from, return_paths, "
                "priorities, codes_per_hour, guesses_per_hour, mails_per_hour, mails_per_day, profiles"
            ),
        ),
        (
            "[callers.shop]\n",
            "line 1: [callers.shop] has neither tokens nor subjects nor sans, so nobody can call as it",
        ),
        (
            '\n[callers.shop]\ntokens = [\n  "hunter2",\n]\n',
            (
                "line 4: [callers.shop] tokens[0] is no SHA-256 in 64 hexadecimal digits, as `otpmail caller add` "
                "writes it; it is not shown"
            ),
        ),
        (
            f'[callers.shop]\ntokens = "{A}"',
            'line 2: [callers.shop] tokens is no list of texts; write tokens = ["...", "..."]',
        ),
        *(
            (
                f'[callers.shop]\ntokens = ["{sha256(empty).hexdigest()}"]',
                "line 2: [callers.shop] tokens[0] is the SHA-256 of no token, as of a variable that is not set",
            )
            for empty in (b"", b"\n")
        ),
        ("[callers.shop]\ntokens = [5]", "line 2: [callers.shop] tokens[0] is no text in quotes"),
        (
            f'{_SHOP}[callers."other.one"]\ntokens = ["{A}"]',
            'line 4: [callers."other.one"] tokens[0] is a token that [callers.shop] has too; each is of one caller',
        ),
        (
            '[callers.a]\nsans = ["x.example"]\n[callers.b]\nsans = ["X.example"]\n',
            "line 4: [callers.b] sans[0] is the 'dns:x.example' that [callers.a] has too; each is of one caller",
        ),
        *(
            (
                f'{_SHOP}methods = ["{wrong}"]',
                f"line 3: [callers.shop] methods[0] '{wrong}' is no method or service",
            )
            for wrong in ("", "/", "*", "grpc.health.v1.Health")
        ),
        (
            f'{_SHOP}methods = ["SendCod"]',
            "line 3: [callers.shop] methods[0] 'SendCod' is no method or service; did you mean SendCode?",
        ),
        (
            f'{_SHOP}methods = ["otpmail.v1.OtpService/SendMail"]',
            (
                "line 3: [callers.shop] methods[0] 'otpmail.v1.OtpService/SendMail' is no method or service; did you "
                "mean otpmail.v1.MailService/SendMail?"
            ),
        ),
        (
            f'{_SHOP}from = ["nobody"]',
            "line 3: [callers.shop] from[0] 'nobody' is neither an address nor an @ with a domain",
        ),
        (
            f'{_SHOP}priorities = ["high"]',
            "line 3: [callers.shop] priorities[0] 'high' is no priority; there are urgent, normal, bulk",
        ),
        *(
            (
                f"{_SHOP}queue_share = {wrong}",
                "line 3: [callers.shop] queue_share must be a number above 0 and at most 1, such as 0.25 for a quarter",
            )
            for wrong in ("0", "1.5", "-1", "nan", "inf", "true", '"a half"', "[0.5]")
        ),
        *(
            (
                f"{_SHOP}{key} = {wrong}",
                f"line 3: [callers.shop] {key} must be a whole number from 1 to 10000000",
            )
            for key in ("codes_per_hour", "guesses_per_hour", "mails_per_day")
            for wrong in ("0", "-1", "1.5", "true", '"ten"', "10000001")
        ),
        (
            f"{_SHOP}mails_per_day = 5\nmails_per_hour = 6",
            "line 4: [callers.shop] mails_per_hour has no effect, as it is above mails_per_day",
        ),
        ("[#callers.shop]\n", "line 1: Invalid initial character for a key part"),
        (f"{_SHOP}x = [\n{'9' * 5000}]", "line 4: holds too long a number, or lists too deep"),
        (f"{_SHOP}x = [\n{'[' * 5000}\n{']' * 5000}]", "line 4: holds too long a number, or lists too deep"),
        *(
            (
                f'[callers.shop]\nsubjects = ["{wrong}"]',
                (
                    f"line 2: [callers.shop] subjects[0] '{wrong}' is no subject of a certificate by RFC 2253, such as "
                    "CN=shop,O=Example; `openssl x509 -in FILE -noout -subject -nameopt RFC2253` prints it"
                ),
            )
            for wrong in (
                *("", " ", "shop", "=shop", "CN = shop, O = Example", "/O=Example/CN=shop", "subject=CN=shop"),
                *(
                    "cn=shop",
                    "commonName=shop",
                    "E=a@example.org",
                    "CN=b\u00fccher",
                    "CN=a,",
                    "CN=a ",
                    "CN=#a",
                    "CN=a;b",
                ),
            )
        ),
        *(
            (
                f'[callers.shop]\nsans = ["{wrong}:x.example"]',
                f"line 2: [callers.shop] sans[0] '{wrong}:x.example' has its kind before it; write 'x.example'",
            )
            for wrong in ("DNS", "dns", "email", "IP Address", "URI")
        ),
        *(
            (
                f'[callers.shop]\nsans = ["{wrong}"]',
                f"line 2: [callers.shop] sans[0] '{wrong}' is no URI, address or host name in letters of ASCII",
            )
            for wrong in ("*.example", "x.example:443", "192.0.2.0/24", "b\u00fccher.example", ".example", "-a.example")
        ),
        ('[callers.shop]\nsans = ["a b"]', "line 2: [callers.shop] sans[0] 'a b' is no name in a certificate"),
        (f"{_SHOP}tokens = []", "line 3: this key is there already"),
        (f"{_SHOP}[callers.shop]\n", "line 3: [callers.shop] is there twice"),
        (
            f'[callers."old.one"]\ntokens = ["{A}"]\n[callers."old.one"]\n',
            'line 3: [callers."old.one"] is there twice',
        ),
        (
            f'[callers."a\\n\\u001b[31m"]\ntokens = ["{A}"]',
            (
                r'line 1: [callers."a\n\u001b[31m"] is no name of a caller; use 1 to 64 letters, digits, dots, dashes '
                "and underscores"
            ),
        ),
        (
            f'{_SHOP}"methods\\u202e" = []',
            r'line 3: [callers.shop] "methods\u202e" is no key of this table; did you mean methods?',
        ),
        ("callers = 5", "line 1: 'callers' is no table; write a table for each caller, such as [callers.shop]"),
        ("[callers]\nshop = 5", "line 2: [callers.shop] is no table"),
        (
            f'[callers."a b"]\ntokens = ["{A}"]',
            'line 1: [callers."a b"] is no name of a caller; use 1 to 64 letters, digits, dots, dashes and underscores',
        ),
        (
            f'[callers.anonymous]\ntokens = ["{A}"]',
            (
                "line 1: [callers.anonymous] is the name of callers without a token; use 1 to 64 letters, digits, "
                "dots, dashes and underscores"
            ),
        ),
    ],
)
def test_a_mistake_has_its_line(tmp_path: Path, text: str, problem: str) -> None:
    """The error about a mistake has its line in the file, its table and key, and what may stand there."""
    assert _problems(tmp_path, text) == [problem]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (f'tokens = ["{A}",\n\n"wrong"]', 5),
        (f'tokens = [ # "]"\n"{A}", # , "\n\n\'wrong\'\n]', 6),
        (f'tokens = [\r\n"{A}",\r\n"wrong"\r\n]\r\n', 5),
        ("from = [\"\"\"\\\n  a@example.org\"\"\",\n'''\nb''']\ntokens = []", 5),
        ('from = [\n"\\"@\\"]", "a@example.org"\n]\ntokens = []', 4),
        (f'tokens = ["{A}"] # \u2028\nfrom = [\n5,\n]', 5),
        ("tokens = [\n[[\n'a']]\n, { a = 1 }]", 4),
        ("tokens = []\n\n\nx=[\n1]", 6),
    ],
)
def test_an_item_of_a_list_has_its_own_line(tmp_path: Path, text: str, line: int) -> None:
    """In a list of several lines the error has the line of the item, whatever texts and comments hold."""
    (problem, *_) = _problems(tmp_path, f"# ours\n[callers.shop]\n{text}")
    assert problem.startswith(f"line {line}: [callers.shop] ")


@pytest.mark.parametrize(
    ("octets", "words"),
    [
        (b"\xe9", "is not text in UTF-8"),
        (b"[anonymous]\r\n# caf\xe9\r\n", "is not text in UTF-8 (line 2)"),
        ("[anonymous]".encode("utf-16"), "is not text in UTF-8"),
        (b"[anonymous]\n\0", "line 2: Invalid statement"),
        (b"[anonymous]\n" + bytes(5 << 20), "is larger than 4096 KiB"),
    ],
    ids=["latin-1", "latin-1 further down", "utf-16", "nul", "large"],
)
def test_octets_that_are_no_file_of_callers(tmp_path: Path, octets: bytes, words: str) -> None:
    """A file in another encoding, with control characters, or of many megabytes is refused in one line."""
    file = tmp_path / "callers.toml"
    file.write_bytes(octets)
    with pytest.raises(SettingsError, match=re.escape(words)):
        read_callers(file, METHODS)
    file.write_bytes(b"\xef\xbb\xbf[anonymous]\r\nmethods = []\r\n")
    assert read_callers(file, METHODS).callers.anonymous is not None


def test_mistakes_stand_in_the_order_of_the_file(tmp_path: Path) -> None:
    """Unknown keys come in the order of their lines, and a text of several lines holds none, whatever it looks like."""
    text = f"{_SHOP}from = ['''\na@example.org''', \"\"\"\n[callers.news]\n\"\"\"]\n"
    problems = _problems(tmp_path, text + "".join(f"x{number} = 1\n" for number in range(9)))
    lines = [problem.partition(" is no key")[0] for problem in problems if " is no key" in problem]
    assert lines == [f"line {7 + number}: [callers.shop] x{number}" for number in range(9)]


def test_a_name_with_a_dot(tmp_path: Path) -> None:
    """A name with a dot needs quotes, and the line about one without them shows where they stand."""
    problem, _ = _problems(tmp_path, f'[callers.news.eu]\ntokens = ["{A}"]\n')
    words = "is no key of this table; a name with a dot is in quotes, as in"
    assert problem == f'line 1: [callers.news] eu {words} [callers."news.eu"]'
    assert _only(_read(tmp_path, f'[callers."news.eu"]\ntokens = ["{A}"]\n')).name == "news.eu"


_TYPES = [NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME, NameOID.EMAIL_ADDRESS, ObjectIdentifier("1.2.3.4")]
_ODD = ("#a", " a ", 'a\\,+"<>;=', "b\u00fccher", "a\x00b", "\x7f")


@pytest.mark.filterwarnings("ignore::UserWarning")
@given(st.lists(st.tuples(st.sampled_from(_TYPES), st.text(min_size=1, max_size=8)), min_size=1, max_size=3))
@example([(NameOID.COMMON_NAME, value) for value in _ODD])
def test_every_subject_can_be_written(parts: list[tuple[ObjectIdentifier, str]]) -> None:
    """A subject as calls show it is one that the file may hold, whatever is in it."""
    shown = subject_of(x509.Name([x509.NameAttribute(oid, value) for oid, value in parts])).decode()
    assert subject(shown) == f"subject:{shown}"


def test_several_mistakes(tmp_path: Path) -> None:
    """Each mistake has a line of its own, and none shows what may be a token."""
    problems = _problems(tmp_path, '[callers.shop]\ntokens = ["hunter2", "hunter3"]\nmethod = []\npriorities = ["x"]\n')
    assert len(problems) == 4
    assert not any("hunter" in problem for problem in problems)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """The error about a file that is not there names its path, and the command that makes it."""
    file = tmp_path / "missing.toml"
    with pytest.raises(SettingsError) as caught:
        read_callers(file, METHODS)
    line = f"CALLERS_FILE: {file} does not exist; otpmail caller add NAME --file {file} makes it"
    assert caught.value.problems == (line,)


_WHOLE = f"""# ours
[callers.shop]  # the shop
tokens = ["{A}"]  # one
from = ["shop@example.org", "@news.example.org"]
queue_share = 0.5
[callers."a.b"]
sans = ["spiffe://example.org/login", "192.0.2.1"]
methods = ["otpmail.v1.OtpService", "SendCode"]
[anonymous]
methods = ["mail.OtpService"]
"""
_BITS = [*"[]\"'\n\r=., {}\\#1", "[[", '"""', "callers", "nan"]


@pytest.mark.parametrize("seed", range(5))
def test_a_spoilt_file(seed: int) -> None:
    """A file that is spoilt anywhere is good all the same, or has a line for each mistake; no other error comes."""
    random = Random(seed)
    problems: list[str] = []
    for _ in range(100):
        text = _WHOLE
        for _ in range(random.randint(1, 5)):
            start, end = sorted(random.choices(range(len(text)), k=2))
            moved = text[start : min(end, start + 60)]
            part = random.choice([random.choice(_BITS), moved, ""])
            text = text[:start] + part + text[start + random.choice([0, len(moved)]) :]
        try:
            parse_callers(text, Path("callers.toml"), METHODS)
        except SettingsError as error:
            problems += error.problems
    assert len(problems) > 50
    assert all(problem.startswith("CALLERS_FILE: callers.toml: line ") for problem in problems)
