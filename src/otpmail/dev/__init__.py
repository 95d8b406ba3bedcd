"""The relay of `otpmail dev`, for a developer's machine: it accepts every mail and delivers none."""
