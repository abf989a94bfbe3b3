"""Every number of the federation that a stranger can push, with its reason."""

from __future__ import annotations

from typing import Final

# --- names ------------------------------------------------------------------------------------------------
MAX_LABEL_CHARS: Final = 63
"""A site's or node's name is one DNS label (RFC 1035, 2.3.4): it stands in certificates and host names."""
MAX_TRUST_DOMAIN_CHARS: Final = 180
"""A node's full name must still fit into the 253 characters of a DNS name."""

# --- discovery --------------------------------------------------------------------------------------------
MAX_HINT_SITES: Final = 16
"""Trust domains of which hints are kept; without it a flood of invented sites fills our memory."""
MAX_HINTS_PER_SITE: Final = 64
"""Hints of one trust domain, whoever sends them; with the sites it bounds the whole table."""
MAX_HINTS_PER_NAME: Final = 8
"""Hints of one node: each costs whoever looks for the node one dial, so a spoofer buys at most that many."""
MAX_HINTS_PER_NAME_AND_HOST: Final = 2
"""Ports of one host for one node; without it one host takes all places of a node."""
MAX_TXT_BYTES: Final = 4096
"""What an announcement says about itself, keys and values; ours takes about 300 bytes."""
MAX_ANNOUNCEMENTS: Final = MAX_HINT_SITES * MAX_HINTS_PER_SITE
"""Announcements whose hints are remembered for their goodbye; no more than there are hints."""
MAX_OPEN_QUESTIONS: Final = 16
"""Announcements that are asked about at once; without it a flood of half ones has us flood the network."""
QUESTION_S: Final = 3.0
"""Time for an answer about an announcement; its host may hold it back for over a second (RFC 6762, 6)."""
FIRST_PAUSE_S: Final = 1.0
"""Between the first two questions for nodes (RFC 6762, 5.2); doubles up to ``LAST_PAUSE_S``."""
LAST_PAUSE_S: Final = 128.0
"""Between two questions for nodes later on: what a flood displaced is heard again by then, and a site of 64
nodes sends 20 kB for it."""

# --- the registry: what one site may say of itself ---------------------------------------------------------
MAX_GATEWAYS: Final = 4
"""Gateways of one site: a peer dials each in turn, so a long list is a long wait and a port scan."""
MAX_KEY_PEM_CHARS: Final = 1024
"""One Ed25519 key in PEM has 120 characters; every member parses it."""
MAX_FORMER_RECEIPTS_KEYS: Final = 8
"""Keys that a site signed receipts with before the present one; a receipt may be tried against all."""
MAX_UNIX_TIME_S: Final = 1 << 37
"""A moment that anybody means, up to the year 6325; calendars and SQLite keep no endless ones."""
MAX_REGION_CHARS: Final = 64
"""A region is shown in tables."""
MAX_SITE_DOCUMENT_BYTES: Final = 32 << 10
"""One site's document: every member keeps all of them (10,000 of these are 320 MB at the very worst)."""
MAX_SITE_REQUEST_BYTES: Final = 64 << 10
"""A request file holds one document and its proofs; a person hands it to signers, who read it whole."""

# --- the registry: what a site may publish ------------------------------------------------------------------
MAX_MODEL_NAME_CHARS: Final = 64
"""``SITE/NAME`` then fits the agent's 128 characters for a model's name."""
MAX_SITE_MODELS: Final = 256
"""Models of one site: one site must not fill the memory of all others."""
MAX_SITE_LIST_BYTES: Final = 128 << 10
"""The signed list of MAX_SITE_MODELS models, at about 350 bytes each."""
MAX_LICENCE_CHARS: Final = 64
"""An SPDX id, or a name in its form: the longest of SPDX has 36; it is signed, stored and printed."""
MAX_IMAGE_BYTES: Final = 1 << 42
"""An image has at most 2^18 pieces of 16 MiB; a larger figure would only confuse those who plan by it."""

# --- the registry: what the signers of policies may publish -------------------------------------------------
MAX_POLICY_VERSIONS: Final = 256
"""Versions that the signed list names. The past ones stay, since old receipts are priced by them: one a month
for 21 years."""
MAX_POLICIES_BYTES: Final = 16 << 20
"""All versions of the policy together: every gateway keeps them."""
MAX_PENDING_POLICIES: Final = 4
"""Versions that are published and not in force yet; each is fetched and parsed by everybody."""
MAX_POLICY_LIST_BYTES: Final = 256 << 10
"""The signed list of MAX_POLICY_VERSIONS versions, at about 300 bytes each, with its signatures."""
MAX_AUDITORS: Final = 16
"""Auditors whose resolutions of disputes count; each signed resolution is tried against all of their keys."""
MAX_AUDITORS_BYTES: Final = 32 << 10
"""The list of MAX_AUDITORS names and keys."""

