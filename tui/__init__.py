"""The terminal UI of operators, over the local API."""
