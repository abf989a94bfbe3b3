"""Every number of the agent that a caller, a peer or a child process can push, with its reason."""

from __future__ import annotations

from typing import Final

from pyrdma.limits import MIB

# --- gRPC -------------------------------------------------------------------------------------------------
MAX_GRPC_MESSAGE_BYTES: Final = 4 * MIB
"""One message either way; more travels as a stream. Without it one request fills our memory."""
MANIFEST_CHUNK_BYTES: Final = 1 * MIB
"""A manifest's part in one message; leaves room below the message limit."""
MAX_CONCURRENT_RPCS: Final = 256
"""Calls that one socket works on at once; without it idle callers hold memory and tasks without end."""
MAX_ERROR_TEXT_BYTES: Final = 2048
"""A sentence or fix in trailing metadata; gRPC caps the total at 8 KiB and drops the whole status past it."""
SHORT_CALL_S: Final = 10.0
"""Deadline of a call that only reads what the agent knows."""
PEER_CALL_S: Final = 10.0
"""Deadline of a question to a peer; without it a silent peer stops every start."""
MANIFEST_CALL_S: Final = 60.0
"""Deadline of a manifest's stream: 64 MiB at a little over 1 MiB/s."""
REFRESH_CALL_S: Final = 60.0
"""Deadline of a reading of the registry: many small files from a slow server."""
LONG_CALL_S: Final = 24 * 3600.0
"""Deadline of a publication or start: terabytes over a slow line fit, a lost call does not stay for ever."""
STOP_CALL_S: Final = 60.0
"""Deadline of a lease's end; the runner's own grace is far shorter."""
MIN_PULL_BYTES_PER_S: Final = 1 * MIB
"""A pull slower than this is given up: it bounds how long a holder keeps a source open for one peer."""
SOURCE_SLACK_S: Final = 60.0
"""Added to the time that a source may stay open, for set-up and small images."""
MAX_OPEN_SOURCES: Final = 64
"""Sources that all peers together hold open here; without it one peer takes every descriptor."""
MAX_IMAGE_QUESTIONS: Final = 32
"""Processes that are being handed an image at once; without it idle ones hold every descriptor."""
IMAGE_QUESTION_S: Final = 10.0
"""A process that has not asked, or not taken its answer, by then is let go of."""
ACCEPT_PAUSE_S: Final = 0.5
"""Between two tries to accept while the process has no descriptor left; without it a full process spins."""
SERVER_GRACE_S: Final = 1.0
"""What calls in progress get when the agent stops."""

# --- between nodes and sites ------------------------------------------------------------------------------
MAX_NETWORK_RPCS: Final = 2048
"""Calls that the network port works on at once: relayed connections, attended leases, questions."""
MAX_CONNECTION_AGE_S: Final = 900.0
"""A peer's connection is made anew by then: a CA that left the registry is not believed longer than that."""
MAX_CONNECTION_AGE_GRACE_S: Final = 3600.0
"""Calls on an aged connection get this long to end: a pull or a conversation is not cut in the middle."""
MAX_CHANNELS: Final = 512
"""Connections that this node keeps open to others; a large registry must not take every descriptor."""
CHANNEL_DRAIN_S: Final = MAX_CONNECTION_AGE_GRACE_S
"""What calls under way get on a channel that was replaced with our certificate, as on an aged connection."""
REFUSALS_LOGGED: Final = 5
"""Refused calls of one address that are logged at once; without it whoever was refused fills our disk."""
REFUSALS_LOGGED_PER_S: Final = 1 / 60
"""Such lines of one address after that: one a minute says that it goes on."""
REFUSALS_LOGGED_ALL: Final = 100
"""The same for all addresses together."""
REFUSALS_LOGGED_PER_S_ALL: Final = 1.0
"""Such lines of all addresses together after that."""
MAX_REFUSED_CALLERS: Final = 1024
"""Addresses whose lines are counted; a caller must have come through the handshake to be one."""
RECONNECT_LAST_S: Final = 1.0
"""Longest pause between two tries to connect; a longer one would hide a peer that has just come up."""

