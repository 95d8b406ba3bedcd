"""The rules about codes as they are by default, for tests of what they are no part of."""

from otpmail.limits.rules import Windows
from otpmail.otp.codes import CodeBook
from otpmail.otp.policy import Policy

POLICY = Policy(attempts=5, failures=Windows(10, 30), sends=Windows(10, 30), resend=30.0)
BOOK = CodeBook({"k1": bytes(32)}, digits=6)
