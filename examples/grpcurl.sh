#!/usr/bin/env bash
# Calls by grpcurl, which asks the service for its contract: GRPC_REFLECTION, which `otpmail dev` sets.
server=${OTPMAIL_SERVER:-localhost:40700}
packages=("$(dirname "$0")"/../.venv*/lib/python3*/site-packages)

grpcurl -plaintext "$server" list
grpcurl -plaintext "$server" describe otpmail.v1.OtpService
grpcurl -plaintext -d '{"email": "ada@example.org", "purpose": "sign-up"}' "$server" otpmail.v1.OtpService/SendCode

# A service that asks its callers who they are: -H "authorization: Bearer $OTPMAIL_TOKEN", and -cacert in place of -plaintext.
# Reflection has no contract of the details of errors. grpcio's packages have, and without it they show in base64.
details=(-use-reflection -import-path "${packages[0]}" -proto google/rpc/error_details.proto)
grpcurl -plaintext "${details[@]}" -d '{"email": "no address"}' "$server" otpmail.v1.OtpService/SendCode 2>&1 || true
