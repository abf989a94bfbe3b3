"""The models that this node knows: names bound to images, and what of them lies in memory."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from agent.daemon.cache_keeper import CacheKeeper
from agent.daemon.parts import Launcher
from agent.daemon.transfers import Transfers
from agent.errors import UnknownModelError
from agent.licence import licence_in
from agent.limits import MAX_NAME_CHARS
from agent.local.views import ModelView, NoteView, PublishedView, PublishEvent
from agent.resolve import ModelRef, check_name
from agent.state import NameRecord, Store
from federation.registry.models import check_licence
from pyrdma.errors import ImageFormatError
from pyrdma.image import scan_folder
from pyrdma.image.manifest import ImageId, Manifest


class Catalogue:
    """Names, manifests and replicas of one node, seen together."""

    def __init__(self, store: Store, keeper: CacheKeeper, launcher: Launcher, transfers: Transfers) -> None:
        self._store = store
        self._keeper = keeper
        self._launcher = launcher
        self._transfers = transfers
        self._arriving: dict[ImageId, Manifest] = {}

    async def publish(
        self, folder: Path, name: str, emit: Callable[[PublishEvent], None], *, licence: str = ""
    ) -> PublishedView:
        """Bind a name to the image that a folder's files are, and hold it in memory.

        Args:
            folder: where the files lie.
            name: the name.
            emit: told how far it is.
            licence: the model's, as its publisher says; empty: what the folder states.

        Raises:
            ImageFormatError, UnsupportedModelError, BudgetError: the folder cannot be published.
            FederationInputError: the licence has no such form.
        """
        check_name(name)
        licence = check_licence(licence) if licence else ""
        if not folder.is_absolute() or not folder.is_dir():
            raise ImageFormatError(f"{folder} is no folder.", fix="name the folder that holds config.json")
        begun = time.monotonic()
        # The cheap check first: a folder that is no model needs no torch to be refused.
        scan = await asyncio.to_thread(scan_folder, folder)
        if scan.skipped:
            emit(NoteView(f"not part of the image: {', '.join(scan.skipped)}"))
        note = await self._launcher.check(folder)
        if note:
            emit(NoteView(note))
        with self._transfers.record(name, "", "publish", emit) as on_progress:
            manifest = await self._keeper.cache.publish(folder, on_progress)
        licence = licence or await asyncio.to_thread(licence_in, folder)
        record = NameRecord(name, manifest.image_id, str(folder), time.time(), licence)
        before = await self._store.bind_name(record, manifest)
        return PublishedView(
            name=name,
            image_id=manifest.image_id.hex(),
            total_bytes=manifest.layout.total_bytes,
            pieces=manifest.layout.piece_count,
            tensors=len(manifest.layout.tensors),
            skipped=scan.skipped,
            replaced=before.hex() if before not in (None, manifest.image_id) else None,
            seconds=time.monotonic() - begun,
            licence=licence,
        )

    async def models(self) -> tuple[ModelView, ...]:
        """Return every name with what is in memory of it."""
        replicas = {replica.image_id: replica for replica in await self._keeper.replicas()}
        views = []
        for record in await self._store.names():
            manifest = await self.manifest_of(record.image_id)
            replica = replicas.get(record.image_id)
            views.append(
                ModelView(
                    name=record.name,
                    image_id=record.image_id.hex(),
                    total_bytes=manifest.layout.total_bytes,
                    folder=record.folder,
                    published_at=record.bound_at if record.folder else None,
                    pieces=manifest.layout.piece_count,
                    verified_pieces=replica.verified_pieces if replica else 0,
                    attached=replica.attached if replica else 0,
                    origin="published" if record.folder else "pulled",
                )
            )
        return tuple(views)

    async def bound(self, ref: ModelRef) -> ImageId | None:
        """Return the image that the reference stands for here, if this node knows it."""
        if ref.image_id is not None:
            return ref.image_id if await self._store.manifest(ref.image_id) is not None else None
        record = await self._store.name(ref.name)
        return record.image_id if record else None

    @contextlib.contextmanager
    def arriving(self, manifest: Manifest) -> Iterator[None]:
        """Know the manifest while the body brings its image here: whoever is forwarded pieces needs it."""
        self._arriving[manifest.image_id] = manifest
        try:
            yield
        finally:
            self._arriving.pop(manifest.image_id, None)

    async def remember_pulled(self, name: str, manifest: Manifest) -> None:
        """Bind the name to an image that came from peers; a name that is bound already keeps its meaning.

        The image then goes by the name and its id's first digits, so that it can be started again from here.
        """
        bound = await self._store.name(name)
        if bound is not None and bound.image_id == manifest.image_id:
            return
        if bound is not None:
            name = f"{name[: MAX_NAME_CHARS - 13]}-{manifest.image_id.short()}"
        await self._store.bind_name(NameRecord(name, manifest.image_id, "", time.time()), manifest)

    async def folders_of(self, image_id: ImageId) -> list[Path]:
        """Return the folders that the image was published from."""
        return [Path(record.folder) for record in await self._store.names_of(image_id) if record.folder]

    async def in_memory(self, image_id: ImageId) -> bool:
        """Say whether the whole image is in memory here."""
        return any(
            replica.image_id == image_id and replica.verified_pieces == replica.pieces
            for replica in await self._keeper.replicas()
        )

    async def can_be_pulled(self, image_id: ImageId) -> bool:
        """Say whether the image is whole in memory here, or on its way, so that pieces can be forwarded."""
        return any(
            replica.image_id == image_id and (replica.pulling or replica.verified_pieces == replica.pieces)
            for replica in await self._keeper.replicas()
        )

    async def known_manifest(self, image_id: ImageId) -> Manifest | None:
        """Return the image's manifest if this node has it."""
        return self._arriving.get(image_id) or await self._store.manifest(image_id)

    async def manifest_of(self, image_id: ImageId) -> Manifest:
        """Return the image's manifest.

        Raises:
            UnknownModelError: this node does not know the image.
        """
        manifest = await self.known_manifest(image_id)
        if manifest is None:
            raise UnknownModelError(f"this node does not know the image {image_id.short()}.")
        return manifest
