"""A mail as text and octets: its fields checked, and written. Pure: no loop, no socket, no clock."""
