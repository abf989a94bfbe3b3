"""Every number of the terminal UI that the agent, or a stranger through it, can push, with its reason."""

from __future__ import annotations

from typing import Final

MAX_ROWS_SHOWN: Final = 500
"""Rows of one table; without it an answer of 4 MiB of short rows makes each redraw take seconds."""
MAX_CELL_BYTES: Final = 256
"""A name in a table or line; without it one name of megabytes is measured and cut at each redraw."""
MAX_LINE_BYTES: Final = 2048
"""A sentence on a page of its own: as much as the agent lets an error's sentence have."""
MAX_DEVICES_LISTED: Final = 256
"""Devices of one node on its page; more than any machine has."""
HISTORY_SAMPLES: Final = 30
"""Samples of each institution behind its sparkline; only institutions of the last answer are remembered."""
RATE_SAMPLES: Final = 5
"""Samples behind the rate of a running transfer: short enough to follow, long enough not to jump."""
STALE_S: Final = 60.0
"""A site or node that was ready, but was last heard of longer ago, is shown as stale."""
CERTIFICATE_WARN_S: Final = 6 * 3600.0
"""A quarter of a node certificate's 24 hours; renewal comes at half of them, so this one has failed."""
OVERDUE_INTERVALS: Final = 3
"""Intervals without an answer after which the banner says so, while the question is still open."""
GIVE_UP_INTERVALS: Final = 4
"""Intervals that one question may take; without it an agent that accepts and is silent is asked once."""
