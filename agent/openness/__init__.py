"""What a site publishes of its queue: waits, reclaims, shares and terms, for anybody."""
