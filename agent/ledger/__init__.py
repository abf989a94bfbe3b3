"""A gateway's books of use: the shell around ``federation.ledger``, its checks in bulk, its exchange."""
