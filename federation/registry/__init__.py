"""The signed registry: who belongs to the consortium, under which CA, reachable where."""
