"""The use cases of mail: submissions, their admission and idempotency, the service, streams of mails."""
