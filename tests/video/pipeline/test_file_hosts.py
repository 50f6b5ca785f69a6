"""A file host that answers nothing holds one thread at a time."""

from __future__ import annotations

import threading

import pytest

from media_pipeline import errors
from video.pipeline import file_hosts as module
from video.pipeline.file_hosts import FileHosts

URL = "https://cdn.example.com/v.mp4"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module, "time", made)
    return made


def fail(hosts: FileHosts, clock: Clock, seconds: float, *, error: Exception, anyway: bool = False) -> None:
    def fetch() -> None:
        with hosts.fetching(URL, anyway=anyway):
            clock.now += seconds
            raise error

    with pytest.raises(type(error)):
        fetch()


def silent_host(clock: Clock) -> FileHosts:
    hosts = FileHosts()
    for _ in range(module.FEWEST):
        fail(hosts, clock, 30, error=SILENT)
    return hosts


SILENT = errors.DownloadFailed("did not answer in time")


def refused(hosts: FileHosts, url: str = URL) -> float | None:
    """The time to wait, if a fetch is not let through."""
    try:
        with hosts.fetching(url):
            return None
    except errors.DownloadFailed as err:
        return err.retry_after_s


def test_a_silent_host_is_left_alone_and_then_asked_by_one(clock: Clock) -> None:
    hosts = silent_host(clock)
    assert refused(hosts) == module.LEFT_ALONE_S
    assert refused(hosts, "https://other.example.com/v.mp4") is None
    clock.now += module.LEFT_ALONE_S
    with hosts.fetching(URL):
        assert refused(hosts) == module.ASKED_S  # one is asking
    assert refused(hosts) is None  # it answered


@pytest.mark.parametrize("error", [errors.DownloadTimeout("x"), SILENT])
def test_it_is_silent_again_if_the_one_finds_that(clock: Clock, error: Exception) -> None:
    hosts = silent_host(clock)
    clock.now += 60
    fail(hosts, clock, 30, error=error)
    assert refused(hosts) == module.LEFT_ALONE_S


@pytest.mark.parametrize(
    ("seconds", "error"),
    [
        (0.1, SILENT),
        (60, errors.LinkExpired("403")),
        (60, errors.NotMedia("a page")),
        (60, errors.DiskFull("full")),
        (60, errors.Cancelled("stopped")),
        (60, ZeroDivisionError()),
    ],
)
def test_a_host_that_answers_is_not_silent(clock: Clock, seconds: float, error: Exception) -> None:
    hosts = FileHosts()
    for _ in range(module.FEWEST):
        fail(hosts, clock, seconds, error=error)
    assert refused(hosts) is None


def test_a_host_that_sends_bytes_until_it_is_cut_is_not_silent(clock: Clock) -> None:
    hosts = FileHosts()

    def fetch() -> None:
        with hosts.fetching(URL) as silence:
            for _ in range(100):
                clock.now += 1
                silence.end()
            raise SILENT

    for _ in range(module.FEWEST):
        with pytest.raises(errors.DownloadFailed):
            fetch()
    assert refused(hosts) is None


def test_one_file_that_never_comes_keeps_no_others_waiting(clock: Clock) -> None:
    hosts = FileHosts()
    for _ in range(3 * module.FEWEST):
        fail(hosts, clock, 30, error=SILENT)
        assert refused(hosts) is None  # another one, which comes


def test_the_last_fetch_of_a_task_is_made_all_the_same(clock: Clock) -> None:
    hosts = silent_host(clock)
    with hosts.fetching(URL, anyway=True):
        pass
    assert refused(hosts) is None


def test_many_at_once_let_one_through(clock: Clock) -> None:
    hosts = silent_host(clock)
    clock.now += 60
    barrier, through, over = threading.Barrier(8), [], threading.Event()

    def work() -> None:
        barrier.wait()
        try:
            with hosts.fetching(URL):
                through.append(1)
                over.wait(30)
        except errors.DownloadFailed:
            through.append(0)
            if through.count(0) == 7:
                over.set()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(through) == [0] * 7 + [1]


@pytest.mark.parametrize("url", ["", "http://[", "no address"])
def test_an_address_that_is_none_has_no_host(url: str) -> None:
    with FileHosts().fetching(url):
        pass
