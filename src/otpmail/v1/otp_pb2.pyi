import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from otpmail.v1 import mail_pb2 as _mail_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SendCodeRequest(_message.Message):
    __slots__ = ("email", "purpose", "locale", "variables", "request_id", "wait_for", "client_ip")
    class VariablesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    EMAIL_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    LOCALE_FIELD_NUMBER: _ClassVar[int]
    VARIABLES_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    WAIT_FOR_FIELD_NUMBER: _ClassVar[int]
    CLIENT_IP_FIELD_NUMBER: _ClassVar[int]
    email: str
    purpose: str
    locale: str
    variables: _containers.ScalarMap[str, str]
    request_id: str
    wait_for: _mail_pb2.WaitFor
    client_ip: str
    def __init__(self, email: _Optional[str] = ..., purpose: _Optional[str] = ..., locale: _Optional[str] = ..., variables: _Optional[_Mapping[str, str]] = ..., request_id: _Optional[str] = ..., wait_for: _Optional[_Union[_mail_pb2.WaitFor, str]] = ..., client_ip: _Optional[str] = ...) -> None: ...

class SendCodeResponse(_message.Message):
    __slots__ = ("challenge_id", "reference", "expire_time", "next_send_time", "mail", "otp_code")
    CHALLENGE_ID_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    NEXT_SEND_TIME_FIELD_NUMBER: _ClassVar[int]
    MAIL_FIELD_NUMBER: _ClassVar[int]
    OTP_CODE_FIELD_NUMBER: _ClassVar[int]
    challenge_id: str
    reference: str
    expire_time: _timestamp_pb2.Timestamp
    next_send_time: _timestamp_pb2.Timestamp
    mail: _mail_pb2.Mail
    otp_code: str
    def __init__(self, challenge_id: _Optional[str] = ..., reference: _Optional[str] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., next_send_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., mail: _Optional[_Union[_mail_pb2.Mail, _Mapping]] = ..., otp_code: _Optional[str] = ...) -> None: ...

class ValidateCodeRequest(_message.Message):
    __slots__ = ("email", "code", "purpose", "challenge_id", "client_ip")
    EMAIL_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    CHALLENGE_ID_FIELD_NUMBER: _ClassVar[int]
    CLIENT_IP_FIELD_NUMBER: _ClassVar[int]
    email: str
    code: str
    purpose: str
    challenge_id: str
    client_ip: str
    def __init__(self, email: _Optional[str] = ..., code: _Optional[str] = ..., purpose: _Optional[str] = ..., challenge_id: _Optional[str] = ..., client_ip: _Optional[str] = ...) -> None: ...

class ValidateCodeResponse(_message.Message):
    __slots__ = ("result", "attempts_left", "retry_time")
    class Result(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        RESULT_UNSPECIFIED: _ClassVar[ValidateCodeResponse.Result]
        VALID: _ClassVar[ValidateCodeResponse.Result]
        WRONG_CODE: _ClassVar[ValidateCodeResponse.Result]
        NO_LIVE_CODE: _ClassVar[ValidateCodeResponse.Result]
        TOO_MANY_ATTEMPTS: _ClassVar[ValidateCodeResponse.Result]
    RESULT_UNSPECIFIED: ValidateCodeResponse.Result
    VALID: ValidateCodeResponse.Result
    WRONG_CODE: ValidateCodeResponse.Result
    NO_LIVE_CODE: ValidateCodeResponse.Result
    TOO_MANY_ATTEMPTS: ValidateCodeResponse.Result
    RESULT_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_LEFT_FIELD_NUMBER: _ClassVar[int]
    RETRY_TIME_FIELD_NUMBER: _ClassVar[int]
    result: ValidateCodeResponse.Result
    attempts_left: int
    retry_time: _timestamp_pb2.Timestamp
    def __init__(self, result: _Optional[_Union[ValidateCodeResponse.Result, str]] = ..., attempts_left: _Optional[int] = ..., retry_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class RevokeCodeRequest(_message.Message):
    __slots__ = ("email", "purpose", "challenge_id")
    EMAIL_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    CHALLENGE_ID_FIELD_NUMBER: _ClassVar[int]
    email: str
    purpose: str
    challenge_id: str
    def __init__(self, email: _Optional[str] = ..., purpose: _Optional[str] = ..., challenge_id: _Optional[str] = ...) -> None: ...

class RevokeCodeResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
