import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class WaitFor(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WAIT_FOR_UNSPECIFIED: _ClassVar[WaitFor]
    WAIT_FOR_RELAY: _ClassVar[WaitFor]
    WAIT_FOR_QUEUE: _ClassVar[WaitFor]

class Priority(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PRIORITY_UNSPECIFIED: _ClassVar[Priority]
    PRIORITY_NORMAL: _ClassVar[Priority]
    PRIORITY_BULK: _ClassVar[Priority]
    PRIORITY_URGENT: _ClassVar[Priority]
WAIT_FOR_UNSPECIFIED: WaitFor
WAIT_FOR_RELAY: WaitFor
WAIT_FOR_QUEUE: WaitFor
PRIORITY_UNSPECIFIED: Priority
PRIORITY_NORMAL: Priority
PRIORITY_BULK: Priority
PRIORITY_URGENT: Priority

class Attachment(_message.Message):
    __slots__ = ("filename", "content_type", "content", "content_id")
    FILENAME_FIELD_NUMBER: _ClassVar[int]
    CONTENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    CONTENT_ID_FIELD_NUMBER: _ClassVar[int]
    filename: str
    content_type: str
    content: bytes
    content_id: str
    def __init__(self, filename: _Optional[str] = ..., content_type: _Optional[str] = ..., content: _Optional[bytes] = ..., content_id: _Optional[str] = ...) -> None: ...

class SendMailRequest(_message.Message):
    __slots__ = ("to", "cc", "bcc", "subject", "text", "html", "reply_to", "headers", "attachments", "priority", "request_id", "wait_for", "ttl")
    class HeadersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    TO_FIELD_NUMBER: _ClassVar[int]
    CC_FIELD_NUMBER: _ClassVar[int]
    BCC_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    HTML_FIELD_NUMBER: _ClassVar[int]
    FROM_FIELD_NUMBER: _ClassVar[int]
    REPLY_TO_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    ATTACHMENTS_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    WAIT_FOR_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    to: _containers.RepeatedScalarFieldContainer[str]
    cc: _containers.RepeatedScalarFieldContainer[str]
    bcc: _containers.RepeatedScalarFieldContainer[str]
    subject: str
    text: str
    html: str
    reply_to: str
    headers: _containers.ScalarMap[str, str]
    attachments: _containers.RepeatedCompositeFieldContainer[Attachment]
    priority: Priority
    request_id: str
    wait_for: WaitFor
    ttl: _duration_pb2.Duration
    def __init__(self, to: _Optional[_Iterable[str]] = ..., cc: _Optional[_Iterable[str]] = ..., bcc: _Optional[_Iterable[str]] = ..., subject: _Optional[str] = ..., text: _Optional[str] = ..., html: _Optional[str] = ..., reply_to: _Optional[str] = ..., headers: _Optional[_Mapping[str, str]] = ..., attachments: _Optional[_Iterable[_Union[Attachment, _Mapping]]] = ..., priority: _Optional[_Union[Priority, str]] = ..., request_id: _Optional[str] = ..., wait_for: _Optional[_Union[WaitFor, str]] = ..., ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., **kwargs) -> None: ...

class SendMailResponse(_message.Message):
    __slots__ = ("mail",)
    MAIL_FIELD_NUMBER: _ClassVar[int]
    mail: Mail
    def __init__(self, mail: _Optional[_Union[Mail, _Mapping]] = ...) -> None: ...

class SendMailsRequest(_message.Message):
    __slots__ = ("mails",)
    MAILS_FIELD_NUMBER: _ClassVar[int]
    mails: _containers.RepeatedCompositeFieldContainer[SendMailRequest]
    def __init__(self, mails: _Optional[_Iterable[_Union[SendMailRequest, _Mapping]]] = ...) -> None: ...

class SendMailsResponse(_message.Message):
    __slots__ = ("results",)
    class Result(_message.Message):
        __slots__ = ("request_id", "mail", "code", "message")
        REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
        MAIL_FIELD_NUMBER: _ClassVar[int]
        CODE_FIELD_NUMBER: _ClassVar[int]
        MESSAGE_FIELD_NUMBER: _ClassVar[int]
        request_id: str
        mail: Mail
        code: int
        message: str
        def __init__(self, request_id: _Optional[str] = ..., mail: _Optional[_Union[Mail, _Mapping]] = ..., code: _Optional[int] = ..., message: _Optional[str] = ...) -> None: ...
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[SendMailsResponse.Result]
    def __init__(self, results: _Optional[_Iterable[_Union[SendMailsResponse.Result, _Mapping]]] = ...) -> None: ...

class Mail(_message.Message):
    __slots__ = ("id", "state", "recipients", "attempts", "create_time", "settle_time", "message_id", "request_id")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[Mail.State]
        QUEUED: _ClassVar[Mail.State]
        SENDING: _ClassVar[Mail.State]
        RELAYED: _ClassVar[Mail.State]
        PARTIAL: _ClassVar[Mail.State]
        FAILED: _ClassVar[Mail.State]
        EXPIRED: _ClassVar[Mail.State]
        CANCELLED: _ClassVar[Mail.State]
        UNCERTAIN: _ClassVar[Mail.State]
    STATE_UNSPECIFIED: Mail.State
    QUEUED: Mail.State
    SENDING: Mail.State
    RELAYED: Mail.State
    PARTIAL: Mail.State
    FAILED: Mail.State
    EXPIRED: Mail.State
    CANCELLED: Mail.State
    UNCERTAIN: Mail.State
    ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    RECIPIENTS_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    SETTLE_TIME_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    state: Mail.State
    recipients: _containers.RepeatedCompositeFieldContainer[RecipientResult]
    attempts: int
    create_time: _timestamp_pb2.Timestamp
    settle_time: _timestamp_pb2.Timestamp
    message_id: str
    request_id: str
    def __init__(self, id: _Optional[str] = ..., state: _Optional[_Union[Mail.State, str]] = ..., recipients: _Optional[_Iterable[_Union[RecipientResult, _Mapping]]] = ..., attempts: _Optional[int] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., settle_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., message_id: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class RecipientResult(_message.Message):
    __slots__ = ("address", "code", "enhanced_code", "reply")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    ENHANCED_CODE_FIELD_NUMBER: _ClassVar[int]
    REPLY_FIELD_NUMBER: _ClassVar[int]
    address: str
    code: int
    enhanced_code: str
    reply: str
    def __init__(self, address: _Optional[str] = ..., code: _Optional[int] = ..., enhanced_code: _Optional[str] = ..., reply: _Optional[str] = ...) -> None: ...

class GetMailRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class WatchMailRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class CancelMailRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...
