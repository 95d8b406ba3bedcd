"""SMTP after sign-in as a protocol without I/O: commands to write, replies to read, and what they mean for a mail."""
