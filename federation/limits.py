"""Every number of the federation that a stranger can push, with its reason."""

from __future__ import annotations

from typing import Final

# --- names ------------------------------------------------------------------------------------------------
MAX_LABEL_CHARS: Final = 63
"""A site's or node's name is one DNS label (RFC 1035, 2.3.4): it stands in certificates and host names."""
MAX_TRUST_DOMAIN_CHARS: Final = 180
"""A node's full name must still fit into the 253 characters of a DNS name."""
