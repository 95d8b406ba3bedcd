"""The way to the relay: connections that stay open, and what is said on them. Nothing outside knows aiosmtplib."""
