"""Mails: what they say, the queue they wait in, the workers that send them, and the use cases."""
