from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ErrorDetail(_message.Message):
    __slots__ = ("code", "message", "fix")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    FIX_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    fix: str
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ..., fix: _Optional[str] = ...) -> None: ...

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("name", "version", "uptime_s", "pid", "cache", "spares", "peers", "leases", "state_fault", "donates", "policy")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    UPTIME_S_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    CACHE_FIELD_NUMBER: _ClassVar[int]
    SPARES_FIELD_NUMBER: _ClassVar[int]
    PEERS_FIELD_NUMBER: _ClassVar[int]
    LEASES_FIELD_NUMBER: _ClassVar[int]
    STATE_FAULT_FIELD_NUMBER: _ClassVar[int]
    DONATES_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    uptime_s: float
    pid: int
    cache: CacheState
    spares: SpareState
    peers: _containers.RepeatedCompositeFieldContainer[PeerState]
    leases: int
    state_fault: str
    donates: bool
    policy: PolicyState
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., uptime_s: _Optional[float] = ..., pid: _Optional[int] = ..., cache: _Optional[_Union[CacheState, _Mapping]] = ..., spares: _Optional[_Union[SpareState, _Mapping]] = ..., peers: _Optional[_Iterable[_Union[PeerState, _Mapping]]] = ..., leases: _Optional[int] = ..., state_fault: _Optional[str] = ..., donates: _Optional[bool] = ..., policy: _Optional[_Union[PolicyState, _Mapping]] = ...) -> None: ...

class CacheState(_message.Message):
    __slots__ = ("up", "pid", "budget_bytes", "used_bytes", "faulted_bytes", "restarts", "last_fault", "workers")
    UP_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    BUDGET_BYTES_FIELD_NUMBER: _ClassVar[int]
    USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    FAULTED_BYTES_FIELD_NUMBER: _ClassVar[int]
    RESTARTS_FIELD_NUMBER: _ClassVar[int]
    LAST_FAULT_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    up: bool
    pid: int
    budget_bytes: int
    used_bytes: int
    faulted_bytes: int
    restarts: int
    last_fault: str
    workers: _containers.RepeatedCompositeFieldContainer[Worker]
    def __init__(self, up: _Optional[bool] = ..., pid: _Optional[int] = ..., budget_bytes: _Optional[int] = ..., used_bytes: _Optional[int] = ..., faulted_bytes: _Optional[int] = ..., restarts: _Optional[int] = ..., last_fault: _Optional[str] = ..., workers: _Optional[_Iterable[_Union[Worker, _Mapping]]] = ...) -> None: ...

class Worker(_message.Message):
    __slots__ = ("lane", "pid")
    LANE_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    lane: str
    pid: int
    def __init__(self, lane: _Optional[str] = ..., pid: _Optional[int] = ...) -> None: ...

class SpareState(_message.Message):
    __slots__ = ("wanted", "ready", "pids", "last_fault")
    WANTED_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    PIDS_FIELD_NUMBER: _ClassVar[int]
    LAST_FAULT_FIELD_NUMBER: _ClassVar[int]
    wanted: int
    ready: int
    pids: _containers.RepeatedScalarFieldContainer[int]
    last_fault: str
    def __init__(self, wanted: _Optional[int] = ..., ready: _Optional[int] = ..., pids: _Optional[_Iterable[int]] = ..., last_fault: _Optional[str] = ...) -> None: ...

