"""The local API: how the command line and the terminal UI talk to the agent of this machine."""
