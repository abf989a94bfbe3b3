"""Where nodes of a site may be reached: hints, never identity."""
