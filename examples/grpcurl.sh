#!/usr/bin/env bash
# Calls by grpcurl, which asks the service for its contract: GRPC_REFLECTION, which `otpmail dev` sets.
server=${OTPMAIL_SERVER:-localhost:40700}

grpcurl -plaintext "$server" list
grpcurl -plaintext "$server" describe otpmail.v1.OtpService
grpcurl -plaintext -d '{"email": "ada@example.org", "purpose": "sign-up"}' "$server" otpmail.v1.OtpService/SendCode

# A service that asks its callers who they are: -H "authorization: Bearer $OTPMAIL_TOKEN", and -cacert in place of -plaintext.
grpcurl -plaintext -d '{"email": "no address"}' "$server" otpmail.v1.OtpService/SendCode 2>&1 || true
