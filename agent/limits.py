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

# --- names and lists --------------------------------------------------------------------------------------
MAX_NAME_CHARS: Final = 128
"""A model's name, ``site/name`` included; names are stored, printed and part of paths in messages."""
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
