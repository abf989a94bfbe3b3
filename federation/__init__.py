"""Who is in a consortium, and how that is known: identity, registry, discovery. Rules are pure functions."""
