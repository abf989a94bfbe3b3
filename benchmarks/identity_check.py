"""``identity_check_us``: what it costs to tell which node calls, once for each call, with 200 sites known.

The certificates are fresh ones: none has been seen before, and nothing about them is kept. The reference is
the limit that one check must keep; beside it stands what the check of the signature takes alone, in the same
run, since a busy machine slows both.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence

from cryptography import x509

from benchmarks.report import Figure, spread
from federation.identity.authority import SiteAuthority, make_csr
from federation.identity.binding import Binding
from federation.identity.keys import new_key
from federation.identity.names import NodeIdentity

LIMIT_US = 150.0


def main(arguments: Sequence[str]) -> None:
    """Run the benchmark and print its figure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks identity_check")
    parser.add_argument("--sites", type=int, default=200)
    parser.add_argument("--leaves", type=int, default=500, help="certificates checked in one run")
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args(arguments)
    now_s = time.time()
    sites = [SiteAuthority.create(f"site-{at}.example", now_s=now_s) for at in range(options.sites)]
    binding = Binding({site.trust_domain: [site.certificate_pem] for site in sites})
    runs, signatures = [], []
    for run in range(options.runs + 1):
        leaves = [_leaf(sites[at % len(sites)], f"node-{run}-{at}", now_s) for at in range(options.leaves)]
        started_s = time.perf_counter()
        for leaf in leaves:
            binding.identify(leaf, now_s=now_s)
        runs.append((time.perf_counter() - started_s) / len(leaves) * 1e6)
        parsed = [x509.load_pem_x509_certificate(leaf) for leaf in leaves]
        started_s = time.perf_counter()
        for at, certificate in enumerate(parsed):
            certificate.verify_directly_issued_by(sites[at % len(sites)].certificate)
        signatures.append((time.perf_counter() - started_s) / len(leaves) * 1e6)
    runs, signatures = runs[1:], signatures[1:]  # the first run warms the processor's caches
    value = statistics.median(runs)
    Figure(
        "identity_check_us",
        value,
        "us",
        LIMIT_US,
        "the limit of one check",
        value / LIMIT_US,
        {"sites": options.sites, "check": spread(runs), "signature_alone": spread(signatures)},
    ).emit()


def _leaf(site: SiteAuthority, node: str, now_s: float) -> bytes:
    identity = NodeIdentity(site.trust_domain, node)
    return site.issue(make_csr(new_key(), identity), identity, now_s=now_s)
