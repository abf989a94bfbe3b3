"""Who works with a node: people of the machine and holders of tokens, and the accounts that they may use."""
