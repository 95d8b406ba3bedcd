from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Status(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FAILED: _ClassVar[Status]
    SUCCESS: _ClassVar[Status]
FAILED: Status
SUCCESS: Status

class SendCodeRequest(_message.Message):
    __slots__ = ("email",)
    EMAIL_FIELD_NUMBER: _ClassVar[int]
    email: str
    def __init__(self, email: _Optional[str] = ...) -> None: ...

class SendCodeResponse(_message.Message):
    __slots__ = ("status", "otpCode")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    OTPCODE_FIELD_NUMBER: _ClassVar[int]
    status: Status
    otpCode: str
    def __init__(self, status: _Optional[_Union[Status, str]] = ..., otpCode: _Optional[str] = ...) -> None: ...

class ValidateCodeRequest(_message.Message):
    __slots__ = ("email", "otpCode")
    EMAIL_FIELD_NUMBER: _ClassVar[int]
    OTPCODE_FIELD_NUMBER: _ClassVar[int]
    email: str
    otpCode: str
    def __init__(self, email: _Optional[str] = ..., otpCode: _Optional[str] = ...) -> None: ...

class ValidateCodeResponse(_message.Message):
    __slots__ = ("status", "isValid")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    ISVALID_FIELD_NUMBER: _ClassVar[int]
    status: Status
    isValid: bool
    def __init__(self, status: _Optional[_Union[Status, str]] = ..., isValid: _Optional[bool] = ...) -> None: ...

class SendEmailRequest(_message.Message):
    __slots__ = ("to", "subject", "body")
    TO_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    to: str
    subject: str
    body: str
    def __init__(self, to: _Optional[str] = ..., subject: _Optional[str] = ..., body: _Optional[str] = ...) -> None: ...

class SendEmailResponse(_message.Message):
    __slots__ = ("status",)
    STATUS_FIELD_NUMBER: _ClassVar[int]
    status: Status
    def __init__(self, status: _Optional[_Union[Status, str]] = ...) -> None: ...
