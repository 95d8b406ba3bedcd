"""`otpmail check`: checks the settings, dials each relay, and rehearses a mail to the sender, which it does not send.

`command` prints what was found. `advice` says what a person has to change, and `ports` looks where the relay answers if
not where it was dialled.
"""
