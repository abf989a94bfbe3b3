"""The node agent: daemon, local API, launchers, runners, command line."""

__version__ = "0.1.0"
