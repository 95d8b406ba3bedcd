"""The methods as every door offers them: decode, call a use case, encode. No rule about codes or mail is made here."""
