"""One-time codes: how they come about, the rules for trying them, and the use cases."""