OFFER_CALL_S: Final = 5.0
"""A donor that has not answered by then is passed over: a person waits."""
MAX_ASK_WAIT_S: Final = 20.0
"""How long a donor keeps a question open whose request waits; the borrower asks again for its place."""
LEASE_ID_CHARS: Final = 16
"""Hexadecimal digits of a lease's id: 64 bits, so that nobody finds two requests with one id by chance."""
PLACE_TTL_S: Final = 60.0
"""A place in the queue that was not asked for again is given up: three questions may be lost."""
MAX_LEASES_PER_USER: Final = 16
"""Leases of one person on one node; without it one of many users takes all that the node may have."""
MAX_USAGE_ACCOUNTS: Final = 256
"""Accounts whose use one call asks for; each is a look into the books and a few lines in the answer."""
VISITOR_CALL_S: Final = 10.0
"""Deadline of a visitor's short call, on both sides."""
MAX_VISITOR_MESSAGE_BYTES: Final = 256 << 10
"""One message on the visitors' port: a part of a relayed connection has 64 KiB."""
MAX_VISITOR_RPCS: Final = 512
"""Calls that the visitors' port works on at once; strangers' are over in milliseconds."""
MAX_VISITOR_CONNECTIONS: Final = 256
"""Connections to the visitors' port at once; without it strangers take every descriptor of the gateway."""
MAX_VISITOR_STREAMS: Final = 72
"""Calls on one such connection at once: the streams of one token, and its short calls."""
VISITOR_IDLE_S: Final = 60.0
"""A connection to the visitors' port without a call is closed after that; strangers keep none."""
MAX_STREAMS_PER_TOKEN: Final = 64
"""Starts, attended leases and relayed connections of one token at once; without it one laptop takes all."""
VISITOR_BURST: Final = 20
"""Tries of one address to open a session at once: an honest one takes two calls each 7 minutes."""
VISITOR_PER_S: Final = 1.0
"""Such calls of one address a second after its burst: to guess at secrets is hopeless, and no load."""
VISITOR_BURST_ALL: Final = 200
"""The same for all addresses together: a class that begins its exercise."""
VISITOR_PER_S_ALL: Final = 20.0
"""Such calls of all addresses together a second, after their burst."""
MAX_VISITOR_ADDRESSES: Final = 4096
"""Addresses whose calls are counted; IPv6 ones count by their /64."""
SESSION_LIFE_S: Final = 900.0
"""A session of a token is good for that long; its holder opens another before. It bounds how long one that
was stolen from a laptop's memory, or whose token has ended meanwhile, goes on."""
MAX_SESSIONS_PER_TOKEN: Final = 8
"""Sessions of one token at once: commands that run beside each other, and renewals."""
VISITOR_ABSENT_S: Final = 120.0
"""A lease that its visitor has not attended for this long is stopped: the laptop is gone, or closed."""
MAX_USAGE_RECEIPTS: Final = 10
"""Receipts of one account in an answer about its use; all of them are in `ledger show`."""
MAX_TOKENS: Final = 1024
"""Tokens of one site that may be used; each is a row, and a person who has to know of it."""
MAX_TOKEN_LIFETIME_S: Final = 366 * 86400.0
"""Longest life of a token; one that never ends is found on a laptop that was sold."""
MAX_TOKEN_CHARS: Final = 16 * 1024
"""A token with the largest CA has 12 kB; the file that it is read from may be endless."""
MAX_DURATION_S: Final = 365 * 86400
"""The longest time that a borrower may ask a lease for; policies allow far less."""
MAX_SIGNATURE_BYTES: Final = 64
"""An Ed25519 signature."""
MAX_QUEUE_LISTED: Final = 1000
"""Waiting requests in one answer, the first ones; the answer stays below the message limit."""
MAX_PAGE_CONNECTIONS: Final = 64
"""Connections to a gateway's page at once; without it strangers take every descriptor."""
PAGE_CALL_S: Final = 10.0
"""A connection to it from the first byte to the last; one that says or reads nothing is over by then."""
MAX_PAGE_HEAD_BYTES: Final = 16 << 10
"""A request to it with all headers; browsers' have 2 KiB. It is read into memory."""
PAGE_KEPT_S: Final = 5.0
"""A page that was made is shown this long: however many look at it, the queue is counted once."""
METER_EVERY_S: Final = 10.0
"""Between two looks at what leases use: the idle discount is exact to that much, and late receipts follow."""
MIN_MEASURED_BYTES: Final = 64 << 20
"""A pull of less says more of its beginning than of the way."""
EGRESS_EVERY_S: Final = 5.0
"""Between two looks at what left the site: so late it is written down; the quota ends without it."""
EGRESS_DAYS_KEPT: Final = 32
"""Days whose counts are kept; a clock that jumps must not let them grow for ever."""
CLOCK_READ_EVERY_S: Final = 60.0
"""Between two looks at what time it is for people; hours of lending are exact to that much."""
MAX_LOG_LINES_WAITING: Final = 10_000
"""Decisions that wait to be written down; a disk that hangs must not fill the memory."""
MAX_LOG_LINES_AT_ONCE: Final = 500
"""Of them in one transaction: leases wait for the same file."""
LOG_AGAIN_S: Final = 5.0
"""Pause after a write of such lines that failed."""
MAX_LOG_LINE_BYTES: Final = 64 << 10
"""One such line: a decision on a ranking of many accounts has megabytes, and they would fill the disk."""
MAX_LATE_RECEIPTS: Final = 10_000
"""Last receipts that wait until the books may be written; books that stay locked must not fill the memory."""
MAX_QUEUE_OF_INSTITUTION: Final = 2_500
"""Requests of one institution in a queue; without it one with many accounts fills it for the others."""
MAX_REQUESTS_KNOWN: Final = 20_000
"""Requests whose signature a donor remembers: all that may wait, and as many that were answered."""
RANK_EVERY_S: Final = 60.0
"""Between two rankings of accounts when nothing has changed but the age of the books."""
RANK_SOON_S: Final = 1.0
"""Pause after a ranking: the books of a busy consortium change more often than anybody can read them."""
MAX_HISTORY_ROWS: Final = 200_000
"""Waits, and reclaims, that a gateway keeps for a week; a clock that jumps must not let them grow on."""
MAX_REASONS: Final = 16
"""Reasons why a request waits in one answer; there are eleven kinds."""
WIDEN_S: Final = 300.0
"""A request that waits this long is asked of further donors, and again each such time."""
ASK_AGAIN_S: Final = 2.0
"""Pause before a donor that could not be reached is asked again for a place that it gave."""
REPORT_CALL_S: Final = 5.0
"""Deadline of a node's report; the next one follows soon."""
REPORT_EVERY_S: Final = 2.0
"""Between two reports of a node to its gateway."""
SITE_POLL_S: Final = 5.0
"""Between two questions to each other gateway how its site is."""
SITE_SILENCE_S: Final = 15.0
"""A gateway that has not answered for this long counts as lost, and is not asked for offers or images."""
POLICY_LOOK_S: Final = 5.0
"""Between two looks at the overlay's file and at whether another version of the policy has begun."""
LEDGER_CALL_S: Final = 30.0
"""A page of receipts, 2 MB at the most, over a slow line."""
LEDGER_EVERY_S: Final = 60.0
"""Between two looks at each other gateway's books; spread by a fifth, so that gateways do not ask in step."""
LEDGER_ROUND_S: Final = 240.0
"""One round with one gateway; a peer that answers slowly for ever must not keep the others waiting."""
MAX_LEDGER_PEERS: Final = 2
"""Other gateways whose books are read at once: signatures are checked on all cores as it is."""
MAX_LEDGER_NOTES_BYTES: Final = 2 * MIB
"""Evidence and statements in one message, about 400 contradictions; what does not fit is told by others."""
MAX_SITE_QUESTIONS: Final = 16
"""Other gateways asked at once; a large consortium must not take every descriptor at the same moment."""
MAX_DONORS_ASKED: Final = 3
"""Donors that one request asks at once: each that offers holds a device for the offer's time."""
REGISTRY_EVERY_S: Final = 900.0
"""Between two readings of the registry: a member that was removed is refused within that."""
REGISTRY_AGAIN_S: Final = 5.0
"""Pause after a reading that failed, or while this site waits to be admitted: mirrors are not hammered."""
CERTIFICATE_AGAIN_S: Final = 60.0
"""Pause after a certificate could not be renewed; half of its life is left for such tries."""
MAX_BROKERED: Final = 1024
"""Leases that the nodes of one site borrow from others at the same time."""
TICK_S: Final = 1.0
"""Between two looks at the gateway's lease clock when nothing is due before."""
TELL_AGAIN_S: Final = 2.0
"""Pause before a node is told again that a lease goes on; it refuses that lease's requests meanwhile."""
ATTEND_AGAIN_S: Final = 1.0
"""Pause before a lease is attended again after the call broke; its time runs on meanwhile."""
NOTICE_AGAIN_S: Final = 1.0
"""A lease's notices that come closer count as one; without it a donor fills its borrower's log and disk."""
GIVE_BACK_S: Final = 10.0
"""What a donor gets to take a lease back before the borrower goes on; the donor ends it by its time."""
RELAY_CALL_S: Final = 24 * 3600.0
"""Longest life of one relayed connection."""
MAX_DEVICES: Final = 64
"""Devices that one node reports; a machine has far fewer."""
MAX_REPORTED_IMAGES: Final = 256
"""Images, and leases, in one report; the report stays far below the message limit."""
MAX_REPORTED_NAMES: Final = 16
"""Names of one image in a report."""
MAX_REASON_BYTES: Final = 512
"""Why a lease ended, as another agent says it; it is stored and printed."""
MAX_ID_CHARS: Final = 64
"""A lease's, offer's or request's id; ours have 16."""
MAX_DEVICE_CLASSES: Final = 64
"""Classes of devices in another site's summary; a policy names a dozen."""
MAX_SITE_DEVICES: Final = 100_000
"""Devices of a class that another site may claim to lend; without it one summary bends everybody's shares."""
MAX_KIND_CHARS: Final = 16
"""What kind of device a node reports, such as ``cpu``; it is shown in tables."""
MAX_DEVICE_BYTES: Final = 1 << 48
"""Memory of one device as its node reports it, 256 TiB; more would only confuse those who plan by it."""
MAX_START_EVENTS: Final = 1000
"""What another agent tells of one start, but for progress, of which the newest counts; an honest start has a
few dozen. Without it a donor fills the memory of whoever waits for it."""
MAX_EVENT_PARTS: Final = 64
"""Phases and sources in one such event; an honest one has a dozen."""

