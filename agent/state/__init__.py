"""What outlives the agent: names, manifests and leases, in one SQLite file with one writer."""

from agent.state.records import LeaseRecord, NameRecord
from agent.state.store import Store

__all__ = ["LeaseRecord", "NameRecord", "Store"]
