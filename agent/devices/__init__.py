"""What a node lends, and how its owner takes it back: providers, ownership, and the loop that keeps it."""
