"""The screens of the terminal UI: each shows data that a pure module made."""