class PeerState(_message.Message):
    __slots__ = ("address", "name", "reachable", "fault")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    REACHABLE_FIELD_NUMBER: _ClassVar[int]
    FAULT_FIELD_NUMBER: _ClassVar[int]
    address: str
    name: str
    reachable: bool
    fault: str
    def __init__(self, address: _Optional[str] = ..., name: _Optional[str] = ..., reachable: _Optional[bool] = ..., fault: _Optional[str] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[Model]
    def __init__(self, models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "image_id", "total_bytes", "folder", "published_at", "pieces", "verified_pieces", "attached", "origin")
    NAME_FIELD_NUMBER: _ClassVar[int]
    IMAGE_ID_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    FOLDER_FIELD_NUMBER: _ClassVar[int]
    PUBLISHED_AT_FIELD_NUMBER: _ClassVar[int]
    PIECES_FIELD_NUMBER: _ClassVar[int]
    VERIFIED_PIECES_FIELD_NUMBER: _ClassVar[int]
    ATTACHED_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    name: str
    image_id: bytes
    total_bytes: int
    folder: str
    published_at: float
    pieces: int
    verified_pieces: int
    attached: int
    origin: str
    def __init__(self, name: _Optional[str] = ..., image_id: _Optional[bytes] = ..., total_bytes: _Optional[int] = ..., folder: _Optional[str] = ..., published_at: _Optional[float] = ..., pieces: _Optional[int] = ..., verified_pieces: _Optional[int] = ..., attached: _Optional[int] = ..., origin: _Optional[str] = ...) -> None: ...

class ListLeasesRequest(_message.Message):
    __slots__ = ("include_ended",)
    INCLUDE_ENDED_FIELD_NUMBER: _ClassVar[int]
    include_ended: bool
    def __init__(self, include_ended: _Optional[bool] = ...) -> None: ...

class ListLeasesResponse(_message.Message):
    __slots__ = ("leases",)
    LEASES_FIELD_NUMBER: _ClassVar[int]
    leases: _containers.RepeatedCompositeFieldContainer[Lease]
    def __init__(self, leases: _Optional[_Iterable[_Union[Lease, _Mapping]]] = ...) -> None: ...

class Lease(_message.Message):
    __slots__ = ("id", "model", "image_id", "state", "created_at", "ended_at", "reason", "port", "pid", "donor", "borrower", "account", "who")
    ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    IMAGE_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    ENDED_AT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    DONOR_FIELD_NUMBER: _ClassVar[int]
    BORROWER_FIELD_NUMBER: _ClassVar[int]
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    id: str
    model: str
    image_id: bytes
    state: str
    created_at: float
    ended_at: float
    reason: str
    port: int
    pid: int
    donor: str
    borrower: str
    account: str
    who: str
    def __init__(self, id: _Optional[str] = ..., model: _Optional[str] = ..., image_id: _Optional[bytes] = ..., state: _Optional[str] = ..., created_at: _Optional[float] = ..., ended_at: _Optional[float] = ..., reason: _Optional[str] = ..., port: _Optional[int] = ..., pid: _Optional[int] = ..., donor: _Optional[str] = ..., borrower: _Optional[str] = ..., account: _Optional[str] = ..., who: _Optional[str] = ...) -> None: ...

class ListTransfersRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListTransfersResponse(_message.Message):
    __slots__ = ("transfers",)
    TRANSFERS_FIELD_NUMBER: _ClassVar[int]
    transfers: _containers.RepeatedCompositeFieldContainer[Transfer]
    def __init__(self, transfers: _Optional[_Iterable[_Union[Transfer, _Mapping]]] = ...) -> None: ...

class Transfer(_message.Message):
    __slots__ = ("id", "model", "image_id", "kind", "state", "progress", "started_at", "seconds", "reason")
    ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    IMAGE_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    id: str
    model: str
    image_id: bytes
    kind: str
    state: str
    progress: Progress
    started_at: float
    seconds: float
    reason: str
    def __init__(self, id: _Optional[str] = ..., model: _Optional[str] = ..., image_id: _Optional[bytes] = ..., kind: _Optional[str] = ..., state: _Optional[str] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ..., started_at: _Optional[float] = ..., seconds: _Optional[float] = ..., reason: _Optional[str] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("done_bytes", "total_bytes", "lane", "sources")
    DONE_BYTES_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    LANE_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    done_bytes: int
    total_bytes: int
    lane: str
    sources: _containers.RepeatedCompositeFieldContainer[Source]
    def __init__(self, done_bytes: _Optional[int] = ..., total_bytes: _Optional[int] = ..., lane: _Optional[str] = ..., sources: _Optional[_Iterable[_Union[Source, _Mapping]]] = ...) -> None: ...

class Source(_message.Message):
    __slots__ = ("name", "lane", "bytes", "state", "reason")
    NAME_FIELD_NUMBER: _ClassVar[int]
    LANE_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    name: str
    lane: str
    bytes: int
    state: str
    reason: str
    def __init__(self, name: _Optional[str] = ..., lane: _Optional[str] = ..., bytes: _Optional[int] = ..., state: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class PublishRequest(_message.Message):
    __slots__ = ("folder", "name", "licence")
    FOLDER_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    LICENCE_FIELD_NUMBER: _ClassVar[int]
    folder: str
    name: str
    licence: str
    def __init__(self, folder: _Optional[str] = ..., name: _Optional[str] = ..., licence: _Optional[str] = ...) -> None: ...

class PublishEvent(_message.Message):
    __slots__ = ("note", "progress", "published")
    NOTE_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    PUBLISHED_FIELD_NUMBER: _ClassVar[int]
    note: str
    progress: Progress
    published: Published
    def __init__(self, note: _Optional[str] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ..., published: _Optional[_Union[Published, _Mapping]] = ...) -> None: ...

class Published(_message.Message):
    __slots__ = ("name", "image_id", "total_bytes", "pieces", "tensors", "skipped", "replaced", "seconds", "licence")
    NAME_FIELD_NUMBER: _ClassVar[int]
    IMAGE_ID_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    PIECES_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_FIELD_NUMBER: _ClassVar[int]
    REPLACED_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    LICENCE_FIELD_NUMBER: _ClassVar[int]
    name: str
    image_id: bytes
    total_bytes: int
    pieces: int
    tensors: int
    skipped: _containers.RepeatedScalarFieldContainer[str]
    replaced: bytes
    seconds: float
    licence: str
    def __init__(self, name: _Optional[str] = ..., image_id: _Optional[bytes] = ..., total_bytes: _Optional[int] = ..., pieces: _Optional[int] = ..., tensors: _Optional[int] = ..., skipped: _Optional[_Iterable[str]] = ..., replaced: _Optional[bytes] = ..., seconds: _Optional[float] = ..., licence: _Optional[str] = ...) -> None: ...

class RunRequest(_message.Message):
    __slots__ = ("model", "site", "node", "account", "purpose", "instant", "duration_s")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    INSTANT_FIELD_NUMBER: _ClassVar[int]
    DURATION_S_FIELD_NUMBER: _ClassVar[int]
    model: str
    site: str
    node: str
    account: str
    purpose: str
    instant: bool
    duration_s: int
    def __init__(self, model: _Optional[str] = ..., site: _Optional[str] = ..., node: _Optional[str] = ..., account: _Optional[str] = ..., purpose: _Optional[str] = ..., instant: _Optional[bool] = ..., duration_s: _Optional[int] = ...) -> None: ...

class RunEvent(_message.Message):
    __slots__ = ("note", "progress", "phase", "granted", "accepted", "waiting")
    NOTE_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    GRANTED_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    note: str
    progress: Progress
    phase: Phase
    granted: Granted
    accepted: Accepted
    waiting: Waiting
    def __init__(self, note: _Optional[str] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ..., phase: _Optional[_Union[Phase, _Mapping]] = ..., granted: _Optional[_Union[Granted, _Mapping]] = ..., accepted: _Optional[_Union[Accepted, _Mapping]] = ..., waiting: _Optional[_Union[Waiting, _Mapping]] = ...) -> None: ...

class Waiting(_message.Message):
    __slots__ = ("site", "place")
    SITE_FIELD_NUMBER: _ClassVar[int]
    PLACE_FIELD_NUMBER: _ClassVar[int]
    site: str
    place: QueuePlace
    def __init__(self, site: _Optional[str] = ..., place: _Optional[_Union[QueuePlace, _Mapping]] = ...) -> None: ...

class Accepted(_message.Message):
    __slots__ = ("lease_id", "ttl_s", "site", "node")
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    TTL_S_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    lease_id: str
    ttl_s: float
    site: str
    node: str
    def __init__(self, lease_id: _Optional[str] = ..., ttl_s: _Optional[float] = ..., site: _Optional[str] = ..., node: _Optional[str] = ...) -> None: ...

class Phase(_message.Message):
    __slots__ = ("name", "seconds")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    name: str
    seconds: float
    def __init__(self, name: _Optional[str] = ..., seconds: _Optional[float] = ...) -> None: ...

class Granted(_message.Message):
    __slots__ = ("lease", "endpoint", "api_key", "start")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    API_KEY_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    lease: Lease
    endpoint: str
    api_key: str
    start: Start
    def __init__(self, lease: _Optional[_Union[Lease, _Mapping]] = ..., endpoint: _Optional[str] = ..., api_key: _Optional[str] = ..., start: _Optional[_Union[Start, _Mapping]] = ...) -> None: ...

class Start(_message.Message):
    __slots__ = ("lane", "bytes", "pull_s", "verify_s", "ready_s", "verified", "phases", "sources")
    LANE_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    PULL_S_FIELD_NUMBER: _ClassVar[int]
    VERIFY_S_FIELD_NUMBER: _ClassVar[int]
    READY_S_FIELD_NUMBER: _ClassVar[int]
    VERIFIED_FIELD_NUMBER: _ClassVar[int]
    PHASES_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    lane: str
    bytes: int
    pull_s: float
    verify_s: float
    ready_s: float
    verified: bool
    phases: _containers.RepeatedCompositeFieldContainer[Phase]
    sources: _containers.RepeatedCompositeFieldContainer[Source]
    def __init__(self, lane: _Optional[str] = ..., bytes: _Optional[int] = ..., pull_s: _Optional[float] = ..., verify_s: _Optional[float] = ..., ready_s: _Optional[float] = ..., verified: _Optional[bool] = ..., phases: _Optional[_Iterable[_Union[Phase, _Mapping]]] = ..., sources: _Optional[_Iterable[_Union[Source, _Mapping]]] = ...) -> None: ...

class StopLeaseRequest(_message.Message):
    __slots__ = ("lease_id",)
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    lease_id: str
    def __init__(self, lease_id: _Optional[str] = ...) -> None: ...

class StopLeaseResponse(_message.Message):
    __slots__ = ("lease",)
    LEASE_FIELD_NUMBER: _ClassVar[int]
    lease: Lease
    def __init__(self, lease: _Optional[_Union[Lease, _Mapping]] = ...) -> None: ...

class GetFederationRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Federation(_message.Message):
    __slots__ = ("site", "trust_domain", "node", "role", "gateway", "certificate_expires_at", "registry", "sites", "nodes", "policy")
    SITE_FIELD_NUMBER: _ClassVar[int]
    TRUST_DOMAIN_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    GATEWAY_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    REGISTRY_FIELD_NUMBER: _ClassVar[int]
    SITES_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    site: str
    trust_domain: str
    node: str
    role: str
    gateway: str
    certificate_expires_at: float
    registry: RegistryState
    sites: _containers.RepeatedCompositeFieldContainer[SiteState]
    nodes: _containers.RepeatedCompositeFieldContainer[NodeState]
    policy: PolicyState
    def __init__(self, site: _Optional[str] = ..., trust_domain: _Optional[str] = ..., node: _Optional[str] = ..., role: _Optional[str] = ..., gateway: _Optional[str] = ..., certificate_expires_at: _Optional[float] = ..., registry: _Optional[_Union[RegistryState, _Mapping]] = ..., sites: _Optional[_Iterable[_Union[SiteState, _Mapping]]] = ..., nodes: _Optional[_Iterable[_Union[NodeState, _Mapping]]] = ..., policy: _Optional[_Union[PolicyState, _Mapping]] = ...) -> None: ...

class PolicyState(_message.Message):
    __slots__ = ("version", "digest", "overlay", "why_not", "upcoming", "faults")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    OVERLAY_FIELD_NUMBER: _ClassVar[int]
    WHY_NOT_FIELD_NUMBER: _ClassVar[int]
    UPCOMING_FIELD_NUMBER: _ClassVar[int]
    FAULTS_FIELD_NUMBER: _ClassVar[int]
    version: int
    digest: str
    overlay: int
    why_not: str
    upcoming: _containers.RepeatedCompositeFieldContainer[UpcomingPolicy]
    faults: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, version: _Optional[int] = ..., digest: _Optional[str] = ..., overlay: _Optional[int] = ..., why_not: _Optional[str] = ..., upcoming: _Optional[_Iterable[_Union[UpcomingPolicy, _Mapping]]] = ..., faults: _Optional[_Iterable[str]] = ...) -> None: ...

class UpcomingPolicy(_message.Message):
    __slots__ = ("version", "effective_at")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    EFFECTIVE_AT_FIELD_NUMBER: _ClassVar[int]
    version: int
    effective_at: int
    def __init__(self, version: _Optional[int] = ..., effective_at: _Optional[int] = ...) -> None: ...

class RegistryState(_message.Message):
    __slots__ = ("consortium", "state", "detail", "sites", "refreshed_at", "expires_at")
    CONSORTIUM_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    SITES_FIELD_NUMBER: _ClassVar[int]
    REFRESHED_AT_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    consortium: str
    state: str
    detail: str
    sites: int
    refreshed_at: float
    expires_at: float
    def __init__(self, consortium: _Optional[str] = ..., state: _Optional[str] = ..., detail: _Optional[str] = ..., sites: _Optional[int] = ..., refreshed_at: _Optional[float] = ..., expires_at: _Optional[float] = ...) -> None: ...

class SiteState(_message.Message):
    __slots__ = ("name", "trust_domain", "local", "state", "fault", "age_s", "address", "summary", "carbon_g_per_kwh")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TRUST_DOMAIN_FIELD_NUMBER: _ClassVar[int]
    LOCAL_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    FAULT_FIELD_NUMBER: _ClassVar[int]
    AGE_S_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    CARBON_G_PER_KWH_FIELD_NUMBER: _ClassVar[int]
    name: str
    trust_domain: str
    local: bool
    state: str
    fault: str
    age_s: float
    address: str
    summary: SiteSummary
    carbon_g_per_kwh: int
    def __init__(self, name: _Optional[str] = ..., trust_domain: _Optional[str] = ..., local: _Optional[bool] = ..., state: _Optional[str] = ..., fault: _Optional[str] = ..., age_s: _Optional[float] = ..., address: _Optional[str] = ..., summary: _Optional[_Union[SiteSummary, _Mapping]] = ..., carbon_g_per_kwh: _Optional[int] = ...) -> None: ...

class NodeState(_message.Message):
    __slots__ = ("name", "address", "role", "state", "age_s", "devices", "images", "transfer_bytes_per_s")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    AGE_S_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    TRANSFER_BYTES_PER_S_FIELD_NUMBER: _ClassVar[int]
    name: str
    address: str
    role: str
    state: str
    age_s: float
    devices: _containers.RepeatedCompositeFieldContainer[DeviceState]
    images: int
    transfer_bytes_per_s: float
    def __init__(self, name: _Optional[str] = ..., address: _Optional[str] = ..., role: _Optional[str] = ..., state: _Optional[str] = ..., age_s: _Optional[float] = ..., devices: _Optional[_Iterable[_Union[DeviceState, _Mapping]]] = ..., images: _Optional[int] = ..., transfer_bytes_per_s: _Optional[float] = ...) -> None: ...

class DeviceState(_message.Message):
    __slots__ = ("id", "kind", "memory_bytes", "state", "lease", "borrower")
    ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    BORROWER_FIELD_NUMBER: _ClassVar[int]
    id: str
    kind: str
    memory_bytes: int
    state: str
    lease: str
    borrower: str
    def __init__(self, id: _Optional[str] = ..., kind: _Optional[str] = ..., memory_bytes: _Optional[int] = ..., state: _Optional[str] = ..., lease: _Optional[str] = ..., borrower: _Optional[str] = ...) -> None: ...

class GetQueueRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class QueueState(_message.Message):
    __slots__ = ("site", "consortium", "policy_version", "policy_digest", "books_age_s", "stale", "requests", "devices", "waits", "reserved_waits", "reclaims", "reclaim_p50_s", "reclaim_longest_s", "shares", "terms")
    SITE_FIELD_NUMBER: _ClassVar[int]
    CONSORTIUM_FIELD_NUMBER: _ClassVar[int]
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    POLICY_DIGEST_FIELD_NUMBER: _ClassVar[int]
    BOOKS_AGE_S_FIELD_NUMBER: _ClassVar[int]
    STALE_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    WAITS_FIELD_NUMBER: _ClassVar[int]
    RESERVED_WAITS_FIELD_NUMBER: _ClassVar[int]
    RECLAIMS_FIELD_NUMBER: _ClassVar[int]
    RECLAIM_P50_S_FIELD_NUMBER: _ClassVar[int]
    RECLAIM_LONGEST_S_FIELD_NUMBER: _ClassVar[int]
    SHARES_FIELD_NUMBER: _ClassVar[int]
    TERMS_FIELD_NUMBER: _ClassVar[int]
    site: str
    consortium: str
    policy_version: int
    policy_digest: str
    books_age_s: float
    stale: bool
    requests: _containers.RepeatedCompositeFieldContainer[WaitingRequest]
    devices: _containers.RepeatedCompositeFieldContainer[DeviceCount]
    waits: _containers.RepeatedCompositeFieldContainer[WaitCell]
    reserved_waits: _containers.RepeatedCompositeFieldContainer[WaitCell]
    reclaims: int
    reclaim_p50_s: float
    reclaim_longest_s: float
    shares: _containers.RepeatedCompositeFieldContainer[ShareState]
    terms: LendingTerms
    def __init__(self, site: _Optional[str] = ..., consortium: _Optional[str] = ..., policy_version: _Optional[int] = ..., policy_digest: _Optional[str] = ..., books_age_s: _Optional[float] = ..., stale: _Optional[bool] = ..., requests: _Optional[_Iterable[_Union[WaitingRequest, _Mapping]]] = ..., devices: _Optional[_Iterable[_Union[DeviceCount, _Mapping]]] = ..., waits: _Optional[_Iterable[_Union[WaitCell, _Mapping]]] = ..., reserved_waits: _Optional[_Iterable[_Union[WaitCell, _Mapping]]] = ..., reclaims: _Optional[int] = ..., reclaim_p50_s: _Optional[float] = ..., reclaim_longest_s: _Optional[float] = ..., shares: _Optional[_Iterable[_Union[ShareState, _Mapping]]] = ..., terms: _Optional[_Union[LendingTerms, _Mapping]] = ...) -> None: ...

class WaitingRequest(_message.Message):
    __slots__ = ("request_id", "borrower", "account", "purpose", "model", "devices", "instant", "waited_s", "place")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    BORROWER_FIELD_NUMBER: _ClassVar[int]
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    INSTANT_FIELD_NUMBER: _ClassVar[int]
    WAITED_S_FIELD_NUMBER: _ClassVar[int]
    PLACE_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    borrower: str
    account: str
    purpose: str
    model: str
    devices: int
    instant: bool
    waited_s: float
    place: QueuePlace
    def __init__(self, request_id: _Optional[str] = ..., borrower: _Optional[str] = ..., account: _Optional[str] = ..., purpose: _Optional[str] = ..., model: _Optional[str] = ..., devices: _Optional[int] = ..., instant: _Optional[bool] = ..., waited_s: _Optional[float] = ..., place: _Optional[_Union[QueuePlace, _Mapping]] = ...) -> None: ...

class DeviceCount(_message.Message):
    __slots__ = ("device_class", "lent", "used", "owned")
    DEVICE_CLASS_FIELD_NUMBER: _ClassVar[int]
    LENT_FIELD_NUMBER: _ClassVar[int]
    USED_FIELD_NUMBER: _ClassVar[int]
    OWNED_FIELD_NUMBER: _ClassVar[int]
    device_class: str
    lent: int
    used: int
    owned: int
    def __init__(self, device_class: _Optional[str] = ..., lent: _Optional[int] = ..., used: _Optional[int] = ..., owned: _Optional[int] = ...) -> None: ...

class WaitCell(_message.Message):
    __slots__ = ("group", "device_class", "requests", "p50_s", "p90_s")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    DEVICE_CLASS_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    P50_S_FIELD_NUMBER: _ClassVar[int]
    P90_S_FIELD_NUMBER: _ClassVar[int]
    group: str
    device_class: str
    requests: int
    p50_s: float
    p90_s: float
    def __init__(self, group: _Optional[str] = ..., device_class: _Optional[str] = ..., requests: _Optional[int] = ..., p50_s: _Optional[float] = ..., p90_s: _Optional[float] = ...) -> None: ...

class ShareState(_message.Message):
    __slots__ = ("institution", "due_permille", "delivered_permille")
    INSTITUTION_FIELD_NUMBER: _ClassVar[int]
    DUE_PERMILLE_FIELD_NUMBER: _ClassVar[int]
    DELIVERED_PERMILLE_FIELD_NUMBER: _ClassVar[int]
    institution: str
    due_permille: int
    delivered_permille: int
    def __init__(self, institution: _Optional[str] = ..., due_permille: _Optional[int] = ..., delivered_permille: _Optional[int] = ...) -> None: ...

class LendingTerms(_message.Message):
    __slots__ = ("grace_s", "instant_grace_s", "min_runtime_s", "max_duration_s", "to", "hours")
    GRACE_S_FIELD_NUMBER: _ClassVar[int]
    INSTANT_GRACE_S_FIELD_NUMBER: _ClassVar[int]
    MIN_RUNTIME_S_FIELD_NUMBER: _ClassVar[int]
    MAX_DURATION_S_FIELD_NUMBER: _ClassVar[int]
    TO_FIELD_NUMBER: _ClassVar[int]
    HOURS_FIELD_NUMBER: _ClassVar[int]
    grace_s: float
    instant_grace_s: float
    min_runtime_s: float
    max_duration_s: float
    to: _containers.RepeatedScalarFieldContainer[str]
    hours: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, grace_s: _Optional[float] = ..., instant_grace_s: _Optional[float] = ..., min_runtime_s: _Optional[float] = ..., max_duration_s: _Optional[float] = ..., to: _Optional[_Iterable[str]] = ..., hours: _Optional[_Iterable[str]] = ...) -> None: ...

class CreateInviteRequest(_message.Message):
    __slots__ = ("node", "lifetime_s", "cidr")
    NODE_FIELD_NUMBER: _ClassVar[int]
    LIFETIME_S_FIELD_NUMBER: _ClassVar[int]
    CIDR_FIELD_NUMBER: _ClassVar[int]
    node: str
    lifetime_s: float
    cidr: str
    def __init__(self, node: _Optional[str] = ..., lifetime_s: _Optional[float] = ..., cidr: _Optional[str] = ...) -> None: ...

class CreateInviteResponse(_message.Message):
    __slots__ = ("invite", "expires_at")
    INVITE_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    invite: str
    expires_at: float
    def __init__(self, invite: _Optional[str] = ..., expires_at: _Optional[float] = ...) -> None: ...

class LeaveSiteRequest(_message.Message):
    __slots__ = ("node",)
    NODE_FIELD_NUMBER: _ClassVar[int]
    node: str
    def __init__(self, node: _Optional[str] = ...) -> None: ...

class LeaveSiteResponse(_message.Message):
    __slots__ = ("sentence",)
    SENTENCE_FIELD_NUMBER: _ClassVar[int]
    sentence: str
    def __init__(self, sentence: _Optional[str] = ...) -> None: ...

class RefreshRegistryRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WhoAmIRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WhoAmIResponse(_message.Message):
    __slots__ = ("who", "name", "admin", "site", "account", "accounts", "classes", "notice")
    WHO_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ADMIN_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    ACCOUNTS_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    NOTICE_FIELD_NUMBER: _ClassVar[int]
    who: str
    name: str
    admin: bool
    site: str
    account: str
    accounts: _containers.RepeatedScalarFieldContainer[str]
    classes: _containers.RepeatedScalarFieldContainer[str]
    notice: str
    def __init__(self, who: _Optional[str] = ..., name: _Optional[str] = ..., admin: _Optional[bool] = ..., site: _Optional[str] = ..., account: _Optional[str] = ..., accounts: _Optional[_Iterable[str]] = ..., classes: _Optional[_Iterable[str]] = ..., notice: _Optional[str] = ...) -> None: ...

class GetUsageRequest(_message.Message):
    __slots__ = ("accounts",)
    ACCOUNTS_FIELD_NUMBER: _ClassVar[int]
    accounts: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, accounts: _Optional[_Iterable[str]] = ...) -> None: ...

