"""Every number that a stranger, a file or a process of ours can push, with its reason.

Named ``UNIT`` last. "Without it" says what an attacker, or an accident, would gain.
"""

from __future__ import annotations

from typing import Final

KIB: Final = 1 << 10
MIB: Final = 1 << 20
GIB: Final = 1 << 30

# --- images -----------------------------------------------------------------------------------------------
PIECE_BYTES: Final = 16 * MIB
"""The unit of transfer, digest, resume and fan-out: large enough that Python per piece costs nothing."""
TENSOR_ALIGN_BYTES: Final = 256
"""Where tensors start in the flat space; at raw file offsets bf16 runs up to 2.6 times slower, fp8 fails."""
MAX_MANIFEST_BYTES: Final = 64 * MIB
"""Without it a peer's manifest fills our memory."""
MAX_TENSORS: Final = 1 << 18
"""Without it a header of many empty tensors costs us time and memory that its size does not show."""
MAX_PIECES: Final = 1 << 18
"""4 TiB of weights at 16 MiB; bounds bitmaps, digest lists and the flat space."""
MAX_IMAGE_BYTES: Final = MAX_PIECES * PIECE_BYTES
"""The flat space; also bounds every product of a shape, so that no later step can overflow 64 bits."""
MAX_JSON_VALUES: Final = 1 << 22
"""Values, counted as commas, in JSON about weights; without it 64 MiB of "[],[],..." become gigabytes."""
MAX_FOLDER_ENTRIES: Final = 1 << 14
"""Entries of a model folder and its sub-folders; without it a wrong path is walked for minutes."""
MAX_RANK: Final = 16
"""Dimensions of a tensor; no model comes near."""
MAX_TENSOR_NAME_BYTES: Final = 1024
"""Names are held in memory, printed and compared."""
MAX_HEADER_BYTES: Final = 16 * MIB
"""A safetensors header; the format itself allows 100 MB of JSON, which costs seconds to parse."""
MIN_HEADER_ALLOWANCE_BYTES: Final = 1 * MIB
"""Headers up to this are read whatever the file's size; above it a header is at most 1 % of its file."""
MAX_WEIGHT_FILES: Final = 4096
"""Shards of one model."""
MAX_SIDE_FILE_BYTES: Final = 64 * MIB
"""A tokenizer or config; more is no side file."""
MAX_SIDE_FILES: Final = 64
"""Side files of one image."""

# --- between processes of one node ------------------------------------------------------------------------
MAX_MESSAGE_BYTES: Final = 60 * KIB
"""One packet; more travels in a memfd. Below the kernel's default socket buffer, so a packet always fits."""
MAX_MESSAGE_FDS: Final = 200
"""Descriptors of one packet; the kernel's own limit is 253."""

# --- transfers --------------------------------------------------------------------------------------------
RING_SLOTS: Final = 8
"""Pieces of one lane between arrival and proof: 128 MiB, within the 256 MiB that a pull may cost."""
WINDOW_PIECES: Final = 4
"""Pieces in flight from one source; with 2 a pull on loopback was up to a tenth slower, beyond 4 is
untried."""
MAX_REPLIES_IN_FLIGHT: Final = 16
"""Pieces that a source sends one peer at a time; a peer that asks for more is refused, not queued."""
MAX_PIECES_PER_MESSAGE: Final = 4096
"""Pieces that one message names to a lane worker: 28 KiB of JSON at most."""
MAX_SESSIONS: Final = 256
"""Peers that one lane worker serves at a time."""
MAX_PEERS: Final = 256
"""Sources that one lane worker is connected to at a time."""
MAX_LANE_ADDRESS_BYTES: Final = 4 * KIB
"""A UCX worker address; 81 bytes with one TCP interface, more with each device."""
MAX_BAD_PIECES: Final = 3
"""Wrong digests before a source is dropped for good."""
MAX_SOURCES: Final = 64
"""Sources of one pull."""
FIRST_PIECE_DEADLINE_S: Final = 10.0
"""A source that has sent nothing by then is taken for dead."""
MIN_PIECE_DEADLINE_S: Final = 4.0
"""A source that has sent pieces and then nothing for this long is stalled."""
MAX_PIECE_DEADLINE_S: Final = 120.0
"""The longest that a source is given for one piece: a slow but steady one (16 MiB at 1.1 Mbit/s), and one
that says it waits itself. Without it a source that says so for ever holds up a pull for ever."""
EGRESS_TOLD_BYTES: Final = 4 * PIECE_BYTES
"""A lane worker tells what it has sent of metered sessions after so many bytes: what is lost with it is no
larger, and a message for each of 64 MiB costs nothing."""
WAIT_EVERY_S: Final = 1.0
"""A source that waits for a piece itself says so this often: a word that is lost, or two, costs nothing."""
SESSION_SILENCE_S: Final = 150.0
"""A peer that asks for nothing and takes nothing for this long has died without a word: its session ends.
Longer than the longest wait for one piece."""
LANE_DATA_BYTES: Final = 2 * GIB
"""Private memory of a lane worker: 25 MiB, and 2 MiB of buffers for each of 512 connections. Without it a
peer that sends what nobody asked for, which UCX keeps, fills the machine; with it, the worker ends and is
started again."""
