"""What the project's figures come from; each benchmark prints one JSON object a line."""
