"""`otpmail dev`: the service with a relay of its own that keeps every mail, for a developer's machine."""
