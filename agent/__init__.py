"""The node agent: daemon, local API, launchers, runners, command line."""
