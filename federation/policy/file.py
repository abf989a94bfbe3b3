"""Reads a consortium's policy file: bytes in; a checked policy with its tests out, or all problems.

Rules: a pure function of the bytes; no clock, no other file. Each stage tells all that it finds, and starts
only when the one before found nothing: YAML, shape, meaning, the guarantee behind reserves, tests that
name what there is. Whether its tests *pass* is another question (``federation.policy.cases``).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TypeVar

from pydantic import ValidationError

from federation.policy.build import build
from federation.policy.cases import Case, cases_of
from federation.policy.complaints import complaints
from federation.policy.findings import Findings
from federation.policy.form import Form, PolicyForm
from federation.policy.guarantee import check_guarantee
from federation.policy.policy import Policy
from federation.policy.problems import PolicyProblemsError
from federation.policy.tree import Tree, read_tree

F = TypeVar("F", bound=Form)


@dataclass(frozen=True, slots=True)
class PolicyFile:
    """A policy as its file says it.

    Args:
        policy: what decisions read.
        cases: the file's own tests.
    """

    policy: Policy
    cases: tuple[Case, ...]


def read_policy(data: bytes, file: str) -> PolicyFile:
    """Return the policy of a file.

    Args:
        data: the file's bytes.
        file: its name for people.

    Raises:
        PolicyProblemsError: with every problem that was found.
    """
    tree = read_tree(data, file)
    expect_kind(tree, "consortium")
    form = read_form(tree, PolicyForm)
    findings = Findings(tree)
    policy = build(form, findings, hashlib.sha256(data).hexdigest())
    if not findings.problems:
        check_guarantee(policy, findings)
    if not findings.problems:
        cases = cases_of(form.tests, policy, findings)
    if findings.problems:
        raise PolicyProblemsError(findings.problems)
    return PolicyFile(policy, cases)


def read_form(tree: Tree, form: type[F]) -> F:
    """Return a file's form.

    Raises:
        PolicyProblemsError: with every problem of its shape.
    """
    try:
        return form.model_validate(tree.root)
    except ValidationError as error:
        raise PolicyProblemsError(complaints(error, form, tree)) from error


def kind_of(tree: Tree) -> str:
    """Return what a file says it is: ``consortium`` or ``overlay``, or what stands there instead."""
    root = tree.root
    return str(root.get("kind", "consortium")) if isinstance(root, dict) else "consortium"


def expect_kind(tree: Tree, kind: str) -> None:
    """Refuse a file of the other kind.

    Raises:
        PolicyProblemsError: it is one.
    """
    if kind_of(tree) != kind and kind_of(tree) in {"consortium", "overlay"}:
        findings = Findings(tree)
        findings.value(("kind",), f"this is no {kind}'s file", f"kind: {kind}")
        raise PolicyProblemsError(findings.problems)