class GetUsageResponse(_message.Message):
    __slots__ = ("accounts", "source")
    ACCOUNTS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    accounts: _containers.RepeatedCompositeFieldContainer[AccountUsage]
    source: str
    def __init__(self, accounts: _Optional[_Iterable[_Union[AccountUsage, _Mapping]]] = ..., source: _Optional[str] = ...) -> None: ...

class AccountUsage(_message.Message):
    __slots__ = ("account", "classes", "decayed_msgs", "charged_msgs", "due_permille", "delivered_permille", "leases", "receipts")
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    DECAYED_MSGS_FIELD_NUMBER: _ClassVar[int]
    CHARGED_MSGS_FIELD_NUMBER: _ClassVar[int]
    DUE_PERMILLE_FIELD_NUMBER: _ClassVar[int]
    DELIVERED_PERMILLE_FIELD_NUMBER: _ClassVar[int]
    LEASES_FIELD_NUMBER: _ClassVar[int]
    RECEIPTS_FIELD_NUMBER: _ClassVar[int]
    account: str
    classes: _containers.RepeatedScalarFieldContainer[str]
    decayed_msgs: int
    charged_msgs: int
    due_permille: int
    delivered_permille: int
    leases: int
    receipts: _containers.RepeatedCompositeFieldContainer[ReceiptLine]
    def __init__(self, account: _Optional[str] = ..., classes: _Optional[_Iterable[str]] = ..., decayed_msgs: _Optional[int] = ..., charged_msgs: _Optional[int] = ..., due_permille: _Optional[int] = ..., delivered_permille: _Optional[int] = ..., leases: _Optional[int] = ..., receipts: _Optional[_Iterable[_Union[ReceiptLine, _Mapping]]] = ...) -> None: ...

