"""One service by several processes on one port (PROCESSES): starts them, starts them again, and stops them together."""