# --- gateway ----------------------------------------------------------------------------------------------
NODE_SILENCE_S: Final = 10.0
"""A node that has not reported for this long gets no lease: five reports are missing."""
NODE_LOST_LEASE_S: Final = 30.0
"""A lease ends when its node has been silent for this long, or for its time to live if that is less: its
borrower must not wait for what is not there, and must not lose it to a switch that starts again."""
NODE_FORGOTTEN_S: Final = 3600.0
"""A silent node without a lease is struck off the fleet by then; until then a refusal can still name it."""
MAX_NODES: Final = 1024
"""Nodes in one site's fleet; each costs a report in memory and a look per request."""
OFFER_TTL_S: Final = 30.0
"""How long a device waits for its borrower's answer; without it one that only asks blocks every device."""
PLACE_TOUCH_S: Final = 5.0
"""Questions for a place that come closer than this count as one; without it a flood of them fills memory."""
MAX_CLAIMED_WAIT_S: Final = 3600
"""What a borrower may say that its request has waited elsewhere; without it everybody has waited for days."""
MAX_LINE_LOOKS: Final = 256
"""Requests that are tried on free devices after one event, in their order: it bounds what an event costs."""
MAX_PLACE_LOOKS: Final = 16
"""Requests that go first, of which the answer to one that waits names the first rival."""
MAX_VICTIM_LOOKS: Final = 4
"""Requests at the head of the line for which other guests may have to make room, tried after one event."""
COMPARE_GUESTS_S: Final = 60.0
"""Between two looks whether a guest should make room for another; each looks at every lease."""
MAX_DURATIONS_KEPT: Final = 256
"""How long the last leases took; estimates of waiting times come from them."""
MAX_QUEUE: Final = 10_000
"""Requests in one donor's queue; each costs memory, and a look when its account is ranked."""
KILL_SLACK_S: Final = 10.0
"""What a node gets past a notice's deadline to kill a runner and to say so, before its lease ends without."""
MAX_OFFERS: Final = 256
"""Open offers of one site at once; each holds a device for nothing yet."""
LEASE_TTL_S: Final = 600.0
"""A lease ends this long after its last renewal: a borrower that is gone frees the device without a word."""
MAX_LEASE_DURATION_S: Final = 7 * 86400.0
"""A lease ends by then however often it is renewed, unless a policy says another time."""
MIN_LEASE_TTL_S: Final = 1.0
"""A donor that names less is not believed; it would have the borrower ask without a pause."""
MAX_LEASE_TTL_S: Final = 24 * 3600.0
"""A donor that names more is not believed; its borrower would sit on an endpoint that died a day ago."""
MAX_SITE_LEASES: Final = 1024
"""Leases and open offers in one site's book; each event copies the book, and each lease is a row on disk."""
MAX_LEASE_REST_CHARS: Final = 16_384
"""What a row of a lease says beyond its columns: a signature, classes, the reason of a notice; ours have 600.
The file is the agent's own, but disks go bad: a row of any length would be read into memory at each start."""
MAX_ENDED_KEPT: Final = 1024
"""Ended leases whose reason the book can still tell; older ones are in the state file only."""
LEASE_REPORT_GRACE_S: Final = 10.0
"""Longer than a report is under way: one that arrives later was made after what it does not mention."""
RENEWALS_PER_TTL: Final = 5
"""A borrower renews each fifth of the time that it is given, each 2 of 10 minutes: four may be lost."""
RENEW_AGAIN_S: Final = 5.0
"""Pause after a renewal that failed; it doubles, and stays within half of a renewal's usual distance."""

