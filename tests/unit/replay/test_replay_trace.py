"""A trace is read strictly and says where it is wrong; what is written is read again."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import TraceError
from agent.limits import MAX_TRACE_DEVICES, MAX_TRACE_LINE_CHARS
from agent.replay.trace import Job, open_trace, read_trace, write_trace

HEADER = "submit,account,devices,duration,purpose,kind,site\n"
LINE = "5,/north/nlp,2,600,research,guest,north\n"

names = st.from_regex(r"[a-z0-9](?:[a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
millis = st.integers(0, 10**9).map(lambda value: value / 1000)
jobs = st.builds(
    Job,
    millis,
    st.lists(names, min_size=1, max_size=3).map(lambda parts: "/" + "/".join(parts)),
    st.integers(1, MAX_TRACE_DEVICES),
    st.integers(1, 10**9).map(lambda value: value / 1000),
    names,
    st.booleans(),
    names,
    st.just("") | names,
    st.just("") | names,
)


def read(text: str) -> list[Job]:
    return list(read_trace(io.StringIO(text), "t.csv"))


def test_a_line_becomes_a_job() -> None:
    """Each column arrives in its field; comments and empty lines do not count."""
    text = "# made by hand\n\n" + HEADER + LINE + "# more\n9.25,/south,1,0.5,teaching,local,south\n"
    assert read(text) == [
        Job(5.0, "/north/nlp", 2, 600.0, "research", False, "north"),
        Job(9.25, "/south", 1, 0.5, "teaching", True, "south"),
    ]


def test_columns_may_stand_in_any_order_and_the_optional_ones_be_there() -> None:
    """The header says which column is which."""
    text = "class,user,site,kind,purpose,duration,devices,account,submit\nstudent,u1,n,local,p,1,1,/a,0\n"
    assert read(text) == [Job(0.0, "/a", 1, 1.0, "p", True, "n", "u1", "student")]


@given(st.lists(jobs, max_size=20))
def test_what_is_written_is_read_again(some: list[Job]) -> None:
    """Writing and reading give the same jobs."""
    some = sorted(some, key=lambda one: one.submit_s)
    file = io.StringIO()
    assert write_trace(some, file) == len(some)
    assert read(file.getvalue()) == some


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("", "1:1", "no line that names its columns"),
        ("submit,account\n", "1:1", "devices, duration, purpose, kind, site are missing"),
        ("submit,acount,devices\n", "1:8", "'acount' is no column"),
        ("submit,submit\n", "1:8", "stands here twice"),
        (HEADER + "5,/n,2,600,p,guest\n", "2:1", "6 values, the header 7"),
        (HEADER + "-5,/n,2,600,p,guest,n\n", "2:1", "'-5' is no number of seconds"),
        (HEADER + "nan,/n,2,600,p,guest,n\n", "2:1", "'nan' is no number of seconds"),
        (HEADER + "1e3,/n,2,600,p,guest,n\n", "2:1", "'1e3' is no number of seconds"),
        (HEADER + "5,n,2,600,p,guest,n\n", "2:3", "an account is a path"),
        (HEADER + "5,/n,0,600,p,guest,n\n", "2:6", "'0' is no number of devices"),
        (HEADER + f"5,/n,{MAX_TRACE_DEVICES + 1},600,p,guest,n\n", "2:6", "no number of devices"),
        (HEADER + "5,/n,2,0,p,guest,n\n", "2:8", "'0' is no number of seconds"),
        (HEADER + "5,/n,2,999999999999,p,guest,n\n", "2:8", "no number of seconds"),
        (HEADER + "5,/n,2,600,,guest,n\n", "2:12", "'' is no name"),
        (HEADER + '5,/n,2,600,"p",guest,n\n', "2:12", "is no name"),
        (HEADER + "5,/n,2,600,p,Guest,n\n", "2:14", "'Guest' is neither local nor guest"),
        (HEADER + "5,/n,2,600,p,guest,a b\n", "2:20", "'a b' is no name"),
        (HEADER + "5,/n,2,600,p,guest,/n\n", "2:20", "'/n' is no name"),
        (HEADER + LINE + "\n4,/n,2,600,p,guest,n\n", "4:1", "4 is before the line above, 5"),
        (HEADER + "5" * (MAX_TRACE_LINE_CHARS + 1) + "\n", "2:1", "characters"),
    ],
)
def test_an_error_names_its_place(text: str, where: str, what: str) -> None:
    """File, line and column come first, and what is wrong there."""
    with pytest.raises(TraceError) as caught:
        read(text)
    assert caught.value.message.startswith(f"t.csv:{where}: ")
    assert what in caught.value.message


def test_jobs_come_before_a_later_line_is_looked_at() -> None:
    """A trace is read as it is replayed: a bad line counts when it is reached."""
    found = read_trace(io.StringIO(HEADER + LINE + "nonsense\n"), "t.csv")
    assert next(found).account == "/north/nlp"
    with pytest.raises(TraceError, match=r"t\.csv:3:1"):
        next(found)


def test_a_file_of_one_endless_line_is_refused(tmp_path: Path) -> None:
    """No more of a line is read than it takes to refuse it."""
    path = tmp_path / "long.csv"
    path.write_text(HEADER + "7" * 1_000_000)
    with pytest.raises(TraceError, match=r"long\.csv:2:1: the line has more than"):
        list(open_trace(path))


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """Bytes that are no UTF-8 give a sentence, not a traceback."""
    path = tmp_path / "bytes.csv"
    path.write_bytes(b"submit\xff\xfe\n")
    with pytest.raises(TraceError, match="cannot be read"):
        list(open_trace(path))
