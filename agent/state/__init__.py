"""What outlives the agent: names, manifests, leases, a site's books; one SQLite file with one writer."""

from agent.state.file import StateFile
from agent.state.marks import RegistryMarks
from agent.state.records import LeaseRecord, MemberRecord, NameRecord, SiteLeaseRecord
from agent.state.site_store import Redemption, SiteStore, forget_site
from agent.state.store import Store

__all__ = [
    "LeaseRecord",
    "MemberRecord",
    "NameRecord",
    "Redemption",
    "RegistryMarks",
    "SiteLeaseRecord",
    "SiteStore",
    "StateFile",
    "Store",
    "forget_site",
]
