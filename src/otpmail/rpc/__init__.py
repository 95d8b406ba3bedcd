"""The gRPC edge: decode, call a use case, encode, and map errors. No rule about codes or mail is made here."""