# --- the registry: what a mirror may send -------------------------------------------------------------------
MAX_SITES: Final = 10_000
"""Members of one consortium: each is a file to fetch and a line to keep."""
MAX_SITES_EVER: Final = 20_000
"""Members and former ones: a removed site's list stays in the snapshot, where nothing may vanish."""
MAX_ROOT_BYTES: Final = 64 << 10
"""A root with MAX_ROLE_KEYS keys in each role has about 8 kB."""
MAX_TIMESTAMP_BYTES: Final = 16 << 10
"""The timestamp names one file. It is fetched before anything in it is believed."""
MAX_SNAPSHOT_BYTES: Final = 4 << 20
"""A line of about 150 bytes for each of MAX_SITES_EVER sites."""
MAX_MEMBERSHIP_BYTES: Final = 16 << 20
"""About 800 bytes (a file, a delegation, a key) for each of MAX_SITES sites."""
MAX_REGISTRY_BYTES: Final = 512 << 20
"""All that one refresh takes in, and the largest cache that is read: many small files fill a disk as well."""
MAX_ROOT_ROTATIONS: Final = 256
"""Roots in the chain from the pinned one, one a month for 21 years; each costs a fetch."""
MAX_ROLE_KEYS: Final = 9
"""Keys of one role: with more, nobody knows who holds them."""
MAX_ROLE_VERSION: Final = 1 << 53
"""Versions are kept in SQLite and JSON; without it, a stolen online key breaks the store of marks."""
MAX_CLOCK_LEAD_S: Final = 600.0
"""How far ahead of this node's clock a registry may have been signed. Without it, a stolen online key could
push the lowest accepted time into the future, and every honest registry after it would seem expired."""
MAX_TRUST_STALE_S: Final = 7 * 86400.0
"""How long members are trusted after the last verified refresh, when the registry has expired since."""
FETCH_TIMEOUT_S: Final = 10.0
"""The longest silence of a source."""
FETCH_DEADLINE_S: Final = 60.0
"""The longest that one file takes: a source that sends a byte now and then is never silent. 16 MiB in that
time are 0.3 MB/s."""
REFRESH_DEADLINE_S: Final = 300.0
"""The longest that one source is asked in one refresh: thousands of slow files are slower than one."""
MAX_PARALLEL_FETCHES: Final = 8
"""Files asked for at once: a new member fetches two a site, each after round trips. More would be rude."""
MAX_REDIRECTS: Final = 3
"""A mirror may send a client elsewhere, but not round in circles."""

# --- identity and invites ---------------------------------------------------------------------------------
CLOCK_SKEW_S: Final = 30.0
"""How far two machines' clocks may differ. More of it lets an ended certificate live on; none of it refuses
honest nodes whose clock is a second behind."""
NODE_CERTIFICATE_S: Final = 24 * 3600.0
"""A node certificate's life. Without the cap a stolen key that no list names yet is good for as long as a
careless site's CA says."""
AUTHORITY_CERTIFICATE_S: Final = 365 * 24 * 3600.0
"""A site CA's life; without it a CA that everybody forgot goes on vouching for nodes."""
MAX_AUTHORITIES_PER_SITE: Final = 2
"""The CA and its successor, while one takes over from the other. Without it one site's entry costs all the
others memory and time."""
MAX_CERTIFICATE_PEM_BYTES: Final = 8192
"""A CA under the longest trust domain, all one-letter labels, has 6 KB. Without it callers make us parse
megabytes."""
MAX_REQUEST_BYTES: Final = 2048
"""A certificate request (DER); an honest one has 270 to 750 bytes. It is parsed before anybody is known:
without it strangers send keys whose check takes long."""
MAX_HOST_CHARS: Final = 253
"""A DNS name in its text form (RFC 1035, 2.3.4); an address is kept and shown."""
MAX_INVITE_CHARS: Final = 32 * 1024
"""An invite with the largest CA and all sources has 22 KB; the file that it is read from may be endless."""
MAX_REGISTRY_SOURCES: Final = 8
"""Places of the registry that an invite names; each is dialled, one after the other."""
MAX_SOURCE_CHARS: Final = 512
"""One such place, a URL or a folder."""

