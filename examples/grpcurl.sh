#!/usr/bin/env bash
# Calls by grpcurl, which asks the service for its contract: GRPC_REFLECTION, which `otpmail dev` sets.
server=${OTPMAIL_SERVER:-localhost:40700}

if ! command -v grpcurl >/dev/null; then
  echo "grpcurl is not installed; see https://github.com/fullstorydev/grpcurl#installation" >&2
  exit 1
fi

# The environments of this folder may be several, and not every one has grpcio's descriptions of the details of errors.
descriptions=("$(dirname "$0")"/../.venv*/lib/python3*/site-packages/google/rpc/error_details.proto)

grpcurl -plaintext "$server" list
grpcurl -plaintext "$server" describe otpmail.v1.OtpService
grpcurl -plaintext -d '{"email": "ada@example.org", "purpose": "sign-up"}' "$server" otpmail.v1.OtpService/SendCode

# A service that asks its callers who they are: -H "authorization: Bearer $OTPMAIL_TOKEN", and -cacert in place of -plaintext.
# Reflection has no contract of the details of errors. googleapis-common-protos has, and without it they show in base64.
details=()
if [ -e "${descriptions[0]}" ]; then
  details=(-use-reflection -import-path "${descriptions[0]%/google/rpc/*}" -proto google/rpc/error_details.proto)
fi
grpcurl -plaintext "${details[@]}" -d '{"email": "no address"}' "$server" otpmail.v1.OtpService/SendCode 2>&1 || true
