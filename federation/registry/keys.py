"""The consortium's own keys as files: Ed25519, one PEM file each, readable by their owner alone.

Which role a key signs for stands in the registry's root, not in the file's name. Beside the keys lies
``root-pin``: whoever signs again must not be led to sign over a registry that somebody else put in its place.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from federation.errors import FederationInputError
from federation.limits import MAX_KEY_PEM_CHARS
from federation.registry.files import read_file, write_file
from federation.registry.tuf_api import CryptoSigner, Signer

_PIN_FILE: Final = "root-pin"


def make_keys(folder: Path, names: Sequence[str]) -> dict[str, CryptoSigner]:
    """Make one key for each name, write it to ``NAME.pem`` with mode 0600, and return them.

    Raises:
        FederationInputError: one of the files is there already; nothing is written then.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in names:
        if (folder / f"{name}.pem").exists():
            raise FederationInputError(
                f"{folder / name}.pem is there already, and a key is never overwritten.",
                fix="choose another folder for the keys",
            )
    made = {name: CryptoSigner.generate_ed25519() for name in names}
    for name, signer in made.items():
        write_file(folder / f"{name}.pem", signer.private_bytes, mode=0o600)
    return made


def load_keys(folder: Path) -> tuple[Signer, ...]:
    """Return every key of a folder.

    Raises:
        FederationInputError: there is none, others may read one, or a file holds none.
    """
    paths = sorted(folder.glob("*.pem"))
    if not paths:
        raise FederationInputError(f"there is no key in {folder}.", fix="give the folder that init wrote")
    return tuple(CryptoSigner(_load(path)) for path in paths)


def write_pin(folder: Path, pin: bytes) -> None:
    """Note beside the keys which registry they sign."""
    write_file(folder / _PIN_FILE, pin.hex().encode("ascii") + b"\n", mode=0o600)


def read_pin(folder: Path) -> bytes:
    """Return the pin of the registry that a folder's keys sign.

    Raises:
        FederationInputError: none is noted there.
    """
    try:
        return parse_pin(read_file(folder / _PIN_FILE, max_bytes=MAX_KEY_PEM_CHARS).decode("ascii").strip())
    except (OSError, UnicodeDecodeError) as error:
        raise FederationInputError(
            f"{folder / _PIN_FILE} cannot be read, so it is not known which registry these keys sign.",
            fix="write the pin that init printed into that file",
        ) from error


def parse_pin(text: str) -> bytes:
    """Return the pin that a text is.

    Raises:
        FederationInputError: it is none.
    """
    try:
        pin = bytes.fromhex(text) if len(text) == 64 else b""
    except ValueError:
        pin = b""
    if len(pin) != 32:
        raise FederationInputError(
            "a root pin has 64 hexadecimal digits.", fix="take the one that the consortium gave you"
        )
    return pin


def _load(path: Path) -> Ed25519PrivateKey:
    try:
        if os.stat(path).st_mode & 0o077:
            raise FederationInputError(f"others may read the key {path}.", fix=f"chmod 600 {path}")
        key = load_pem_private_key(read_file(path, max_bytes=MAX_KEY_PEM_CHARS), None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise FederationInputError(f"{path} holds no key that can be read here.") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise FederationInputError(f"{path} holds a key other than Ed25519.")
    return key