# --- devices and their owners ------------------------------------------------------------------------------
GRACE_S: Final = 10.0
"""Between notice and kill of a lease whose terms name no other: an answer that has begun can be finished."""
UNDRAIN_S: Final = 10.0
"""What a runner gets to say that it serves again; a silent one would keep a lease that serves nobody."""
MAX_GRACE_S: Final = 1800.0
"""Longest grace: an owner must not wait longer for what is his, whatever a gateway promises for him."""
DEMAND_EVERY_S: Final = 0.5
"""Between two looks for local demand; two in a row count, so it is seen within the 2 s that are promised."""
KILL_S: Final = 10.0
"""What a killed runner gets to be gone; one that stays longer hangs in the driver."""
VERIFY_S: Final = 10.0
"""What a device's memory gets to be verified free; afterwards it is handed over, and not lent again."""
VERIFY_EVERY_S: Final = 0.1
"""Between two looks whether memory is free: somebody waits for it."""
LOOK_S: Final = 5.0
"""A look at the devices that takes longer hangs in the driver; the last answer counts meanwhile."""
QUIET_S: Final = 60.0
"""A device that is lent while idle must have been idle for this long: it must not go to and fro."""
BUSY_CORES_PERMILLE: Final = 250
"""Part of the processors that others use from which on the CPU is in use locally; at half of it no more."""
MAX_CPU_DEVICES: Final = 16
"""Devices that one processor is lent as; each gets a part of its memory, and they share its cores."""
MAX_CLAIMS: Final = 64
"""Claims of local people at once; each holds a call or watches a process."""
MAX_HOURS: Final = 32
"""Spans of hours of one device; each is a look per half second."""
MAX_LEASE_ENERGY_WH: Final = 1 << 40
"""Energy of one lease as its node reports it; more would only confuse the books."""
MAX_LEASE_BYTES: Final = 1 << 60
"""Bytes of one lease as its node reports them; the same."""

