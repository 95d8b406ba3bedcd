"""Where state is kept. Nothing outside this package knows how."""
