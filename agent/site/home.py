"""The files that make a node a node of its site: one folder that is there as a whole, or not at all.

Rules: the folder is written under another name, synced and then renamed, so that no interruption leaves half
of it; a folder with a part missing, damaged or open to others is refused with a sentence, never mended by a
guess. Every file is its owner's alone. The CA's key is in the gateway's folder and nowhere else. One file may
come later: the receipts key of a site that was made before there were any is made when it is first asked for.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from agent.errors import StateError
from agent.limits import MAX_SITE_FILE_BYTES
from agent.site.config import SiteConfig, decode
from federation.errors import FederationError, IdentityError
from federation.identity.authority import SiteAuthority, make_csr
from federation.identity.keys import key_from_pem, key_to_pem, new_key, spki_sha256
from federation.identity.shape import check_authority_shape, read_certificate, read_node
from federation.registry.files import read_file, write_file

__all__ = ["SiteConfig", "SiteHome"]

_CONFIG: Final = "site.json"
_NODE_KEY: Final = "node.key"
_NODE: Final = "node.pem"
_CA: Final = "ca.pem"
_CA_KEY: Final = "ca.key"
_MODELS_KEY: Final = "models.key"
_RECEIPTS_KEY: Final = "receipts.key"


class SiteHome:
    """The folder ``site`` in the agent's state directory.

    Every method raises ``StateError`` when the folder cannot be read, written or believed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def exists(self) -> bool:
        """Whether the node is of a site, however well its files are."""
        return os.path.lexists(self.folder)

    @property
    def registry_cache(self) -> Path:
        """Where the registry's client keeps what it has verified."""
        return self.folder / "registry"

    def load(self) -> SiteConfig:
        """Return the node's place, after a look at every file."""
        self._check_modes()
        try:
            config = decode(self._read(_CONFIG))
            _check_belong(config, self.node_key_pem, self.certificate_pem, self.authority_pem)
            if config.role == "gateway":
                if self.site_authority().certificate_pem != self.authority_pem:
                    raise IdentityError("the CA's two files differ.")
                self.models_key()
                if (self.folder / _RECEIPTS_KEY).exists():
                    self.receipts_key()
        except FederationError as error:
            raise self._damaged(error.message) from error
        return config

    @property
    def certificate_pem(self) -> bytes:
        """The node's certificate."""
        return self._read(_NODE)

    @property
    def node_key_pem(self) -> bytes:
        """The node's private key."""
        return self._read(_NODE_KEY)

    @property
    def authority_pem(self) -> bytes:
        """The certificate of the site's CA."""
        return self._read(_CA)

    def site_authority(self) -> SiteAuthority:
        """Return the site's CA; at the gateway only."""
        try:
            return SiteAuthority.load(self._read(_CA_KEY), self._read(_CA))
        except FederationError as error:
            raise self._damaged(error.message) from error

    def models_key(self) -> Ed25519PrivateKey:
        """Return the key that signs the site's list of models; at the gateway only."""
        return self._ed25519(_MODELS_KEY)

    def receipts_key(self) -> Ed25519PrivateKey:
        """Return the key that signs the site's requests and receipts, made if there is none; gateway only.

        A new key counts once the consortium has admitted the site's document with it.
        """
        if not (self.folder / _RECEIPTS_KEY).exists():
            self._make_receipts_key()
        return self._ed25519(_RECEIPTS_KEY)

    def create_gateway(self, config: SiteConfig, *, now_s: float) -> None:
        """Make a new site: its CA, its gateway's key and certificate, its models key and receipts key.

        Raises:
            StateError: the node is of a site already, or the folder cannot be written.
        """
        authority = SiteAuthority.create(config.trust_domain, now_s=now_s)
        key = new_key()
        certificate = authority.issue(make_csr(key, config.identity), config.identity, now_s=now_s)
        self._create(
            {
                _CA_KEY: authority.key_pem,
                _CA: authority.certificate_pem,
                _MODELS_KEY: _new_ed25519(),
                _RECEIPTS_KEY: _new_ed25519(),
                _NODE_KEY: key_to_pem(key),
                _NODE: certificate,
                _CONFIG: config.encode(),
            }
        )

    def create_node(
        self, config: SiteConfig, *, key_pem: bytes, certificate_pem: bytes, authority_pem: bytes
    ) -> None:
        """Keep what a join has brought.

        Raises:
            StateError: the node is of a site already, or the folder cannot be written.
            IdentityError: the certificate is not this node's, of this key, from this CA.
        """
        _check_belong(config, key_pem, certificate_pem, authority_pem)
        self._create(
            {_CA: authority_pem, _NODE_KEY: key_pem, _NODE: certificate_pem, _CONFIG: config.encode()}
        )

    def replace_certificate(self, pem: bytes) -> None:
        """Put a new certificate of the same key in the place of the old one.

        Raises:
            StateError: the file cannot be written; the old one is as it was.
            IdentityError: it is not this node's, of its key, from its CA.
        """
        _check_belong(decode(self._read(_CONFIG)), self.node_key_pem, pem, self.authority_pem)
        try:
            write_file(self.folder / _NODE, pem, mode=0o600)
        except OSError as error:
            raise self._unwritable(error) from error

    def remove(self) -> None:
        """Forget the site: from the first step on the node is of none."""
        gone = self.folder.with_name(f"{self.folder.name}.gone")
        try:
            shutil.rmtree(gone, ignore_errors=True)
            if self.exists:
                self.folder.rename(gone)
                _sync(self.folder.parent)
            shutil.rmtree(gone, ignore_errors=True)
        except OSError as error:
            raise self._unwritable(error) from error

    def _ed25519(self, name: str) -> Ed25519PrivateKey:
        try:
            key = load_pem_private_key(self._read(name), password=None)
        except (ValueError, TypeError) as error:
            raise self._damaged(f"{name} holds no key.") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise self._damaged(f"{name} holds a key other than Ed25519.")
        return key

    def _make_receipts_key(self) -> None:
        draft = self.folder / f".{_RECEIPTS_KEY}.{os.getpid()}-{threading.get_ident()}"
        try:
            write_file(draft, _new_ed25519(), mode=0o600)
            try:
                # Of two who make one at once, the second finds the first one's: a link never replaces a file.
                os.link(draft, self.folder / _RECEIPTS_KEY)
                _sync(self.folder)
            except FileExistsError:
                pass
            finally:
                draft.unlink()
        except OSError as error:
            raise self._unwritable(error) from error

    def _create(self, files: Mapping[str, bytes]) -> None:
        if self.exists:
            raise StateError(
                f"{self.folder} is there already.", fix="leave the site first: pyrdma-agent leave"
            )
        draft = self.folder.with_name(f"{self.folder.name}.new")
        try:
            shutil.rmtree(draft, ignore_errors=True)  # an attempt before this one that was interrupted
            draft.mkdir(mode=0o700)
            for name, data in files.items():
                write_file(draft / name, data, mode=0o600)
            draft.rename(self.folder)
            _sync(self.folder.parent)
        except OSError as error:
            raise self._unwritable(error) from error

    def _check_modes(self) -> None:
        try:
            for path in (self.folder, *(one for one in self.folder.iterdir() if one.is_file())):
                status = path.stat()
                if status.st_uid != os.geteuid():
                    raise StateError(
                        f"{path} belongs to another user.", fix=f"run this as its owner, or: chown {path}"
                    )
                if status.st_mode & 0o077:
                    mode = 700 if path == self.folder else 600
                    raise StateError(
                        f"others may read {path}: the keys of this node may be known to them.",
                        fix=f"chmod {mode} {path}; if others use this machine, leave the site and join again",
                    )
        except OSError as error:
            raise StateError(
                f"the site's folder {self.folder} cannot be read: {error.strerror}.",
                fix="make it readable for the user that runs the agent",
            ) from error

    def _read(self, name: str) -> bytes:
        try:
            return read_file(self.folder / name, max_bytes=MAX_SITE_FILE_BYTES)
        except FileNotFoundError as error:
            raise self._damaged(f"{name} is missing.") from error
        except OSError as error:
            raise self._damaged(f"{name} cannot be read: {error.strerror or error}.") from error

    def _damaged(self, detail: str) -> StateError:
        return StateError(
            f"the site's folder {self.folder} is damaged: {detail}",
            fix="restore it from a backup, or leave the site with: pyrdma-agent leave; and join it again",
        )

    def _unwritable(self, error: OSError) -> StateError:
        return StateError(
            f"the site's folder {self.folder} cannot be written: {error.strerror or error}.",
            fix="free space on its disk, and make its directory writable for the user that runs the agent",
        )


def _check_belong(config: SiteConfig, key_pem: bytes, certificate_pem: bytes, authority_pem: bytes) -> None:
    # Times are not looked at: a node that was off for a week must still be able to say who it was.
    authority = read_certificate(authority_pem)
    check_authority_shape(authority, config.trust_domain)
    certificate = read_certificate(certificate_pem)
    identity, _ = read_node(certificate)
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        raise IdentityError("the node's certificate is not from the site's CA.") from None
    if identity != config.identity:
        raise IdentityError(f"the node's certificate is that of {identity.dns}.")
    if spki_sha256(certificate.public_key()) != spki_sha256(key_from_pem(key_pem).public_key()):
        raise IdentityError("the node's certificate is not of the node's key.")


def _new_ed25519() -> bytes:
    return Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