# --- names and lists --------------------------------------------------------------------------------------
MAX_NAME_CHARS: Final = 128
"""A model's name, ``site/name`` included; names are stored, printed and part of paths in messages."""
MAX_NAMES_OF_IMAGE: Final = 16
"""Names under which one site's list has one image: each is held against the policy at each decision."""
MAX_PEERS: Final = 64
"""Static peers; each costs a connection and a question per start."""
MAX_LEASES: Final = 64
"""Leases at once on one node; each is a process, a port and a mapping."""
MAX_TRANSFERS_KEPT: Final = 100
"""Finished transfers remembered for ``transfers``; the list lives in memory."""
MAX_LEASES_LISTED: Final = 1000
"""Ended leases in one answer, newest first, so that the answer stays below the message limit."""
MAX_SOCKET_PATH_BYTES: Final = 107
"""``sun_path`` holds 108 bytes with its final zero; gRPC's own message for a longer one names no path."""

# --- relay ------------------------------------------------------------------------------------------------
RELAY_BUFFER_BYTES: Final = 64 << 10
"""Read and write buffer a connection and direction; past it the sender waits."""
MAX_RELAY_CONNECTIONS: Final = 256
"""Connections of one lease; without it any local user exhausts the agent's descriptors."""
APOLOGY_S: Final = 2.0
"""What a caller gets to finish its request and read why nobody answers."""
RUNNER_BACKLOG: Final = 128
"""Connections that wait for the runner to accept."""

