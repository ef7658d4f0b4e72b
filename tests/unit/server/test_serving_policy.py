"""Who is served now: quiet hours, time zones, limits and waits, by a clock of the test's own."""

import dataclasses
import itertools
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from graft_server.serving.planner import (
    Arrival,
    ServingState,
    due_domains,
    read_serving,
    write_serving,
)
from graft_server.serving.policy import ServingPolicy, read_policy
from hypothesis import given, settings
from hypothesis import strategies as st

from graft.errors import ConfigError

NAMES = ("ann", "bob", "cid", "dan", "eve", "fay")
NOON_S = datetime(2026, 6, 1, 12, tzinfo=UTC).timestamp()


def at(text: str, zone: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


@pytest.mark.parametrize(
    ("zone", "quiet", "times"),
    [
        ("Europe/Berlin", "22:00-06:00", {"2026-06-01T21:59": False, "2026-06-01T22:00": True,
                                          "2026-06-02T00:00": True, "2026-06-02T05:59": True,
                                          "2026-06-02T06:00": False}),
        ("Asia/Kathmandu", "12:00-13:30", {"2026-01-01T11:59": False, "2026-01-01T12:00": True,
                                           "2026-01-01T13:29": True, "2026-01-01T13:30": False}),
        ("UTC", "00:00-24:00", {"2026-01-01T00:00": True, "2026-01-01T23:59": True}),
        # Clocks go from 2:00 to 3:00, and in autumn have the hour from 2:00 twice.
        ("Europe/Berlin", "02:00-03:00", {"2026-03-29T01:59": False, "2026-03-29T03:00": False,
                                          "2026-10-25T02:30": True, "2026-10-25T03:00": False}),
    ],
)  # fmt: skip
def test_quiet_hours_are_the_wall_clocks_of_their_zone(
    zone: str, quiet: str, times: dict[str, bool]
) -> None:
    policy = ServingPolicy(quiet=(quiet,), zone=zone)
    assert {text: policy.is_quiet(at(text, zone)) for text in times} == times


def test_the_second_two_o_clock_of_an_autumn_night_is_quiet_too() -> None:
    policy = ServingPolicy(quiet=("02:00-03:00",), zone="Europe/Berlin")
    first_s = at("2026-10-25T02:00", "Europe/Berlin")
    quiet = [policy.is_quiet(first_s + minute * 60) for minute in range(180)]
    assert quiet == [True] * 120 + [False] * 60


@given(begin=st.integers(0, 1439), length=st.integers(1, 1439), minute=st.integers(0, 3 * 1440))
def test_quiet_hours_are_those_minutes_of_every_day(begin: int, length: int, minute: int) -> None:
    end = (begin + length) % 1440
    span = f"{begin // 60:02}:{begin % 60:02}-{end // 60:02}:{end % 60:02}"
    moment = datetime(2026, 2, 27, tzinfo=UTC) + timedelta(minutes=minute)
    wanted = (minute - begin) % 1440 < length
    assert ServingPolicy(quiet=(span,), zone="UTC").is_quiet(moment.timestamp()) == wanted


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('quiet = ["22-6"]', "serve.quiet"), ('quiet = ["24:30-06:00"]', "serve.quiet"),
        ('quiet = ["06:00-06:00"]', "serve.quiet"), ('zone = "Mars/Olympus"', "serve.zone"),
        ("at_once = 0", "serve.at_once"), ("every_s = -1", "serve.every_s"),
        ("at_most = 3", "serve.at_most"), ("at_once =", "TOML"),
    ],
)  # fmt: skip
def test_a_policy_that_cannot_be_is_refused_by_its_key(
    tmp_path: Path, text: str, message: str
) -> None:
    assert read_policy(tmp_path) == ServingPolicy()
    (tmp_path / "serve.toml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_policy(tmp_path)


class Site:
    """Devices that come and go, some of which fail, under one planner."""

    def __init__(self, policy: ServingPolicy) -> None:
        self.policy, self.state, self.now_s = policy, ServingState(), NOON_S
        self.starts: list[tuple[float, str]] = []

    def look(self, online: tuple[str, ...]) -> tuple[str, ...]:
        due = due_domains(NAMES, self.state, self.policy, self.now_s, online)
        for domain_id in due:
            self.state = self.state.begin(domain_id, 1, self.now_s)
            self.starts.append((self.now_s, domain_id))
        return due

    def end(self, domain_id: str, *, failed: bool) -> None:
        self.state = self.state.end(domain_id, self.now_s, failed=failed)


def test_as_many_at_once_as_there_is_room_for_in_the_order_of_coming() -> None:
    site = Site(ServingPolicy(at_once=2))
    assert site.look(NAMES) == ("ann", "bob")
    assert site.look(NAMES) == ()
    site.end("ann", failed=False)
    assert site.look(("cid", "dan")) == ("cid",)


def test_who_failed_waits_longer_each_time_and_after_the_others() -> None:
    site = Site(ServingPolicy(at_once=1, retry_s=10, retry_most_s=25))
    waits = []
    for _ in range(4):
        while not site.look(("ann",)):
            site.now_s += 1
        site.end("ann", failed=True)
        waits.append(site.now_s)
    assert [b - a for a, b in itertools.pairwise(waits)] == [10, 20, 25]
    site.now_s += 25
    assert site.look(("ann", "bob")) == ("bob",)


def test_a_clock_that_was_set_back_keeps_nobody_waiting() -> None:
    site = Site(ServingPolicy(at_once=1, every_s=60, retry_s=60))
    site.look(("ann",))
    site.end("ann", failed=True)
    site.now_s -= 7200
    assert site.look(("ann",)) == ("ann",)


@settings(max_examples=60)
@given(
    at_once=st.integers(1, 4),
    every_s=st.sampled_from([0.0, 5.0, 90.0]),
    quiet=st.booleans(),
    steps=st.lists(
        st.tuples(
            st.integers(0, 40), st.frozensets(st.sampled_from(NAMES)),
            st.sampled_from(NAMES), st.booleans(),
        ), max_size=40,
    ),
)  # fmt: skip
def test_no_sequence_of_arrivals_breaks_the_policy(
    at_once: int, every_s: float, quiet: bool, steps: list[tuple[int, frozenset[str], str, bool]]
) -> None:
    spans = ("12:02-12:05",) if quiet else ()
    policy = ServingPolicy(at_once=at_once, every_s=every_s, quiet=spans, zone="UTC", retry_s=30)
    site = Site(policy)
    failed_s: dict[str, float] = {}
    for wait_s, online, ending, failed in steps:
        site.now_s += wait_s
        before = {each.domain_id for each in site.state.open}
        due = site.look(tuple(sorted(online)))
        assert len(site.state.open) <= at_once
        assert not before & set(due)
        assert set(due) <= online
        assert not (due and policy.is_quiet(site.now_s))
        assert all(site.now_s - failed_s.get(name, -1e9) >= 30 for name in due)
        if ending in {each.domain_id for each in site.state.open}:
            site.end(ending, failed=failed)
            if failed:
                failed_s[ending] = site.now_s
            else:
                failed_s.pop(ending, None)
    gaps = [b - a for (a, _), (b, _) in zip(site.starts, site.starts[1:], strict=False)]
    assert all(gap >= every_s for gap in gaps)


def test_the_state_outlives_a_restart_and_a_torn_file_is_an_empty_one(tmp_path: Path) -> None:
    state = ServingState().begin("ann", 3, NOON_S).begin("bob", 4, NOON_S + 1)
    state = state.end("bob", NOON_S + 2, failed=True)
    write_serving(tmp_path, state)
    assert read_serving(tmp_path) == state
    assert state.open == (Arrival(domain_id="ann", base=3, began_s=NOON_S),)
    (tmp_path / "state" / "serving.json").write_text('{"open": [')
    assert read_serving(tmp_path) == ServingState()


def test_the_page_has_every_key() -> None:
    page = Path(__file__).resolve().parents[3] / "docs" / "deployment.md"
    keys = {field.name for field in dataclasses.fields(ServingPolicy)}
    assert {key for key in keys if f"`{key}`" in page.read_text("utf-8")} == keys
