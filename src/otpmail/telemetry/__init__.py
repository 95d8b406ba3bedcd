"""Logs and metrics for operators; each is an Observer of the service's events."""
