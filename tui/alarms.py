"""What must be said above everything else, on every view; pure."""

from __future__ import annotations

from tui.limits import CERTIFICATE_WARN_S
from tui.look import Tone
from tui.picture import Picture
from tui.rows import Cell, sentence
from tui.words import duration, until


def alarms(picture: Picture) -> tuple[Cell, ...]:
    """Return the sentences, the worst first: a silent agent, a bad state file, trouble with the registry."""
    status, registry = picture.answer.status, picture.answer.federation.registry
    found = []
    if picture.overdue:
        said = f": {picture.fault}" if picture.fault else "."
        since = f"No answer from the agent, shown is what it said {duration(picture.age_s)} ago{said}"
        found.append(sentence(f"■ {since}", Tone.BAD))
    if status.state_fault:
        found.append(sentence(f"■ {status.state_fault}", Tone.BAD))
    expires_at = picture.answer.federation.certificate_expires_at
    if expires_at is not None and expires_at - picture.now < CERTIFICATE_WARN_S:
        soon = expires_at > picture.now
        words = f"this node's certificate {until(expires_at, picture.now)} and was not renewed."
        found.append(sentence(f"▲ {words}", Tone.WARN) if soon else sentence(f"■ {words}", Tone.BAD))
    if registry.detail and registry.state != "none":
        found.append(sentence(f"▲ registry: {registry.detail}", Tone.WARN))
    if status.cache.last_fault and not status.cache.up:
        found.append(sentence(f"▲ weight cache: {status.cache.last_fault}", Tone.WARN))
    return tuple(found)
