"""otpmail gets a mail, or a one-time code in a mail, to a person: gRPC in, SMTP out, on connections already open."""
