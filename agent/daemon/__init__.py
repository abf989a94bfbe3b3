"""The node agent's process: what ``pyrdma-agent serve`` runs. No torch, numpy or UCX in here."""
