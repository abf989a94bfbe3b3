"""A node's site: its files, how nodes join it, and whom it believes."""
