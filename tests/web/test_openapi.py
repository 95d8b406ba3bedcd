"""The description of the methods: whole, without loose ends, and served."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import pytest

from http1 import JSON, SEND_CODE, request
from otpmail.v1 import address_pb2, mail_pb2, otp_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator

    from service import Service

_DESCRIBED = json.loads(files("otpmail.web").joinpath("openapi.json").read_text("utf-8"))
_FILES: tuple[Any, ...] = (otp_pb2, mail_pb2, address_pb2)


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        for inner in value.values():
            yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)


def test_every_method_is_described() -> None:
    """Each method has its path and a description, and nothing refers to what is not there."""
    services = [service for file in _FILES for service in file.DESCRIPTOR.services_by_name.values()]
    methods = {f"/{service.full_name}/{method.name}" for service in services for method in service.methods}
    assert set(_DESCRIBED["paths"]) == methods
    assert all(item["post"]["description"] for item in _DESCRIBED["paths"].values())
    schemas = {f"#/components/schemas/{name}" for name in _DESCRIBED["components"]["schemas"]}
    assert set(_references(_DESCRIBED)) <= schemas


def test_fields_have_their_names_in_json() -> None:
    """Each field is there by its name in JSON; times are texts, enums are names, maps are objects."""
    for file in _FILES:
        for message in file.DESCRIPTOR.message_types_by_name.values():
            schema = _DESCRIBED["components"]["schemas"][message.full_name]
            assert set(schema["properties"]) == {field.json_name for field in message.fields}
    mail = _DESCRIBED["components"]["schemas"]["otpmail.v1.Mail"]["properties"]
    assert mail["createTime"]["format"] == "date-time"
    assert mail["labels"]["additionalProperties"] == {"type": "string"}
    assert "STATE_RELAYED" in _DESCRIBED["components"]["schemas"]["otpmail.v1.Mail.State"]["enum"]


def test_bodies_are_described_as_they_are() -> None:
    """A line is one mail or result, envelopes are no JSON, and an error may be a status in words."""
    content = {
        path.rpartition("/")[2]: (
            item["post"]["requestBody"]["content"],
            item["post"]["responses"]["200"]["content"],
            item["post"]["responses"]["default"]["content"],
        )
        for path, item in _DESCRIBED["paths"].items()
    }
    lines, results, _ = content["SendMails"]
    assert lines["application/jsonl"]["schema"]["$ref"].endswith("/otpmail.v1.SendMailRequest")
    assert results["application/jsonl"]["schema"]["$ref"].endswith("/otpmail.v1.SendMailsResponse.Result")
    asked, states, _ = content["WatchMail"]
    assert not any("$ref" in form["schema"] for form in (*asked.values(), *states.values()))
    assert all(set(errors) == {"application/json", "text/plain"} for _, _, errors in content.values())


@pytest.mark.service(HTTP_PORT=0)
async def test_an_error_has_a_type_that_is_described(service: Service) -> None:
    """Refusals in front of a method are text, and those of a method JSON, as the description says."""
    described = _DESCRIBED["paths"][SEND_CODE]["post"]["responses"]["default"]["content"]
    for body, headers, status in ((b"{}", {}, 415), (b"{}", JSON | {"host": "evil.example"}, 403), (b"{}", JSON, 400)):
        answer = await request(service, SEND_CODE, body, headers)
        assert answer.status == status
        assert answer.fields["content-type"].partition(";")[0] in described


@pytest.mark.service(HTTP_PORT=0)
async def test_the_description_is_served(service: Service) -> None:
    """The description is at /openapi.json, for GET alone."""
    answer = await request(service, "/openapi.json")
    assert (answer.status, answer.fields["content-type"], answer.json) == (200, "application/json", _DESCRIBED)
    assert (await request(service, "/openapi.json", b"{}", JSON)).status == 405
    assert (await request(service, "/openapi.json", headers={"host": "evil.example"})).status == 403
