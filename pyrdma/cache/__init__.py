"""The weight cache: the process on each node that owns replicas, proves pieces and maps images to others."""
