"""Made-up requests to every method: each has a status that the page of the API names, and the log stays quiet."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.message_factory import GetMessageClass
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from attacks.calling import methods_of, statuses
from attacks.targets import somebody

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor

    from attacks.targets import Target

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.one_store]

_PAGE = Path(__file__).parents[2] / "docs/api.md"
_ANY_METHOD = {"OK", "INVALID_ARGUMENT", "UNAVAILABLE", "UNAUTHENTICATED", "PERMISSION_DENIED"}
_QUIET = {"call-refused", "calls-refused", "relay-up"}
"""The events that the log may have at info; all others are at debug."""

EXAMPLES, MORE_EXAMPLES = 60, 1500
_SECONDS, _QUIET_SECONDS = 60.0, 0.3
_SAME_NAME = "fuzz"  # of mails and requests, so that some are found again


def documented(method: MethodDescriptor) -> set[str]:
    """Return the statuses of a method by the tables of docs/api.md: its own, and those of any method."""
    page = _PAGE.read_text("utf-8")
    _, _, rows = page.partition(f"| **{method.containing_service.full_name}**")
    found = re.search(rf"^\| `{method.name}` \|(.*)\|$", rows, re.MULTILINE)
    assert found is not None, f"docs/api.md does not name {method.full_name}"
    names = {code.name for code in grpc.StatusCode}
    return _ANY_METHOD | {word for word in re.findall(r"[A-Z_]{6,}", found[1]) if word in names}


async def test_only_documented_statuses(target: Target, *, full: bool) -> None:
    """No made-up request has a status that the API does not name for its method, or a line in the log above debug."""
    for method in methods_of(target.contract):
        await asyncio.to_thread(_fuzz, asyncio.get_running_loop(), target, method, MORE_EXAMPLES if full else EXAMPLES)
    if target.system.relay is not None:
        await target.relay.wait_for_quiet(_QUIET_SECONDS)  # mails that nobody waited for
    for service in target.system.services:
        assert not [line for line in service.output if "Traceback" in line]
        loud = [line for line in service.log if line["level"] != "debug" and line["event"] not in _QUIET]
        assert not [line for line in loud if line["level"] != "info" or _is_about_a_call(line)]


def _is_about_a_call(line: dict[str, object]) -> bool:
    return "method" in line or "mail" in line


def _fuzz(loop: asyncio.AbstractEventLoop, target: Target, method: MethodDescriptor, examples: int) -> None:
    """Call the method with requests of Hypothesis, which finds the smallest one that breaks the rule."""
    expected = documented(method)

    @settings(
        max_examples=examples, derandomize=examples == EXAMPLES, database=None, phases=[Phase.generate, Phase.shrink]
    )
    @given(st.one_of(_messages(method.input_type), st.binary(max_size=200)))
    def call(request: bytes) -> None:
        calling = statuses(target.channel, method, request, target.metadata)
        got = asyncio.run_coroutine_threadsafe(calling, loop).result(_SECONDS)
        assert {status.name for status in got} <= expected, method.full_name

    call()


_TEXTS = st.one_of(
    st.text(max_size=20),
    st.builds(somebody),
    st.sampled_from(
        [
            *("ada@example.org", "Ada <ada@example.org>", "ada@b\u00fccher.example", "<>", "@", "x" * 2000),
            *(_SAME_NAME, "login", "en", "127.0.0.1", "::1", "123456", "text/plain", "multipart/mixed", "X-A"),
            *("\r\n", "\0", "\u2028", "\u202e", "=?utf-8?q?a?=", "%0d%0a", "{}", "$code", "${", "a/b; c=d"),
        ]
    ),
)


def _messages(message: Descriptor, depth: int = 3) -> st.SearchStrategy[bytes]:
    """Make requests of a kind with each field there or not, as octets; what protobuf itself refuses is left out."""
    fields = {field.name: _values(field, depth) for field in message.fields if depth or field.message_type is None}
    return st.fixed_dictionaries({}, optional=fields).map(lambda values: _encoded(message, values))


def _values(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return st.dictionaries(_TEXTS, _TEXTS, max_size=3)
    one = _one(field, depth)
    return st.lists(one, max_size=3) if field.is_repeated else one


def _one(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    if field.message_type is not None:
        return _messages(field.message_type, depth - 1).map(GetMessageClass(field.message_type).FromString)
    if field.enum_type is not None:
        return st.integers(-1, 9)
    if field.type == field.TYPE_BYTES:
        return st.binary(max_size=50)
    if field.type == field.TYPE_BOOL:
        return st.booleans()
    if field.type == field.TYPE_STRING:
        return _TEXTS
    return st.integers(-(1 << 31), (1 << 31) - 1) | st.integers(-2, 5)


def _encoded(message: Descriptor, values: dict[str, Any]) -> bytes:
    return GetMessageClass(message)(**values).SerializeToString()
