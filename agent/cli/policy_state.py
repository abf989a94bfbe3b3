"""Which policy is in force, in one line, for the commands that show it."""

from __future__ import annotations

from datetime import datetime

from agent.local.federation_views import PolicyView


def policy_line(policy: PolicyView) -> str:
    """Return which policy is in force, whether the site lends under it, and what is to come."""
    parts = [f"version {policy.version}" if policy.version else "none in force"]
    if policy.overlay:
        parts.append(f"overlay {policy.overlay}")
    if policy.why_not:
        parts.append(f"NOT LENDING: {policy.why_not}")
    for version, at_s in policy.upcoming:
        at = datetime.fromtimestamp(at_s).astimezone()
        parts.append(f"version {version} from {at:%Y-%m-%d %H:%M %Z} on")
    return ", ".join(parts)
