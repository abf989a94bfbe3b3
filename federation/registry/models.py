"""A site's signed list of models: which image each of its names stands for.

The list is the TUF metadata of the delegated role ``site-NAME``, signed by the site's models key. A model is
the target ``models/SITE/NAME``; the binding is its signed ``custom`` field, ``{"image": HEX, "bytes": N}``,
with ``"licence": ID`` where the site has said one. The target itself is the empty file, never fetched:
manifests travel between peers and are checked by id.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from federation.errors import FederationInputError, RegistryError
from federation.identity.names import check_label
from federation.limits import (
    MAX_IMAGE_BYTES,
    MAX_LICENCE_CHARS,
    MAX_MODEL_NAME_CHARS,
    MAX_ROLE_VERSION,
    MAX_SITE_LIST_BYTES,
    MAX_SITE_MODELS,
)
from federation.registry.membership import ModelBinding
from federation.registry.tuf_api import CryptoSigner, Metadata, TargetFile, Targets

MODELS_LIFETIME_S: Final = 30 * 86400
"""A list that nobody signs for a month is no longer shown: its site may have lost its images, or its key."""
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_IMAGE: Final = re.compile(r"[0-9a-f]{64}")
_LICENCE: Final = re.compile(r"[a-z0-9][a-z0-9.+-]*")
_EMPTY: Final = hashlib.sha256(b"").hexdigest()


def site_role(site: str) -> str:
    """Return the name of the TUF role that a site signs its list with."""
    return f"site-{site}"


def site_of(role: str) -> str:
    """Return the site whose role this is."""
    return role.removeprefix("site-")


def models_pattern(site: str) -> str:
    """Return the path pattern that a site's role is trusted for."""
    return f"models/{site}/*"


def check_licence(text: str) -> str:
    """Return a licence as lists and policies name it: an SPDX id, or a name in its form, in lower case.

    Raises:
        FederationInputError: it has another form.
    """
    licence = text.strip().lower()
    if not _is_licence(licence):
        raise FederationInputError(
            f"a licence has letters, digits, '.', '+' and '-', and at most {MAX_LICENCE_CHARS} characters.",
            fix="name its SPDX id, such as apache-2.0",
        )
    return licence


def sign_models(
    models_key: Ed25519PrivateKey,
    site: str,
    bindings: Mapping[str, ModelBinding],
    *,
    version: int,
    now_s: float,
) -> bytes:
    """Return a site's list of models as the bytes that the consortium's publisher takes in.

    Args:
        models_key: the private half of the key in the site's document.
        site: the site's name.
        bindings: by name without the site, such as ``all-minilm-l6-v2``.
        version: higher than that of the list before; whole seconds of Unix time do.
        now_s: the present time.

    Raises:
        FederationInputError: a name, an image or the version is outside its bounds.
    """
    check_label(site, "site")
    if not 1 <= version <= MAX_ROLE_VERSION:
        raise FederationInputError(f"a list's version is a number from 1 to {MAX_ROLE_VERSION}.")
    if len(bindings) > MAX_SITE_MODELS:
        raise FederationInputError(f"a site lists at most {MAX_SITE_MODELS} models.", fix="remove old ones")
    targets = {}
    for name, binding in sorted(bindings.items()):
        fault = _fault(name, binding.image_id, binding.total_bytes, binding.licence)
        if fault:
            raise FederationInputError(f"{fault}.")
        path = f"models/{site}/{name}"
        custom: dict[str, str | int] = {"image": binding.image_id, "bytes": binding.total_bytes}
        if binding.licence:
            custom["licence"] = binding.licence
        targets[path] = TargetFile(0, {"sha256": _EMPTY}, path, {"custom": custom})
    expires = datetime.fromtimestamp(int(now_s) + MODELS_LIFETIME_S, UTC)
    metadata = Metadata(Targets(version=version, expires=expires, targets=targets))
    metadata.sign(CryptoSigner(models_key))
    data = metadata.to_bytes()
    if len(data) > MAX_SITE_LIST_BYTES:
        raise FederationInputError(
            f"a site's list has at most {MAX_SITE_LIST_BYTES} bytes.", fix="remove old models"
        )
    return data


def read_models(site: str, signed: Targets) -> dict[str, ModelBinding]:
    """Return what a site's verified list binds, by ``SITE/NAME``.

    Whoever calls this has verified the signature. That the signer may speak for these paths is checked here:
    one entry outside its own folder, or one that is malformed, and nothing of the list counts.

    Raises:
        RegistryError: the list says what its site may not say, or says it in another form.
    """
    if len(signed.targets) > MAX_SITE_MODELS:
        raise RegistryError(f"the list of {site} has more than {MAX_SITE_MODELS} models.")
    found = {}
    own = f"models/{site}/"
    for path, target in signed.targets.items():
        name = path.removeprefix(own)
        if name == path:
            raise RegistryError(f"the list of {site} names a model outside {own}.")
        custom: Any = target.custom
        if not isinstance(custom, dict):
            raise RegistryError(f"the list of {site} has a model without an image.")
        image_id: Any = custom.get("image")
        total_bytes: Any = custom.get("bytes")
        licence: Any = custom.get("licence", "")  # lists of older agents say none
        fault = _fault(name, image_id, total_bytes, licence)
        if fault:
            raise RegistryError(f"the list of {site} is malformed: {fault}.")
        found[f"{site}/{name}"] = ModelBinding(image_id, total_bytes, licence)
    return found


def _is_licence(licence: object) -> bool:
    return (
        isinstance(licence, str) and len(licence) <= MAX_LICENCE_CHARS and bool(_LICENCE.fullmatch(licence))
    )


def _fault(name: str, image_id: object, total_bytes: object, licence: object) -> str:
    if len(name) > MAX_MODEL_NAME_CHARS or not _NAME.fullmatch(name):
        return (
            "a model's name in the registry has letters, digits, '.', '_' and '-', "
            f"and at most {MAX_MODEL_NAME_CHARS} characters"
        )
    if not isinstance(image_id, str) or not _IMAGE.fullmatch(image_id):
        return "an image's id has 64 hexadecimal digits in lower case"
    if type(total_bytes) is not int or not 1 <= total_bytes <= MAX_IMAGE_BYTES:
        return f"an image's size is a number from 1 to {MAX_IMAGE_BYTES}"
    if licence != "" and not _is_licence(licence):
        return f"a licence is an SPDX id in lower case, of at most {MAX_LICENCE_CHARS} characters"
    return ""
