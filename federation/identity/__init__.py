"""Who a node is: names, keys, certificates, invites."""