class ReceiptLine(_message.Message):
    __slots__ = ("donor", "lease_id", "seq", "charge_msgs", "from_s", "to_s", "state")
    DONOR_FIELD_NUMBER: _ClassVar[int]
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    CHARGE_MSGS_FIELD_NUMBER: _ClassVar[int]
    FROM_S_FIELD_NUMBER: _ClassVar[int]
    TO_S_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    donor: str
    lease_id: str
    seq: int
    charge_msgs: int
    from_s: float
    to_s: float
    state: str
    def __init__(self, donor: _Optional[str] = ..., lease_id: _Optional[str] = ..., seq: _Optional[int] = ..., charge_msgs: _Optional[int] = ..., from_s: _Optional[float] = ..., to_s: _Optional[float] = ..., state: _Optional[str] = ...) -> None: ...

class CreateTokenRequest(_message.Message):
    __slots__ = ("name", "account", "lifetime_s")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    LIFETIME_S_FIELD_NUMBER: _ClassVar[int]
    name: str
    account: str
    lifetime_s: float
    def __init__(self, name: _Optional[str] = ..., account: _Optional[str] = ..., lifetime_s: _Optional[float] = ...) -> None: ...

class CreateTokenResponse(_message.Message):
    __slots__ = ("token", "expires_at")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    token: str
    expires_at: float
    def __init__(self, token: _Optional[str] = ..., expires_at: _Optional[float] = ...) -> None: ...

class ListTokensRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListTokensResponse(_message.Message):
    __slots__ = ("tokens",)
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    tokens: _containers.RepeatedCompositeFieldContainer[Token]
    def __init__(self, tokens: _Optional[_Iterable[_Union[Token, _Mapping]]] = ...) -> None: ...

class Token(_message.Message):
    __slots__ = ("name", "account", "created_at", "expires_at", "used_at")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    USED_AT_FIELD_NUMBER: _ClassVar[int]
    name: str
    account: str
    created_at: float
    expires_at: float
    used_at: float
    def __init__(self, name: _Optional[str] = ..., account: _Optional[str] = ..., created_at: _Optional[float] = ..., expires_at: _Optional[float] = ..., used_at: _Optional[float] = ...) -> None: ...

class RevokeTokenRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ListDevicesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListDevicesResponse(_message.Message):
    __slots__ = ("devices",)
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    devices: _containers.RepeatedCompositeFieldContainer[NodeDevice]
    def __init__(self, devices: _Optional[_Iterable[_Union[NodeDevice, _Mapping]]] = ...) -> None: ...

class NodeDevice(_message.Message):
    __slots__ = ("id", "kind", "device_class", "memory_bytes", "state", "wanted", "left_s", "guests", "draining", "only_idle", "hours", "headroom_bytes", "doubt", "last_reclaim_s", "donated")
    ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    DEVICE_CLASS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    WANTED_FIELD_NUMBER: _ClassVar[int]
    LEFT_S_FIELD_NUMBER: _ClassVar[int]
    GUESTS_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    ONLY_IDLE_FIELD_NUMBER: _ClassVar[int]
    HOURS_FIELD_NUMBER: _ClassVar[int]
    HEADROOM_BYTES_FIELD_NUMBER: _ClassVar[int]
    DOUBT_FIELD_NUMBER: _ClassVar[int]
    LAST_RECLAIM_S_FIELD_NUMBER: _ClassVar[int]
    DONATED_FIELD_NUMBER: _ClassVar[int]
    id: str
    kind: str
    device_class: str
    memory_bytes: int
    state: str
    wanted: _containers.RepeatedScalarFieldContainer[str]
    left_s: float
    guests: _containers.RepeatedCompositeFieldContainer[Guest]
    draining: bool
    only_idle: bool
    hours: _containers.RepeatedScalarFieldContainer[str]
    headroom_bytes: int
    doubt: str
    last_reclaim_s: float
    donated: bool
    def __init__(self, id: _Optional[str] = ..., kind: _Optional[str] = ..., device_class: _Optional[str] = ..., memory_bytes: _Optional[int] = ..., state: _Optional[str] = ..., wanted: _Optional[_Iterable[str]] = ..., left_s: _Optional[float] = ..., guests: _Optional[_Iterable[_Union[Guest, _Mapping]]] = ..., draining: _Optional[bool] = ..., only_idle: _Optional[bool] = ..., hours: _Optional[_Iterable[str]] = ..., headroom_bytes: _Optional[int] = ..., doubt: _Optional[str] = ..., last_reclaim_s: _Optional[float] = ..., donated: _Optional[bool] = ...) -> None: ...

class Guest(_message.Message):
    __slots__ = ("lease_id", "model", "borrower", "held_s", "grace_s")
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    BORROWER_FIELD_NUMBER: _ClassVar[int]
    HELD_S_FIELD_NUMBER: _ClassVar[int]
    GRACE_S_FIELD_NUMBER: _ClassVar[int]
    lease_id: str
    model: str
    borrower: str
    held_s: float
    grace_s: float
    def __init__(self, lease_id: _Optional[str] = ..., model: _Optional[str] = ..., borrower: _Optional[str] = ..., held_s: _Optional[float] = ..., grace_s: _Optional[float] = ...) -> None: ...

class ChangeDevicesRequest(_message.Message):
    __slots__ = ("change", "devices", "count", "dry_run", "only_idle", "hours", "headroom_bytes")
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    ONLY_IDLE_FIELD_NUMBER: _ClassVar[int]
    HOURS_FIELD_NUMBER: _ClassVar[int]
    HEADROOM_BYTES_FIELD_NUMBER: _ClassVar[int]
    change: str
    devices: _containers.RepeatedScalarFieldContainer[str]
    count: int
    dry_run: bool
    only_idle: bool
    hours: HourSpans
    headroom_bytes: int
    def __init__(self, change: _Optional[str] = ..., devices: _Optional[_Iterable[str]] = ..., count: _Optional[int] = ..., dry_run: _Optional[bool] = ..., only_idle: _Optional[bool] = ..., hours: _Optional[_Union[HourSpans, _Mapping]] = ..., headroom_bytes: _Optional[int] = ...) -> None: ...

class HourSpans(_message.Message):
    __slots__ = ("spans",)
    SPANS_FIELD_NUMBER: _ClassVar[int]
    spans: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, spans: _Optional[_Iterable[str]] = ...) -> None: ...

class ClaimDevicesRequest(_message.Message):
    __slots__ = ("devices", "count", "pid", "pid_started", "command")
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    PID_STARTED_FIELD_NUMBER: _ClassVar[int]
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    devices: _containers.RepeatedScalarFieldContainer[str]
    count: int
    pid: int
    pid_started: int
    command: str
    def __init__(self, devices: _Optional[_Iterable[str]] = ..., count: _Optional[int] = ..., pid: _Optional[int] = ..., pid_started: _Optional[int] = ..., command: _Optional[str] = ...) -> None: ...

class ClaimEvent(_message.Message):
    __slots__ = ("taking", "handed_over")
    TAKING_FIELD_NUMBER: _ClassVar[int]
    HANDED_OVER_FIELD_NUMBER: _ClassVar[int]
    taking: ListDevicesResponse
    handed_over: HandedOver
    def __init__(self, taking: _Optional[_Union[ListDevicesResponse, _Mapping]] = ..., handed_over: _Optional[_Union[HandedOver, _Mapping]] = ...) -> None: ...

class HandedOver(_message.Message):
    __slots__ = ("devices", "gpus", "seconds", "doubt")
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    DOUBT_FIELD_NUMBER: _ClassVar[int]
    devices: _containers.RepeatedScalarFieldContainer[str]
    gpus: _containers.RepeatedScalarFieldContainer[str]
    seconds: float
    doubt: str
    def __init__(self, devices: _Optional[_Iterable[str]] = ..., gpus: _Optional[_Iterable[str]] = ..., seconds: _Optional[float] = ..., doubt: _Optional[str] = ...) -> None: ...

class ChallengeRequest(_message.Message):
    __slots__ = ("client_nonce",)
    CLIENT_NONCE_FIELD_NUMBER: _ClassVar[int]
    client_nonce: bytes
    def __init__(self, client_nonce: _Optional[bytes] = ...) -> None: ...

class ChallengeResponse(_message.Message):
    __slots__ = ("server_nonce", "server_time")
    SERVER_NONCE_FIELD_NUMBER: _ClassVar[int]
    SERVER_TIME_FIELD_NUMBER: _ClassVar[int]
    server_nonce: bytes
    server_time: float
    def __init__(self, server_nonce: _Optional[bytes] = ..., server_time: _Optional[float] = ...) -> None: ...

class JoinRequest(_message.Message):
    __slots__ = ("token_id", "node", "client_nonce", "server_nonce", "csr", "proof")
    TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    CLIENT_NONCE_FIELD_NUMBER: _ClassVar[int]
    SERVER_NONCE_FIELD_NUMBER: _ClassVar[int]
    CSR_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    token_id: bytes
    node: str
    client_nonce: bytes
    server_nonce: bytes
    csr: bytes
    proof: bytes
    def __init__(self, token_id: _Optional[bytes] = ..., node: _Optional[str] = ..., client_nonce: _Optional[bytes] = ..., server_nonce: _Optional[bytes] = ..., csr: _Optional[bytes] = ..., proof: _Optional[bytes] = ...) -> None: ...

