"""Connections to the relays: dialling, sending, and what is known of each relay."""
