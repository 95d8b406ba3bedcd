"""What happened, for those who run the service: each back end is an Observer in a file of its own."""