# --- child processes --------------------------------------------------------------------------------------
MAX_SPARES: Final = 4
"""Warm spare runners; each holds about 300 MiB and saves one start."""
SPARE_START_S: Final = 180.0
"""Time for a spare to import torch and run one forward; a cold disk took 60 s."""
ASSIGN_S: Final = 600.0
"""Time from assignment to the first answer; binding is milliseconds, a cold kernel compilation minutes."""
CHECK_S: Final = 180.0
"""Time for the check of a folder before publication: it imports torch, builds the model without weights."""
SPARE_WAIT_SHOWN_S: Final = 0.01
"""A start that waited this long for its spare runner says so among its phases."""
CHILD_GRACE_S: Final = 5.0
"""Between SIGTERM and SIGKILL of a child."""
RESTART_FIRST_S: Final = 0.5
"""Pause before a child that died is started again; doubles up to ``RESTART_LAST_S``."""
RESTART_LAST_S: Final = 30.0
"""Longest pause between two starts of a child that keeps dying: no spinning, no long outage."""
MAX_CHILD_TALK_BYTES: Final = 2048
"""The end of a child's stderr that is kept for the sentence about its death."""
MAX_CHECK_OUTPUT_BYTES: Final = 64 << 10
"""What the folder check may print."""
LANE_TRIES: Final = 2
"""Pulls of one start on this node's lane: a worker that dies once is bad luck, twice a defect."""

# --- joining ----------------------------------------------------------------------------------------------
INVITE_LIFETIME_S: Final = 1800.0
"""An invite's life unless said otherwise: long enough to walk to the machine, short enough to be lost."""
MAX_INVITE_LIFETIME_S: Final = 24 * 3600.0
"""Longest life of an invite: one that lies about for weeks is found by somebody."""
INVITE_KEPT_S: Final = 7 * 86400.0
"""An invite whose time is over is known that much longer, so that a late join hears why it is refused."""
MAX_ENROL_MESSAGE_BYTES: Final = 64 << 10
"""One message of a join; an honest one has 2 KiB. Without it strangers fill our memory."""
MAX_ENROL_RPCS: Final = 16
"""Joins worked on at once; each is a few milliseconds. Without it strangers hold the gateway's processor."""
ENROL_CALL_S: Final = 5.0
"""Deadline of one call of a join, on both sides."""
ENROL_CONNECTION_S: Final = 30.0
"""Life of a connection to the enrolment port; without it strangers keep descriptors for ever."""
MAX_ENROL_CONNECTIONS: Final = 128
"""Connections to the enrolment port at once; without it strangers take every descriptor of the gateway."""
CHALLENGE_LIFE_S: Final = 60.0
"""A nonce that was handed out is good for that long; without it one that was heard is good for ever."""
MAX_CHALLENGES: Final = 4096
"""Nonces handed out and not used yet: more than ``ENROL_CALLS_PER_S`` hands out within their life."""
ENROL_BURST: Final = 20
"""Calls of one address on the enrolment port at once: a join takes two; the next come at ``ENROL_PER_S``."""
ENROL_PER_S: Final = 2.0
"""Calls of one address a second, after its burst: to guess at secrets is hopeless, and no load for us."""
ENROL_BURST_ALL: Final = 200
"""The same for all addresses together: a rack that joins at once."""
ENROL_PER_S_ALL: Final = 50.0
"""Calls of all addresses together a second, after their burst; each costs about a millisecond."""
MAX_ENROL_ADDRESSES: Final = 4096
"""Addresses whose calls are counted; IPv6 ones count by their /64, of which a stranger has many."""
JOIN_S: Final = 10.0
"""A gateway that has not taken a connection by then is not there."""
CLOCK_SKEW_SHOWN_S: Final = 5.0
"""A join warns when two clocks differ by more; past ``federation.limits.CLOCK_SKEW_S`` it fails."""

