"""Between protobuf messages and the local API's view of the federation."""

from __future__ import annotations

from agent.local import federation_views as views
from agent.rpc import pyrdma_pb2 as pb


def federation_to(view: views.FederationView) -> pb.Federation:
    """Return the message of the federation as a node sees it."""
    registry = view.registry
    return pb.Federation(
        site=view.site,
        trust_domain=view.trust_domain,
        node=view.node,
        role=view.role,
        gateway=view.gateway,
        certificate_expires_at=view.certificate_expires_at or 0.0,
        registry=pb.RegistryState(
            consortium=registry.consortium,
            state=registry.state,
            detail=registry.detail,
            sites=registry.sites,
            refreshed_at=registry.refreshed_at or 0.0,
            expires_at=registry.expires_at or 0.0,
        ),
        sites=map(_site_to, view.sites),
        nodes=map(_node_to, view.nodes),
        policy=policy_to(view.policy),
    )


def federation_from(message: pb.Federation) -> views.FederationView:
    """Return the value of the federation as a node sees it."""
    registry = message.registry
    return views.FederationView(
        site=message.site,
        trust_domain=message.trust_domain,
        node=message.node,
        role=message.role,
        gateway=message.gateway,
        certificate_expires_at=message.certificate_expires_at or None,
        registry=views.RegistryView(
            consortium=registry.consortium,
            state=registry.state,
            detail=registry.detail,
            sites=registry.sites,
            refreshed_at=registry.refreshed_at or None,
            expires_at=registry.expires_at or None,
        ),
        sites=tuple(map(_site_from, message.sites)),
        nodes=tuple(map(_node_from, message.nodes)),
        policy=policy_from(message.policy),
    )


def policy_to(view: views.PolicyView) -> pb.PolicyState:
    """Return the message of the policy in force."""
    return pb.PolicyState(
        version=view.version,
        digest=view.digest,
        overlay=view.overlay,
        why_not=view.why_not,
        upcoming=[pb.UpcomingPolicy(version=one, effective_at=at_s) for one, at_s in view.upcoming],
        faults=view.faults,
    )


def policy_from(message: pb.PolicyState) -> views.PolicyView:
    """Return the value of the policy in force."""
    return views.PolicyView(
        version=message.version,
        digest=message.digest,
        overlay=message.overlay,
        why_not=message.why_not,
        upcoming=tuple((one.version, one.effective_at) for one in message.upcoming),
        faults=tuple(message.faults),
    )


def _age_from(age_s: float) -> float | None:
    return None if age_s < 0 else age_s


def _site_to(view: views.SiteView) -> pb.SiteState:
    return pb.SiteState(
        name=view.name,
        trust_domain=view.trust_domain,
        local=view.local,
        state=view.state,
        fault=view.fault,
        age_s=-1.0 if view.age_s is None else view.age_s,
        address=view.address,
        summary=pb.SiteSummary(
            site=view.name,
            devices=view.devices,
            leased=view.leased,
            nodes=view.nodes,
            images=view.images,
            transfer_bytes_per_s=view.transfer_bytes_per_s,
            egress_left_permille=view.egress_left_permille,
        ),
        carbon_g_per_kwh=view.carbon_g_per_kwh,
    )


def _site_from(message: pb.SiteState) -> views.SiteView:
    summary = message.summary
    return views.SiteView(
        name=message.name,
        trust_domain=message.trust_domain,
        local=message.local,
        state=message.state,
        fault=message.fault,
        age_s=_age_from(message.age_s),
        address=message.address,
        devices=summary.devices,
        leased=summary.leased,
        idle=max(0, summary.devices - summary.leased),
        nodes=summary.nodes,
        images=summary.images,
        transfer_bytes_per_s=summary.transfer_bytes_per_s,
        egress_left_permille=(
            summary.egress_left_permille if summary.HasField("egress_left_permille") else None
        ),
        carbon_g_per_kwh=message.carbon_g_per_kwh if message.HasField("carbon_g_per_kwh") else None,
    )


def _node_to(view: views.NodeView) -> pb.NodeState:
    return pb.NodeState(
        name=view.name,
        address=view.address,
        role=view.role,
        state=view.state,
        age_s=-1.0 if view.age_s is None else view.age_s,
        devices=[
            pb.DeviceState(
                id=one.id,
                kind=one.kind,
                memory_bytes=one.memory_bytes,
                state=one.state,
                lease=one.lease,
                borrower=one.borrower,
            )
            for one in view.devices
        ],
        images=view.images,
        transfer_bytes_per_s=view.transfer_bytes_per_s,
    )


def _node_from(message: pb.NodeState) -> views.NodeView:
    return views.NodeView(
        name=message.name,
        address=message.address,
        role=message.role,
        state=message.state,
        age_s=_age_from(message.age_s),
        devices=tuple(
            views.DeviceView(one.id, one.kind, one.memory_bytes, one.state, one.lease, one.borrower)
            for one in message.devices
        ),
        images=message.images,
        transfer_bytes_per_s=message.transfer_bytes_per_s,
    )
