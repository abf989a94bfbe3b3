"""The published part of a site's queue as one page of HTML, without scripts. Pure; everything is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

from agent.local.queue_views import QueueView, WaitCellView
from agent.openness.document import waiting_in
from agent.openness.statistics import SMALL_CELL
from agent.text import format_duration

_STYLE: Final = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: .5rem 0 1.5rem } th, td { padding: .2rem .8rem; text-align: left }
th { border-bottom: 2px solid #0072b2 } td { border-bottom: 1px solid #ddd } .note { color: #555 }
"""
_FEW: Final = f"fewer than {SMALL_CELL}"


def page(view: QueueView) -> str:
    """Return the page."""
    name = escape(view.site)
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{name}: queue</title>",
        f"<style>{_STYLE}</style><h1>{name}</h1>",
        f"<p>{_policy(view)}</p><p class=note>The same as data: <a href=queue.json>queue.json</a></p>",
        "<h2>Devices</h2>",
        _table(
            ("class", "lent", "of these in use", "used by their owner"),
            ((one.device_class, one.lent, one.used, one.owned) for one in view.devices),
        ),
        f"<p>Waiting requests: {_count(waiting_in(view))}</p>",
        "<h2>Waits of the last 7 days</h2>",
        _waits("accounts with a share of", view.waits),
        "<h2>Waits of classes with a reserve</h2>",
        _waits("class", view.reserved_waits),
        "<h2>Devices back to their owner, last 7 days</h2>",
        _reclaims(view),
        "<h2>Shares of the federation</h2>",
        _table(
            ("institution", "due", "delivered"),
            (
                (one.institution, f"{one.due_permille / 10:.1f} %", f"{one.delivered_permille / 10:.1f} %")
                for one in view.shares
            ),
        ),
        "<h2>Terms</h2>",
        _terms(view),
        "</html>\n",
    ]
    return "".join(parts)


def _policy(view: QueueView) -> str:
    if not view.consortium:
        return "No policy is in force: whoever asks first goes first."
    age = ""
    if view.books_age_s is not None:
        age = f" The oldest books that it ranks by are {format_duration(view.books_age_s)} old."
    stale = " They are too old: the split of the last fresh ones is served." if view.stale else ""
    return (
        f"Policy of {escape(view.consortium)}, version {view.policy_version} "
        f"<small>({escape(view.policy_digest[:16])})</small>.{age}{stale}"
    )


def _waits(group: str, cells: Sequence[WaitCellView]) -> str:
    return _table(
        (group, "device class", "requests", "half waited at most", "9 of 10 waited at most"),
        (
            (one.group, one.device_class, _FEW, "-", "-")
            if one.requests is None or one.p50_s is None or one.p90_s is None
            else (
                one.group,
                one.device_class,
                one.requests,
                format_duration(one.p50_s),
                format_duration(one.p90_s),
            )
            for one in cells
        ),
    )


def _reclaims(view: QueueView) -> str:
    cell = view.reclaims
    if cell.p50_s is None or cell.longest_s is None:
        return "<p>None.</p>"
    return (
        f"<p>{cell.reclaims}; half within {format_duration(cell.p50_s)}, "
        f"the longest took {format_duration(cell.longest_s)}.</p>"
    )


def _terms(view: QueueView) -> str:
    terms = view.terms
    return _table(
        ("term", "value"),
        (
            ("notice before a device goes back to its owner", format_duration(terms.grace_s)),
            ("the same for instant leases", format_duration(terms.instant_grace_s)),
            ("no other guest takes a device before", format_duration(terms.min_runtime_s)),
            ("a lease lasts at most", format_duration(terms.max_duration_s)),
            ("lent to", ", ".join("anyone" if one == "*" else one for one in terms.to)),
            ("hours", ", ".join(terms.hours) or "always"),
        ),
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    body = "".join(f"<tr>{''.join(f'<td>{escape(str(cell))}' for cell in row)}" for row in rows)
    if not body:
        return "<p>None.</p>"
    return f"<table><tr>{''.join(f'<th>{escape(one)}' for one in head)}{body}</table>"


def _count(waiting: int) -> str:
    return _FEW if 0 < waiting < SMALL_CELL else str(waiting)
