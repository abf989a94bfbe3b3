"""Helios' log is read as a trace: virtual clusters become institutions, waits say who was a guest."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from agent.errors import TraceError
from agent.replay.helios import open_helios, read_helios
from agent.replay.trace import Job

HEADER = "job_id,user,vc,gpu_num,cpu_num,node_num,state,submit_time,start_time,end_time,duration,queue"
# Made by hand in the form of the data; the data itself is not here.
SAMPLE = f"""{HEADER}
3,uXBbc,vcJkd,2,8,1,COMPLETED,2020-06-09 18:41:05,2020-06-09 18:41:05,2020-06-09 18:42:45,100,0
1,uVMrF,vchbv,4,16,1,FAILED,2020-06-09 18:41:01,2020-06-09 19:41:01,2020-06-09 19:41:11,10,3600
2,uqzls,vcJKD,1,4,1,CANCELLED,2020-06-09 18:41:02,2020-06-09 18:41:02,2020-06-09 18:41:32,30,0
4,uXBbc,vcJkd,0,8,1,COMPLETED,2020-06-09 18:41:05,2020-06-09 18:41:05,2020-06-09 18:42:45,100,0
5,uXBbc,vcJkd,1,8,1,CANCELLED,2020-06-09 18:41:05,2020-06-09 18:41:05,2020-06-09 18:41:05,0,0
6,uxbbc,vcJkd,8,8,1,COMPLETED,2020-06-10 00:00:01,2020-06-10 00:00:01,2020-06-10 00:00:02,1,0
"""


def test_a_log_becomes_jobs_in_order() -> None:
    """Jobs stand by submission, from midnight; names that differ in case alone stay two."""
    log = read_helios(SAMPLE.splitlines(), "log.csv")
    base = 18 * 3600 + 41 * 60
    assert log.jobs == (
        Job(base + 1, "/vchbv/uvmrf", 4, 10.0, "research", False, "vchbv"),
        Job(base + 2, "/vcjkd-2/uqzls", 1, 30.0, "research", True, "vcjkd-2"),
        Job(base + 5, "/vcjkd/uxbbc", 2, 100.0, "research", True, "vcjkd"),
        Job(24 * 3600 + 1, "/vcjkd/uxbbc-2", 8, 1.0, "research", True, "vcjkd"),
    )
    assert (log.without_gpu, log.never_ran) == (1, 1)
    assert log.peak_devices == {"vchbv": 4, "vcjkd": 8, "vcjkd-2": 1}


def test_a_map_says_whose_the_clusters_are() -> None:
    """With a map, virtual clusters share institutions, and one that it does not name is an error."""
    accounts = {"vcJkd": "/north/nlp", "vcJKD": "/north/vision", "vchbv": "/south"}
    log = read_helios(SAMPLE.splitlines(), "log.csv", accounts=accounts, guest_after_s=3600)
    assert [(one.account, one.site, one.local) for one in log.jobs] == [
        ("/south", "south", True),
        ("/north/vision", "north", True),
        ("/north/nlp", "north", True),
        ("/north/nlp", "north", True),
    ]
    with pytest.raises(TraceError, match=r"log\.csv:3: .*'vchbv'"):
        read_helios(SAMPLE.splitlines(), "log.csv", accounts={"vcJkd": "/north"})


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("1,u,vc,x,1,1,COMPLETED,2020-06-09 18:41:05,,,1,0", "gpu_num is 'x'"),
        ("1,u,vc,1,1,1,COMPLETED,yesterday,,,1,0", "submit_time is 'yesterday'"),
        ("1,u,vc,1,1,1,COMPLETED,2020-06-09 18:41,,,1,0", "submit_time"),
        ("1,u,vc,1,1,1,COMPLETED,2020-06-09 18:41:05,,,-1,0", "duration is '-1'"),
        ("1,u,v c,1,1,1,COMPLETED,2020-06-09 18:41:05,,,1,0", "is no name"),
        ("1,u,vc,1,1", "5 values, the header 12"),
    ],
)
def test_a_bad_row_names_its_line(line: str, what: str) -> None:
    """Whatever cannot be read is an error with its line, not a job left out in silence."""
    with pytest.raises(TraceError, match=r"log\.csv:2: ") as caught:
        read_helios([HEADER, line], "log.csv")
    assert what in caught.value.message


def test_another_file_is_no_log() -> None:
    """A header without the columns is refused at once."""
    with pytest.raises(TraceError, match=r"log\.csv:1: the columns user, vc"):
        read_helios(["a,b,c"], "log.csv")


def test_the_sum_of_a_file_is_checked_first(tmp_path: Path) -> None:
    """A file that is not the one that was meant is not read; the right one is."""
    path = tmp_path / "cluster_log.csv"
    path.write_text(SAMPLE)
    right = hashlib.sha256(SAMPLE.encode()).hexdigest()
    assert len(open_helios(path, sha256=right.upper()).jobs) == 4
    with pytest.raises(TraceError, match="has the SHA-256"):
        open_helios(path, sha256="0" * 64)
