"""The gateway of a site: the shells around ``core``, which decides."""
