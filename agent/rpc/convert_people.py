"""Between protobuf messages and the values of ``agent.local.people_views``.

What a gateway says of accounts is printed on a terminal and is made safe where it is printed.
"""

from __future__ import annotations

from agent.errors import RequestError
from agent.limits import MAX_USAGE_ACCOUNTS
from agent.local import people_views as views
from agent.rpc import pyrdma_pb2 as pb
from federation.fairshare.accounts import check_account


def wanted_to(wanted: views.Wanted) -> pb.RunRequest:
    """Return the message of what a person wants to run."""
    return pb.RunRequest(
        model=wanted.model,
        site=wanted.site,
        node=wanted.node,
        account=wanted.account,
        purpose=wanted.purpose,
        instant=wanted.instant,
        duration_s=wanted.duration_s,
    )


def whoami_to(view: views.WhoAmIView) -> pb.WhoAmIResponse:
    """Return the message of a caller."""
    return pb.WhoAmIResponse(
        who=view.who,
        name=view.name,
        admin=view.admin,
        site=view.site,
        account=view.account,
        accounts=view.accounts,
        classes=view.classes,
        notice=view.notice,
    )


def whoami_from(message: pb.WhoAmIResponse) -> views.WhoAmIView:
    """Return the value of a caller."""
    return views.WhoAmIView(
        who=message.who,
        name=message.name,
        admin=message.admin,
        site=message.site,
        account=message.account,
        accounts=tuple(message.accounts),
        classes=tuple(message.classes),
        notice=message.notice,
    )


def accounts_from(request: pb.GetUsageRequest) -> tuple[str, ...]:
    """Return the accounts that somebody asks about. Raises RequestError, FederationInputError."""
    if len(request.accounts) > MAX_USAGE_ACCOUNTS:
        raise RequestError(f"at most {MAX_USAGE_ACCOUNTS} accounts are asked about at once.")
    return tuple(map(check_account, request.accounts))


def usage_to(view: views.UsageView) -> pb.GetUsageResponse:
    """Return the message of the use of accounts."""
    return pb.GetUsageResponse(accounts=map(_account_to, view.accounts), source=view.source)


def usage_from(message: pb.GetUsageResponse) -> views.UsageView:
    """Return the value of the use of accounts."""
    return views.UsageView(tuple(map(_account_from, message.accounts)), message.source)


def tokens_to(tokens: tuple[views.TokenView, ...]) -> pb.ListTokensResponse:
    """Return the message of a list of tokens."""
    return pb.ListTokensResponse(
        tokens=[
            pb.Token(
                name=one.name,
                account=one.account,
                created_at=one.created_at,
                expires_at=one.expires_at,
                used_at=one.used_at or 0.0,
            )
            for one in tokens
        ]
    )


def tokens_from(message: pb.ListTokensResponse) -> tuple[views.TokenView, ...]:
    """Return the values of a list of tokens."""
    return tuple(
        views.TokenView(one.name, one.account, one.created_at, one.expires_at, one.used_at or None)
        for one in message.tokens
    )


def _account_to(view: views.AccountUsageView) -> pb.AccountUsage:
    return pb.AccountUsage(
        account=view.account,
        classes=view.classes,
        decayed_msgs=view.decayed_msgs,
        charged_msgs=view.charged_msgs,
        due_permille=view.due_permille,
        delivered_permille=view.delivered_permille,
        leases=view.leases,
        receipts=[
            pb.ReceiptLine(
                donor=one.donor,
                lease_id=one.lease_id,
                seq=one.seq,
                charge_msgs=one.charge_msgs,
                from_s=one.from_s,
                to_s=one.to_s,
                state=one.state,
            )
            for one in view.receipts
        ],
    )


def _account_from(message: pb.AccountUsage) -> views.AccountUsageView:
    return views.AccountUsageView(
        account=message.account,
        classes=tuple(message.classes),
        decayed_msgs=message.decayed_msgs,
        charged_msgs=message.charged_msgs,
        due_permille=message.due_permille,
        delivered_permille=message.delivered_permille,
        leases=message.leases,
        receipts=tuple(
            views.ReceiptLineView(
                one.donor, one.lease_id, one.seq, one.charge_msgs, one.from_s, one.to_s, one.state
            )
            for one in message.receipts
        ),
    )
