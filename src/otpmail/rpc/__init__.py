"""The door of gRPC: its server, the port, TLS, health, reflection, and the original's contract."""
