"""The door of HTTP: the methods by the Connect protocol, and pages, over HTTP/1.1."""
