"""Limits of what the service takes in: places for mails, octets of memory, connections of callers."""
