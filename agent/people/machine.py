"""What this machine says of a user id: its name and groups. May ask a directory service and take long."""

from __future__ import annotations

import grp
import os
import pwd

from agent.limits import MAX_USER_GROUPS
from agent.people.model import Who


def describe_user(uid: int, gid: int, owner_uid: int) -> Who:
    """Return a user of this machine with all groups that it is listed in.

    Args:
        uid: the user, as the kernel has it.
        gid: the group of its process, as the kernel has it.
        owner_uid: the user that the agent runs as.
    """
    try:
        name = pwd.getpwuid(uid).pw_name
        gids = os.getgrouplist(name, gid)
    except (KeyError, OSError):  # a user without a line, or a directory service that is down
        name, gids = "", [gid]
    known = tuple(dict.fromkeys(gids))[:MAX_USER_GROUPS]
    groups = tuple(group for one in known if (group := _group(one)))
    return Who(uid, name, known, groups, owner=uid in (0, owner_uid))


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except (KeyError, OSError):
        return ""