# --- a site's files ---------------------------------------------------------------------------------------
MAX_SITE_FILE_BYTES: Final = 64 << 10
"""A file of the site's folder; ours have 2 KiB. An endless one in its place must not fill our memory."""

# --- leases across sites ----------------------------------------------------------------------------------
MAX_EVENTS_HELD: Final = 64
"""What a donor says while its lease is written down; without it, it fills memory. The oldest go first."""
MAX_KEY_CHARS: Final = 128
"""A lease's key as its donor sends it; ours have 43. It is printed."""

# --- replay of traces -------------------------------------------------------------------------------------
MAX_TRACE_JOBS: Final = 5_000_000
"""Jobs of one trace; the largest public one has 3.4 million. A file without end must not fill our memory."""
MAX_TRACE_LINE_CHARS: Final = 1024
"""One line of a trace; ours have 60. Without it a file of one line fills our memory."""
MAX_TRACE_DEVICES: Final = 4096
"""Devices of one job in a trace: more than any machine room of a public trace gave to one."""
MAX_TRACE_SECONDS: Final = 366 * 86400 * 10
"""Times and durations in a trace, ten years: sums of them stay exact."""
MAX_REPLAY_DEVICES: Final = 65_536
"""Devices of one replay's donors together; each is a value in memory."""
MAX_REPLAY_VARIANTS: Final = 8
"""Policies times start costs of one replay: a table of more columns is no longer read."""

# --- people -----------------------------------------------------------------------------------------------
PASS_LIFE_S: Final = 120.0
"""A pass of the door is good for that long at most; without it one that leaked is good for ever."""
MAX_PASSES_PER_USER: Final = 32
"""Passes of one user at once, each a connection to the door: one user must not lock the others out."""
MAX_PASSES: Final = 1024
"""Passes of all users at once; each is a connection and a few hundred bytes."""
MAX_DOOR_CONNECTIONS: Final = MAX_PASSES + 64
"""Connections to the door at once; without it local users take every descriptor of the agent."""
DOOR_LOOKUP_S: Final = 5.0
"""What the machine's user directory gets to name a user; without it one that hangs keeps callers for ever."""
MAX_USER_GROUPS: Final = 1024
"""Groups of one user that are looked at; the kernel allows 65,536, and each is a question to a directory."""
MAX_PEOPLE_BYTES: Final = 512 << 10
"""A people file; 10,000 users take 260 kB, and about a second to read."""
MAX_PEOPLE_LINES: Final = 10_000
"""Users, groups and tokens of one people file together."""
MAX_PERSON_CHARS: Final = 64
"""A user's, group's or token's name; Linux allows 32, and names are printed."""
MAX_ACCOUNTS_OF_ONE: Final = 64
"""Accounts in one line of a people file; they are shown, and compared for each request."""
MAX_LEDGER_LOG_LINES: Final = 1_000_000
"""Requests, offers, refusals and decisions that are kept for an auditor, at about 600 bytes; a site that asks
without end must not fill our disk."""
