"""A mail from its fields to its octets: checked, then written. Pure: no loop, no socket, no clock."""
