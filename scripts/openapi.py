"""Describes the methods by OpenAPI 3.1, from the descriptors of protos/ with their comments.

`scripts/generate` writes `web/openapi.json` with it: `python scripts/openapi.py DESCRIPTORS`.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet

Schema = dict[str, Any]

_FIELD = FieldDescriptorProto
_WELL_KNOWN: Mapping[str, Schema] = {
    ".google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    ".google.protobuf.Duration": {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]{1,9})?s$"},
}
_WHOLE = {"type": "integer", "format": "int32"}
_LONG = {"type": "string", "format": "int64"}  # in JSON, whose numbers have 53 bits
_SCALARS: Mapping[int, Schema] = {
    _FIELD.TYPE_STRING: {"type": "string"},
    _FIELD.TYPE_BYTES: {"type": "string", "format": "byte"},
    _FIELD.TYPE_BOOL: {"type": "boolean"},
    _FIELD.TYPE_DOUBLE: {"type": "number", "format": "double"},
    _FIELD.TYPE_FLOAT: {"type": "number", "format": "float"},
    **dict.fromkeys((_FIELD.TYPE_INT32, _FIELD.TYPE_UINT32, _FIELD.TYPE_SINT32), _WHOLE),
    **dict.fromkeys((_FIELD.TYPE_INT64, _FIELD.TYPE_UINT64, _FIELD.TYPE_SINT64), _LONG),
}
_ERROR: Schema = {
    "type": "object",
    "description": "An error, with the details of google.rpc as base64 in `value` and for people in `debug`.",
    "properties": {
        "code": {"type": "string", "examples": ["invalid_argument"]},
        "message": {"type": "string"},
        "details": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "type": {"type": "string", "examples": ["google.rpc.BadRequest"]},
                    "value": {"type": "string"},
                    "debug": {"type": "object"},
                },
            },
        },
    },
}
_IN_WORDS: Schema = {
    "type": "string",
    "description": "A status in words: no such path, another verb than POST, a type that the method does not take, "
    "or a request that may not come in or can't be read.",
}
_OF_A_LINE = {
    ".otpmail.v1.SendMailsRequest": ".otpmail.v1.SendMailRequest",
    ".otpmail.v1.SendMailsResponse": ".otpmail.v1.SendMailsResponse.Result",
}
"""The message in each line of JSON, by the message of the method, which has many of it."""

_FIELD_OF_MESSAGE, _NESTED_MESSAGE, _NESTED_ENUM, _MESSAGE, _ENUM, _SERVICE, _METHOD = 2, 3, 4, 4, 5, 6, 2


class _File:
    """One file of the contract with its comments."""

    def __init__(self, file: FileDescriptorProto) -> None:
        self._file = file
        self._comments = {
            tuple(location.path): " ".join(location.leading_comments.split())
            for location in file.source_code_info.location
            if location.leading_comments
        }

    def schemas(self) -> Iterator[tuple[str, Schema]]:
        """Yield each message and enum by its full name."""
        package = self._file.package
        for number, message in enumerate(self._file.message_type):
            yield from self._message(f"{package}.{message.name}", message, (_MESSAGE, number))
        for number, enum in enumerate(self._file.enum_type):
            yield f"{package}.{enum.name}", self._enum(enum, (_ENUM, number))

    def paths(self) -> Iterator[tuple[str, Schema]]:
        """Yield each method by its path."""
        for number, service in enumerate(self._file.service):
            for at, method in enumerate(service.method):
                comment = self._comments.get((_SERVICE, number, _METHOD, at), "")
                yield (
                    f"/{self._file.package}.{service.name}/{method.name}",
                    {"post": _operation(service.name, method, comment)},
                )

    def _message(self, name: str, message: DescriptorProto, path: tuple[int, ...]) -> Iterator[tuple[str, Schema]]:
        entries = {f".{name}.{nested.name}": nested for nested in message.nested_type if nested.options.map_entry}
        properties = {}
        for number, field in enumerate(message.field):
            schema = self._field(field, entries)
            if comment := self._comments.get((*path, _FIELD_OF_MESSAGE, number)):
                schema = {**schema, "description": comment}
            properties[field.json_name] = schema
        yield name, _described({"type": "object", "properties": properties}, self._comments.get(path, ""))
        for number, nested in enumerate(message.nested_type):
            if not nested.options.map_entry:
                yield from self._message(f"{name}.{nested.name}", nested, (*path, _NESTED_MESSAGE, number))
        for number, enum in enumerate(message.enum_type):
            yield f"{name}.{enum.name}", self._enum(enum, (*path, _NESTED_ENUM, number))

    def _enum(self, enum: Any, path: tuple[int, ...]) -> Schema:
        schema: Schema = {"type": "string", "enum": [value.name for value in enum.value]}
        return _described(schema, self._comments.get(path, ""))

    def _field(self, field: FieldDescriptorProto, entries: Mapping[str, DescriptorProto]) -> Schema:
        if (entry := entries.get(field.type_name)) is not None:
            return {"type": "object", "additionalProperties": self._field(entry.field[1], {})}
        schema = _SCALARS.get(field.type) or _WELL_KNOWN.get(field.type_name) or _reference(field.type_name)
        return {"type": "array", "items": schema} if field.label == _FIELD.LABEL_REPEATED else dict(schema)


def describe(files: FileDescriptorSet) -> Schema:
    """Return the description of all services in `otpmail.v1`."""
    ours = [_File(file) for file in files.file if file.package == "otpmail.v1"]
    schemas = {name: schema for file in ours for name, schema in file.schemas()}
    return {
        "openapi": "3.1.0",
        "info": {"title": "otpmail", "version": "v1", "description": "The Connect protocol, in JSON or protobuf."},
        "security": [{}, {"token": []}],
        "paths": {path: item for file in ours for path, item in file.paths()},
        "components": {
            "schemas": {**schemas, "connect.Error": _ERROR},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(service: str, method: Any, comment: str) -> Schema:
    forms: tuple[str, ...] = ("application/json", "application/proto")
    if method.client_streaming:
        forms = ("application/jsonl",)
    elif method.server_streaming:
        forms = ("application/connect+json", "application/connect+proto")

    def content(kind: str) -> Schema:
        """Return a body in each form."""
        return {form: {"schema": _schema_of(form, kind)} for form in forms}

    error = {"application/json": {"schema": _reference(".connect.Error")}, "text/plain": {"schema": _IN_WORDS}}
    operation = {
        "operationId": f"{service}.{method.name}",
        "tags": [service],
        "requestBody": {"required": True, "content": content(method.input_type)},
        "responses": {
            "200": {"description": "The answer.", "content": content(method.output_type)},
            "default": {"description": "An error.", "content": error},
        },
    }
    return _described(operation, comment)


def _schema_of(form: str, kind: str) -> Schema:
    """Return the schema of a message in a form. Octets have none, and OpenAPI has none for lines."""
    if form.startswith("application/connect+"):
        return {"description": f"{kind.removeprefix('.')} in envelopes of Connect"}
    if form == "application/jsonl":
        return {**_reference(_OF_A_LINE[kind]), "description": "Each line is one of these."}
    return {"description": f"{kind.removeprefix('.')} in protobuf"} if form.endswith("proto") else _reference(kind)


def _described(schema: Schema, comment: str) -> Schema:
    return {**schema, "description": comment} if comment else schema


def _reference(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name.removeprefix('.')}"}


def main() -> None:
    """Write the description of the descriptors in a file to standard output."""
    files = FileDescriptorSet.FromString(Path(sys.argv[1]).read_bytes())
    sys.stdout.write(json.dumps(describe(files), indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