class JoinResponse(_message.Message):
    __slots__ = ("certificate", "gateway_node", "gateway_address")
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    GATEWAY_NODE_FIELD_NUMBER: _ClassVar[int]
    GATEWAY_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    certificate: bytes
    gateway_node: str
    gateway_address: str
    def __init__(self, certificate: _Optional[bytes] = ..., gateway_node: _Optional[str] = ..., gateway_address: _Optional[str] = ...) -> None: ...

class OpenSessionRequest(_message.Message):
    __slots__ = ("token_id", "client_nonce", "server_nonce", "proof")
    TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    CLIENT_NONCE_FIELD_NUMBER: _ClassVar[int]
    SERVER_NONCE_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    token_id: bytes
    client_nonce: bytes
    server_nonce: bytes
    proof: bytes
    def __init__(self, token_id: _Optional[bytes] = ..., client_nonce: _Optional[bytes] = ..., server_nonce: _Optional[bytes] = ..., proof: _Optional[bytes] = ...) -> None: ...

class OpenSessionResponse(_message.Message):
    __slots__ = ("session", "ttl_s")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    TTL_S_FIELD_NUMBER: _ClassVar[int]
    session: str
    ttl_s: float
    def __init__(self, session: _Optional[str] = ..., ttl_s: _Optional[float] = ...) -> None: ...

class LedgerHeadsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class LedgerHeadsReply(_message.Message):
    __slots__ = ("heads", "notes", "carbon")
    HEADS_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    CARBON_FIELD_NUMBER: _ClassVar[int]
    heads: _containers.RepeatedCompositeFieldContainer[LedgerHead]
    notes: bytes
    carbon: SignedStatement
    def __init__(self, heads: _Optional[_Iterable[_Union[LedgerHead, _Mapping]]] = ..., notes: _Optional[bytes] = ..., carbon: _Optional[_Union[SignedStatement, _Mapping]] = ...) -> None: ...

class LedgerHead(_message.Message):
    __slots__ = ("donor", "position", "digest")
    DONOR_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    donor: str
    position: int
    digest: bytes
    def __init__(self, donor: _Optional[str] = ..., position: _Optional[int] = ..., digest: _Optional[bytes] = ...) -> None: ...

class LedgerPageRequest(_message.Message):
    __slots__ = ("donor", "after", "limit")
    DONOR_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    donor: str
    after: int
    limit: int
    def __init__(self, donor: _Optional[str] = ..., after: _Optional[int] = ..., limit: _Optional[int] = ...) -> None: ...

class LedgerPageReply(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[LedgerItem]
    def __init__(self, items: _Optional[_Iterable[_Union[LedgerItem, _Mapping]]] = ...) -> None: ...

class LedgerItem(_message.Message):
    __slots__ = ("body", "donor_signature", "borrower_signature")
    BODY_FIELD_NUMBER: _ClassVar[int]
    DONOR_SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    BORROWER_SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    body: bytes
    donor_signature: bytes
    borrower_signature: bytes
    def __init__(self, body: _Optional[bytes] = ..., donor_signature: _Optional[bytes] = ..., borrower_signature: _Optional[bytes] = ...) -> None: ...

class LedgerSignaturesRequest(_message.Message):
    __slots__ = ("donor", "positions")
    DONOR_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    donor: str
    positions: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, donor: _Optional[str] = ..., positions: _Optional[_Iterable[int]] = ...) -> None: ...

class LedgerSignaturesReply(_message.Message):
    __slots__ = ("signatures",)
    SIGNATURES_FIELD_NUMBER: _ClassVar[int]
    signatures: _containers.RepeatedCompositeFieldContainer[Countersignature]
    def __init__(self, signatures: _Optional[_Iterable[_Union[Countersignature, _Mapping]]] = ...) -> None: ...

class Countersignature(_message.Message):
    __slots__ = ("donor", "position", "signature")
    DONOR_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    donor: str
    position: int
    signature: bytes
    def __init__(self, donor: _Optional[str] = ..., position: _Optional[int] = ..., signature: _Optional[bytes] = ...) -> None: ...

class CountersignRequest(_message.Message):
    __slots__ = ("signatures",)
    SIGNATURES_FIELD_NUMBER: _ClassVar[int]
    signatures: _containers.RepeatedCompositeFieldContainer[Countersignature]
    def __init__(self, signatures: _Optional[_Iterable[_Union[Countersignature, _Mapping]]] = ...) -> None: ...

class CountersignReply(_message.Message):
    __slots__ = ("taken",)
    TAKEN_FIELD_NUMBER: _ClassVar[int]
    taken: int
    def __init__(self, taken: _Optional[int] = ...) -> None: ...

class LedgerNotesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class LedgerNotesReply(_message.Message):
    __slots__ = ("evidence", "disputes", "resolutions")
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    DISPUTES_FIELD_NUMBER: _ClassVar[int]
    RESOLUTIONS_FIELD_NUMBER: _ClassVar[int]
    evidence: _containers.RepeatedCompositeFieldContainer[LedgerEvidence]
    disputes: _containers.RepeatedCompositeFieldContainer[SignedStatement]
    resolutions: _containers.RepeatedCompositeFieldContainer[SignedStatement]
    def __init__(self, evidence: _Optional[_Iterable[_Union[LedgerEvidence, _Mapping]]] = ..., disputes: _Optional[_Iterable[_Union[SignedStatement, _Mapping]]] = ..., resolutions: _Optional[_Iterable[_Union[SignedStatement, _Mapping]]] = ...) -> None: ...

class LedgerEvidence(_message.Message):
    __slots__ = ("first", "second")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    SECOND_FIELD_NUMBER: _ClassVar[int]
    first: LedgerItem
    second: LedgerItem
    def __init__(self, first: _Optional[_Union[LedgerItem, _Mapping]] = ..., second: _Optional[_Union[LedgerItem, _Mapping]] = ...) -> None: ...

