"""Keeps the policy in force: from the registry's versions and the site's own overlay file, at the right time.

Rules: versions come with the members; the overlay and what the site opted out of are files in the agent's
state directory, looked at every few seconds. Whatever changes is told at once, and the switch to a version
happens within ``POLICY_LOOK_S`` of its time. A copy of the last overlay that could be read is kept beside it,
so that a restart with a damaged one lends no more than before. Files are parsed beside the loop. A clock
behind the registry's last signature is not believed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from agent.errors import StateError
from agent.limits import POLICY_LOOK_S
from agent.local.federation_views import PolicyView
from agent.site.opting_out import read_opted_out
from agent.site.policy_in_force import (
    InForce,
    OverlayFile,
    Version,
    in_force,
    read_overlay_file,
    read_versions,
)
from federation.limits import MAX_POLICY_BYTES
from federation.policy.policy import Policy
from federation.registry.files import read_file, write_file
from federation.registry.membership import Membership

_log = logging.getLogger(__name__)
OVERLAY_FILE: Final = "policy-overlay.yaml"
_KEPT_FILE: Final = "policy-overlay.last-good.yaml"


class PolicyWatch:
    """The policy that this site goes by.

    Args:
        folder: the agent's state directory, where the overlay lies.
        site: this one's name.
        changed: told of each change of what holds.
        clock: Unix time in s.
    """

    def __init__(
        self,
        folder: Path,
        site: str,
        changed: Callable[[InForce], None],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._folder = folder
        self._site = site
        self._changed = changed
        self._clock = clock
        self._membership: Membership | None = None
        self._versions: dict[str, Version] = {}
        self._overlay = OverlayFile()
        self._opted_out: frozenset[int] = frozenset()
        self._now = InForce()
        self._turn = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._looking: set[asyncio.Task[None]] = set()

    @property
    def now(self) -> InForce:
        """What holds."""
        return self._now

    def view(self) -> PolicyView:
        """Return what the local API shows."""
        now = self._now
        base = now.base
        return PolicyView(
            version=0 if base is None else base.version,
            digest="" if base is None else base.digest,
            overlay=now.overlay,
            why_not=now.why_not,
            upcoming=now.upcoming,
            faults=now.faults,
        )

    def policies(self) -> Mapping[str, Policy]:
        """Return all versions that can be read here, past ones as well, by digest: they price receipts."""
        return {name: one.policy for name, one in self._versions.items() if one.policy is not None}

    async def start(self, membership: Membership | None) -> None:
        """Read everything once, tell what holds, and begin to watch."""
        await asyncio.to_thread(self._remember)
        self._membership = membership
        await self.look()
        self._task = asyncio.create_task(self._watch(), name="policy")

    async def close(self) -> None:
        """Stop watching."""
        tasks = [*self._looking, *([self._task] if self._task is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def learn(self, membership: Membership | None) -> None:
        """Take over the versions that the registry has now; without members those known before stay."""
        if membership is not None and membership is not self._membership:
            self._membership = membership
            self.reload()

    def reload(self) -> None:
        """Look at everything soon."""
        task = asyncio.create_task(self.look(), name="policy-look")
        self._looking.add(task)
        task.add_done_callback(self._looking.discard)

    async def look(self, *, aloud: bool = False) -> None:
        """Read what has changed, and tell if something else holds now.

        Args:
            aloud: say in the log how everything stands, also what was said before.
        """
        async with self._turn:
            await asyncio.to_thread(self._read)
            versions = sorted(self._versions.values(), key=lambda one: one.text.version)
            now = in_force(versions, self._overlay, self._opted_out, self._site, self._time())
            now = replace(now, faults=(*now.faults, *self._listed_faults()))
        before = self._now
        self._now = now
        if aloud or now != before:
            self._say(None if aloud else before)
        if now != before:
            self._changed(now)

    def _say(self, known: InForce | None) -> None:
        """Say what is not known yet in the log."""
        now = self._now
        for fault in now.faults:
            if known is None or fault not in known.faults:
                _log.error("the policy: %s", fault)
        if known is None or now.policy != known.policy or now.why_not != known.why_not:
            number = "none" if now.base is None else f"version {now.base.version}"
            overlay = f" under the overlay's version {now.overlay}" if now.overlay else ""
            why_not = f"; not lending: {now.why_not}" if now.why_not else ""
            _log.info("the policy in force: %s%s%s", number, overlay, why_not)

    def _listed_faults(self) -> list[str]:
        known = self._membership.faults if self._membership is not None else {}
        return [fault for name, fault in sorted(known.items()) if name.startswith("policy/")]

    def _time(self) -> float:
        return max(self._clock(), self._membership.issued_at if self._membership is not None else 0.0)

    def _read(self) -> None:
        known = self._membership
        if known is not None and known.policies:
            self._versions = read_versions(known.policies, known.consortium, self._versions)
        before = self._overlay
        path = self._folder / OVERLAY_FILE
        try:
            self._overlay = read_overlay_file(self._file(OVERLAY_FILE), str(path), before)
        except OSError as error:
            fault = f"{path} cannot be read: {error.strerror or error}."
            self._overlay = OverlayFile(b"", before.overlay, fault, lost=before.overlay is None)
        if self._overlay != before and not self._overlay.fault:
            self._keep(self._overlay.data)
        try:
            self._opted_out = read_opted_out(self._folder)
        except StateError as error:
            _log.error("the policy: %s", error.message)  # what was opted out of before stays so

    def _remember(self) -> None:
        try:
            kept = read_overlay_file(self._file(_KEPT_FILE), _KEPT_FILE, OverlayFile())
        except OSError:
            return
        if not kept.fault:
            self._overlay = kept

    def _keep(self, data: bytes) -> None:
        path = self._folder / _KEPT_FILE
        try:
            if data:
                write_file(path, data, mode=0o600)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            _log.error("the overlay in force cannot be kept beside its file: %s", error)

    def _file(self, name: str) -> bytes | None:
        try:
            return read_file(self._folder / name, max_bytes=MAX_POLICY_BYTES)
        except FileNotFoundError:
            return None

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(POLICY_LOOK_S)
            await self.look()
