"""The command line. Modules here import click and little else; the rest is imported when a command runs."""