# --- policy files -----------------------------------------------------------------------------------------
MAX_POLICY_BYTES: Final = 512 << 10
"""One policy file; an account takes about 80 bytes. Every agent parses what signers or mirrors hand out."""
MAX_POLICY_DEPTH: Final = 16
"""Levels of one file, where accounts take nine; without it ``[[[[`` takes minutes to refuse."""
MAX_POLICY_NODES: Final = 60_000
"""Scalars, lists and mappings of one file: about a second and a half of parsing."""
MAX_POLICY_SCALAR_CHARS: Final = 1000
"""One text in a file; sentences are shown to people, names are compared."""
MAX_POLICY_PROBLEMS: Final = 100
"""Problems reported of one file; a file with more is not a policy that somebody wrote."""
MAX_ACCOUNTS: Final = 5000
"""Accounts that one file names; each decision walks siblings. Open accounts need no entry."""
MAX_CLASSES: Final = 16
"""Classes of accounts: their reserves share half of a donor's devices."""
MAX_RULES: Final = 256
"""Rules of one section: each is tried for each request."""
MAX_POLICY_NAMES: Final = 64
"""Purposes, classes of devices, or entries of one list in a rule; tried for each request as well."""
MAX_POLICY_TESTS: Final = 1000
"""Tests of one file; a gateway runs them before it takes the file."""
MAX_WEIGHT: Final = 1_000_000
"""Weights are multiplied by usage in integers: no product may grow without bound."""
MAX_POLICY_DURATION_S: Final = 366 * 86400
"""The longest time in a policy; a longer one is a unit mistake."""

# --- the ledger -------------------------------------------------------------------------------------------
MAX_RECEIPT_BYTES: Final = 2048
"""One receipt's body; an honest one has about 550 bytes, with eight devices 900. All sites keep all."""
MAX_RECEIPT_DEVICES: Final = 16
"""Devices of one lease; each is looked up when a receipt is taken."""
RECEIPT_PAGE: Final = 1000
"""Receipts of one page between gateways: at most 2.2 MB, below the message limit; more are refused unread."""
MAX_LEDGER_HEADS: Final = MAX_SITES
"""Heads that one peer may name: one a donor."""
RECEIPT_INTERVAL_S: Final = 600
"""Between two receipts of a lease."""
COUNTERSIGN_INTERVALS: Final = 6
"""A receipt that its borrower has not countersigned after this many intervals counts as ``unilateral``."""
ARREARS_S: Final = 24 * 3600
"""How long receipts may be unilateral before their borrower gets no new leases."""
LEDGER_CLOCK_LEAD_S: Final = 30
"""How far ahead of our clock a receipt may end: two clocks' tolerated skew. Without it a donor charges the
future, or lets use fall into an epoch where it counts longest."""
LEASE_OVERTIME_S: Final = 600
"""How much longer than the policy's longest lease a receipt may run: a drain ends later than its deadline."""
MAX_LEDGER_EVIDENCE: Final = 16
"""Contradictions kept of one donor; one proves it, a donor that signs thousands must not fill our disk."""
MAX_DISPUTES_PER_LEASE: Final = 4
"""Disputes kept of one lease; a borrower that changes its mind for ever must not fill our disk."""
MAX_SIGNED_REQUEST_BYTES: Final = 2048
"""One signed request; an honest one has 400 bytes."""
REQUEST_LIFE_S: Final = 7 * 86400
"""How old a signed request may be: as long as it may wait in a queue. Older ones are replays."""
MAX_CARBON_HOURS: Final = 24 * 14
"""Hours in one carbon series: a week back, a week ahead."""
MAX_CARBON_G_PER_KWH: Final = 5000
"""No grid is dirtier; a larger figure would only push others away."""
MAX_CARBON_SOURCE_CHARS: Final = 200
"""Where a series comes from, shown in tables."""
MAX_CARBON_BYTES: Final = 8 << 10
"""One signed series; MAX_CARBON_HOURS figures take 2 kB."""
MAX_EXPORT_LINE_BYTES: Final = 32 << 20
"""One line of an export; the longest honest ones are the registry's list of members and a policy."""
LEDGER_UNCONFIRMED_S: Final = 1200.0
"""How long a gateway that has just started waits for another one's word on its own chain before it writes on:
two intervals. Without it, one that was restored from a backup would sign a second history."""

# --- fair share -------------------------------------------------------------------------------------------
MAX_DECAY_EPOCHS: Final = 60_000
"""Epochs that use counts for, 416 days: the table of a policy with a half life of years would fill memory,
and take seconds to make."""
MAX_SPREAD_EPOCHS: Final = 5_000
"""Epochs that one receipt is spread over, 34 days; without it one that claims decades fills memory."""
MAX_REASON_CHARS: Final = 512
"""A text of a donor's reason; it is shown to the person who waits."""
MAX_REASON_NUMBER: Final = 1 << 53
"""A number of a donor's reason; it is kept and shown as JSON."""
LEDGER_CLOCK_JUMP_S: Final = 600
"""How far a donor's clock may move against time since its start before it signs nothing more: a receipt from
2036 would be taken by nobody for ten years, nor any after it in its chain."""