class SignedStatement(_message.Message):
    __slots__ = ("body", "signature")
    BODY_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    body: bytes
    signature: bytes
    def __init__(self, body: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class DescribeSiteRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SiteSummary(_message.Message):
    __slots__ = ("site", "version", "devices", "leased", "nodes", "images", "transfer_bytes_per_s", "by_class", "egress_left_permille", "image_bytes_per_s", "waiting")
    SITE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    LEASED_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    TRANSFER_BYTES_PER_S_FIELD_NUMBER: _ClassVar[int]
    BY_CLASS_FIELD_NUMBER: _ClassVar[int]
    EGRESS_LEFT_PERMILLE_FIELD_NUMBER: _ClassVar[int]
    IMAGE_BYTES_PER_S_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    site: str
    version: str
    devices: int
    leased: int
    nodes: int
    images: int
    transfer_bytes_per_s: float
    by_class: _containers.RepeatedCompositeFieldContainer[DeviceCount]
    egress_left_permille: int
    image_bytes_per_s: float
    waiting: int
    def __init__(self, site: _Optional[str] = ..., version: _Optional[str] = ..., devices: _Optional[int] = ..., leased: _Optional[int] = ..., nodes: _Optional[int] = ..., images: _Optional[int] = ..., transfer_bytes_per_s: _Optional[float] = ..., by_class: _Optional[_Iterable[_Union[DeviceCount, _Mapping]]] = ..., egress_left_permille: _Optional[int] = ..., image_bytes_per_s: _Optional[float] = ..., waiting: _Optional[int] = ...) -> None: ...

class AskOfferRequest(_message.Message):
    __slots__ = ("request_id", "model", "image_id", "total_bytes", "devices", "node", "borrower_node", "account", "purpose", "instant", "duration_s", "asked_at_s", "signature", "nonce", "wait_s")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    IMAGE_ID_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    BORROWER_NODE_FIELD_NUMBER: _ClassVar[int]
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    INSTANT_FIELD_NUMBER: _ClassVar[int]
    DURATION_S_FIELD_NUMBER: _ClassVar[int]
    ASKED_AT_S_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    WAIT_S_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    model: str
    image_id: bytes
    total_bytes: int
    devices: int
    node: str
    borrower_node: str
    account: str
    purpose: str
    instant: bool
    duration_s: int
    asked_at_s: int
    signature: bytes
    nonce: str
    wait_s: float
    def __init__(self, request_id: _Optional[str] = ..., model: _Optional[str] = ..., image_id: _Optional[bytes] = ..., total_bytes: _Optional[int] = ..., devices: _Optional[int] = ..., node: _Optional[str] = ..., borrower_node: _Optional[str] = ..., account: _Optional[str] = ..., purpose: _Optional[str] = ..., instant: _Optional[bool] = ..., duration_s: _Optional[int] = ..., asked_at_s: _Optional[int] = ..., signature: _Optional[bytes] = ..., nonce: _Optional[str] = ..., wait_s: _Optional[float] = ...) -> None: ...

class OfferReply(_message.Message):
    __slots__ = ("offer", "refusal", "place")
    OFFER_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    PLACE_FIELD_NUMBER: _ClassVar[int]
    offer: LeaseOffer
    refusal: Refusal
    place: QueuePlace
    def __init__(self, offer: _Optional[_Union[LeaseOffer, _Mapping]] = ..., refusal: _Optional[_Union[Refusal, _Mapping]] = ..., place: _Optional[_Union[QueuePlace, _Mapping]] = ...) -> None: ...

class QueuePlace(_message.Message):
    __slots__ = ("position", "waiting", "reasons", "has_eta", "eta_p50_s", "eta_p90_s")
    POSITION_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    HAS_ETA_FIELD_NUMBER: _ClassVar[int]
    ETA_P50_S_FIELD_NUMBER: _ClassVar[int]
    ETA_P90_S_FIELD_NUMBER: _ClassVar[int]
    position: int
    waiting: int
    reasons: _containers.RepeatedCompositeFieldContainer[WaitReason]
    has_eta: bool
    eta_p50_s: float
    eta_p90_s: float
    def __init__(self, position: _Optional[int] = ..., waiting: _Optional[int] = ..., reasons: _Optional[_Iterable[_Union[WaitReason, _Mapping]]] = ..., has_eta: _Optional[bool] = ..., eta_p50_s: _Optional[float] = ..., eta_p90_s: _Optional[float] = ...) -> None: ...

class WaitReason(_message.Message):
    __slots__ = ("code", "sentence", "change")
    CODE_FIELD_NUMBER: _ClassVar[int]
    SENTENCE_FIELD_NUMBER: _ClassVar[int]
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    code: str
    sentence: str
    change: str
    def __init__(self, code: _Optional[str] = ..., sentence: _Optional[str] = ..., change: _Optional[str] = ...) -> None: ...

class LeaseOffer(_message.Message):
    __slots__ = ("offer_id", "ttl_s", "node", "warm", "grace_s", "min_runtime_s", "max_duration_s", "instant", "starts_in_s")
    OFFER_ID_FIELD_NUMBER: _ClassVar[int]
    TTL_S_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    WARM_FIELD_NUMBER: _ClassVar[int]
    GRACE_S_FIELD_NUMBER: _ClassVar[int]
    MIN_RUNTIME_S_FIELD_NUMBER: _ClassVar[int]
    MAX_DURATION_S_FIELD_NUMBER: _ClassVar[int]
    INSTANT_FIELD_NUMBER: _ClassVar[int]
    STARTS_IN_S_FIELD_NUMBER: _ClassVar[int]
    offer_id: str
    ttl_s: float
    node: str
    warm: bool
    grace_s: float
    min_runtime_s: float
    max_duration_s: float
    instant: bool
    starts_in_s: float
    def __init__(self, offer_id: _Optional[str] = ..., ttl_s: _Optional[float] = ..., node: _Optional[str] = ..., warm: _Optional[bool] = ..., grace_s: _Optional[float] = ..., min_runtime_s: _Optional[float] = ..., max_duration_s: _Optional[float] = ..., instant: _Optional[bool] = ..., starts_in_s: _Optional[float] = ...) -> None: ...

class Refusal(_message.Message):
    __slots__ = ("code", "sentence", "fix", "terminal")
    CODE_FIELD_NUMBER: _ClassVar[int]
    SENTENCE_FIELD_NUMBER: _ClassVar[int]
    FIX_FIELD_NUMBER: _ClassVar[int]
    TERMINAL_FIELD_NUMBER: _ClassVar[int]
    code: str
    sentence: str
    fix: str
    terminal: bool
    def __init__(self, code: _Optional[str] = ..., sentence: _Optional[str] = ..., fix: _Optional[str] = ..., terminal: _Optional[bool] = ...) -> None: ...

class CommitRequest(_message.Message):
    __slots__ = ("offer_id",)
    OFFER_ID_FIELD_NUMBER: _ClassVar[int]
    offer_id: str
    def __init__(self, offer_id: _Optional[str] = ...) -> None: ...

class RenewLeaseRequest(_message.Message):
    __slots__ = ("lease_id",)
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    lease_id: str
    def __init__(self, lease_id: _Optional[str] = ...) -> None: ...

class RenewLeaseResponse(_message.Message):
    __slots__ = ("ttl_s",)
    TTL_S_FIELD_NUMBER: _ClassVar[int]
    ttl_s: float
    def __init__(self, ttl_s: _Optional[float] = ...) -> None: ...

class ReleaseLeaseRequest(_message.Message):
    __slots__ = ("lease_id", "reason")
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    lease_id: str
    reason: str
    def __init__(self, lease_id: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class ReleaseLeaseResponse(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class AttendLeaseRequest(_message.Message):
    __slots__ = ("lease_id",)
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    lease_id: str
    def __init__(self, lease_id: _Optional[str] = ...) -> None: ...

class LeaseNews(_message.Message):
    __slots__ = ("ended", "reason", "notice", "left_s", "withdrawn")
    ENDED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    NOTICE_FIELD_NUMBER: _ClassVar[int]
    LEFT_S_FIELD_NUMBER: _ClassVar[int]
    WITHDRAWN_FIELD_NUMBER: _ClassVar[int]
    ended: bool
    reason: str
    notice: bool
    left_s: float
    withdrawn: bool
    def __init__(self, ended: _Optional[bool] = ..., reason: _Optional[str] = ..., notice: _Optional[bool] = ..., left_s: _Optional[float] = ..., withdrawn: _Optional[bool] = ...) -> None: ...

class RelayData(_message.Message):
    __slots__ = ("lease_id", "data", "end")
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    lease_id: str
    data: bytes
    end: bool
    def __init__(self, lease_id: _Optional[str] = ..., data: _Optional[bytes] = ..., end: _Optional[bool] = ...) -> None: ...

class ReportRequest(_message.Message):
    __slots__ = ("address", "devices", "images", "leases", "spares_ready", "transfer_bytes_per_s", "donating", "ended", "uses")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    LEASES_FIELD_NUMBER: _ClassVar[int]
    SPARES_READY_FIELD_NUMBER: _ClassVar[int]
    TRANSFER_BYTES_PER_S_FIELD_NUMBER: _ClassVar[int]
    DONATING_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    USES_FIELD_NUMBER: _ClassVar[int]
    address: str
    devices: _containers.RepeatedCompositeFieldContainer[ReportedDevice]
    images: _containers.RepeatedCompositeFieldContainer[ReportedImage]
    leases: _containers.RepeatedScalarFieldContainer[str]
    spares_ready: int
    transfer_bytes_per_s: float
    donating: bool
    ended: _containers.RepeatedCompositeFieldContainer[EndedLease]
    uses: _containers.RepeatedCompositeFieldContainer[LeaseUse]
    def __init__(self, address: _Optional[str] = ..., devices: _Optional[_Iterable[_Union[ReportedDevice, _Mapping]]] = ..., images: _Optional[_Iterable[_Union[ReportedImage, _Mapping]]] = ..., leases: _Optional[_Iterable[str]] = ..., spares_ready: _Optional[int] = ..., transfer_bytes_per_s: _Optional[float] = ..., donating: _Optional[bool] = ..., ended: _Optional[_Iterable[_Union[EndedLease, _Mapping]]] = ..., uses: _Optional[_Iterable[_Union[LeaseUse, _Mapping]]] = ...) -> None: ...

class LeaseUse(_message.Message):
    __slots__ = ("lease_id", "energy_wh", "sent_bytes")
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    ENERGY_WH_FIELD_NUMBER: _ClassVar[int]
    SENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    lease_id: str
    energy_wh: int
    sent_bytes: int
    def __init__(self, lease_id: _Optional[str] = ..., energy_wh: _Optional[int] = ..., sent_bytes: _Optional[int] = ...) -> None: ...

class EndedLease(_message.Message):
    __slots__ = ("lease_id", "reason", "for_owner")
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    FOR_OWNER_FIELD_NUMBER: _ClassVar[int]
    lease_id: str
    reason: str
    for_owner: bool
    def __init__(self, lease_id: _Optional[str] = ..., reason: _Optional[str] = ..., for_owner: _Optional[bool] = ...) -> None: ...

class ReportedDevice(_message.Message):
    __slots__ = ("id", "kind", "memory_bytes", "state", "reclaim_left_s", "device_class", "reclaims", "last_reclaim_s")
    ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    RECLAIM_LEFT_S_FIELD_NUMBER: _ClassVar[int]
    DEVICE_CLASS_FIELD_NUMBER: _ClassVar[int]
    RECLAIMS_FIELD_NUMBER: _ClassVar[int]
    LAST_RECLAIM_S_FIELD_NUMBER: _ClassVar[int]
    id: str
    kind: str
    memory_bytes: int
    state: str
    reclaim_left_s: float
    device_class: str
    reclaims: int
    last_reclaim_s: float
    def __init__(self, id: _Optional[str] = ..., kind: _Optional[str] = ..., memory_bytes: _Optional[int] = ..., state: _Optional[str] = ..., reclaim_left_s: _Optional[float] = ..., device_class: _Optional[str] = ..., reclaims: _Optional[int] = ..., last_reclaim_s: _Optional[float] = ...) -> None: ...

class ReportedImage(_message.Message):
    __slots__ = ("image_id", "total_bytes", "whole", "names")
    IMAGE_ID_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    WHOLE_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    image_id: bytes
    total_bytes: int
    whole: bool
    names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, image_id: _Optional[bytes] = ..., total_bytes: _Optional[int] = ..., whole: _Optional[bool] = ..., names: _Optional[_Iterable[str]] = ...) -> None: ...

class ReportResponse(_message.Message):
    __slots__ = ("leases",)
    LEASES_FIELD_NUMBER: _ClassVar[int]
    leases: _containers.RepeatedCompositeFieldContainer[LeaseTime]
    def __init__(self, leases: _Optional[_Iterable[_Union[LeaseTime, _Mapping]]] = ...) -> None: ...

class LeaseTime(_message.Message):
    __slots__ = ("lease_id", "remaining_s")
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    REMAINING_S_FIELD_NUMBER: _ClassVar[int]
    lease_id: str
    remaining_s: float
    def __init__(self, lease_id: _Optional[str] = ..., remaining_s: _Optional[float] = ...) -> None: ...

class RenewCertificateRequest(_message.Message):
    __slots__ = ("csr",)
    CSR_FIELD_NUMBER: _ClassVar[int]
    csr: bytes
    def __init__(self, csr: _Optional[bytes] = ...) -> None: ...

class RenewCertificateResponse(_message.Message):
    __slots__ = ("certificate",)
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    certificate: bytes
    def __init__(self, certificate: _Optional[bytes] = ...) -> None: ...

class LeaveRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class LeaveResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StartRunnerRequest(_message.Message):
    __slots__ = ("lease_id", "model", "image_id", "ttl_s", "borrower", "devices", "grace_s", "most_bytes")
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    IMAGE_ID_FIELD_NUMBER: _ClassVar[int]
    TTL_S_FIELD_NUMBER: _ClassVar[int]
    BORROWER_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    GRACE_S_FIELD_NUMBER: _ClassVar[int]
    MOST_BYTES_FIELD_NUMBER: _ClassVar[int]
    lease_id: str
    model: str
    image_id: bytes
    ttl_s: float
    borrower: str
    devices: _containers.RepeatedScalarFieldContainer[str]
    grace_s: float
    most_bytes: int
    def __init__(self, lease_id: _Optional[str] = ..., model: _Optional[str] = ..., image_id: _Optional[bytes] = ..., ttl_s: _Optional[float] = ..., borrower: _Optional[str] = ..., devices: _Optional[_Iterable[str]] = ..., grace_s: _Optional[float] = ..., most_bytes: _Optional[int] = ...) -> None: ...

class StopRunnerRequest(_message.Message):
    __slots__ = ("lease_id", "reason")
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    lease_id: str
    reason: str
    def __init__(self, lease_id: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class StopRunnerResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class NoticeRunnerRequest(_message.Message):
    __slots__ = ("lease_id", "left_s", "reason")
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    LEFT_S_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    lease_id: str
    left_s: float
    reason: str
    def __init__(self, lease_id: _Optional[str] = ..., left_s: _Optional[float] = ..., reason: _Optional[str] = ...) -> None: ...

class NoticeRunnerResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WithdrawNoticeRequest(_message.Message):
    __slots__ = ("lease_id",)
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    lease_id: str
    def __init__(self, lease_id: _Optional[str] = ...) -> None: ...

class WithdrawNoticeResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DescribeRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DescribeResponse(_message.Message):
    __slots__ = ("name", "version")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class FindImageRequest(_message.Message):
    __slots__ = ("name", "image_id")
    NAME_FIELD_NUMBER: _ClassVar[int]
    IMAGE_ID_FIELD_NUMBER: _ClassVar[int]
    name: str
    image_id: bytes
    def __init__(self, name: _Optional[str] = ..., image_id: _Optional[bytes] = ...) -> None: ...

class FindImageResponse(_message.Message):
    __slots__ = ("found", "image_id", "total_bytes", "node")
    FOUND_FIELD_NUMBER: _ClassVar[int]
    IMAGE_ID_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    found: bool
    image_id: bytes
    total_bytes: int
    node: str
    def __init__(self, found: _Optional[bool] = ..., image_id: _Optional[bytes] = ..., total_bytes: _Optional[int] = ..., node: _Optional[str] = ...) -> None: ...

class GetManifestRequest(_message.Message):
    __slots__ = ("image_id",)
    IMAGE_ID_FIELD_NUMBER: _ClassVar[int]
    image_id: bytes
    def __init__(self, image_id: _Optional[bytes] = ...) -> None: ...

class ManifestChunk(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...

class OpenSourceRequest(_message.Message):
    __slots__ = ("image_id", "lane", "address")
    IMAGE_ID_FIELD_NUMBER: _ClassVar[int]
    LANE_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    image_id: bytes
    lane: str
    address: bytes
    def __init__(self, image_id: _Optional[bytes] = ..., lane: _Optional[str] = ..., address: _Optional[bytes] = ...) -> None: ...

class OpenSourceResponse(_message.Message):
    __slots__ = ("session", "lane", "address")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    LANE_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    session: int
    lane: str
    address: bytes
    def __init__(self, session: _Optional[int] = ..., lane: _Optional[str] = ..., address: _Optional[bytes] = ...) -> None: ...
