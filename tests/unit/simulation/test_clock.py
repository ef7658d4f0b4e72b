"""The simulated clock against times worked out by hand, and laws that hold for any traffic."""

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
import simpy
from graft_simulation.clock.shared_link import SharedPipe, fair_paces
from graft_simulation.clock.tracks import (
    Availability,
    Compute,
    Server,
    Step,
    Timeline,
    Track,
    Transfer,
    run_tracks,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from graft.core.seeding import stream
from graft.devices import LinkClass, link_classes

# 8 Mbit/s down, 2 up: a megabyte comes down in one second and goes up in four.
LINK = LinkClass(
    name="test", up_bits_per_s=2e6, down_bits_per_s=8e6, latency_s=0.0, loss=0.0, source="test"
)
WIDE = Server(up_bits_per_s=1e12, down_bits_per_s=1e12, waits_s={})
MEGABYTE = 1_000_000


def down(num_bytes: int = MEGABYTE) -> Transfer:
    return Transfer(up=False, num_bytes=num_bytes)


def up(num_bytes: int = MEGABYTE) -> Transfer:
    return Transfer(up=True, num_bytes=num_bytes)


def track(name: str, *stages: Sequence[Step], link: LinkClass = LINK) -> Track:
    return Track(device_id=name, link=link, stages=stages)


class Intervals(Availability):
    """On from each even time to the next odd one of a list, and on for good behind it."""

    def __init__(self, *switches_s: float) -> None:
        self._switches_s = [*switches_s, float("inf")]


def absent(name: str, *switches_s: float, steps: Sequence[Step], link: LinkClass = LINK) -> Track:
    return replace(track(name, steps, link=link), availability=Intervals(*switches_s))


def test_one_transfer_takes_its_bytes_over_its_rate() -> None:
    timeline = run_tracks([track("a", [down()])], WIDE)
    assert timeline.durations_s["a"] == ((pytest.approx(1.0),),)
    assert timeline.finish_s["a"] == timeline.makespan_s == pytest.approx(1.0)


def test_up_and_down_have_their_own_rates() -> None:
    timeline = run_tracks([track("a", [down(), up()])], WIDE)
    assert timeline.durations_s["a"] == (pytest.approx((1.0, 4.0)),)


def test_latency_is_paid_once_a_message_and_loss_is_sent_again() -> None:
    link = replace(LINK, latency_s=0.25, loss=0.2)
    timeline = run_tracks([track("a", [down(), down(0)], link=link)], WIDE)
    # 0.25 + 1 / 0.8, then latency alone.
    assert timeline.durations_s["a"] == (pytest.approx((1.5, 0.25)),)


def test_two_equal_transfers_share_the_servers_connection() -> None:
    server = replace(WIDE, up_bits_per_s=8e6)
    timeline = run_tracks([track(name, [down()]) for name in "ab"], server)
    assert timeline.finish_s == pytest.approx({"a": 2.0, "b": 2.0})


@pytest.mark.parametrize("devices", [1, 2, 3, 10, 100])
def test_as_many_devices_as_fit_do_not_feel_the_server(devices: int) -> None:
    server = replace(WIDE, up_bits_per_s=3 * 8e6)
    names = [f"d{number:03d}" for number in range(devices)]
    timeline = run_tracks([track(name, [down()]) for name in names], server)
    assert timeline.makespan_s == pytest.approx(max(1.0, devices / 3))


def test_traffic_up_does_not_slow_traffic_down() -> None:
    server = Server(up_bits_per_s=8e6, down_bits_per_s=2e6, waits_s={})
    timeline = run_tracks([track("a", [down()]), track("b", [up()])], server)
    assert timeline.finish_s == pytest.approx({"a": 1.0, "b": 4.0})


def test_what_a_narrow_link_leaves_a_wide_one_gets() -> None:
    narrow = replace(LINK, down_bits_per_s=2e6)
    server = replace(WIDE, up_bits_per_s=8e6)
    tracks = [track("a", [down()], link=narrow), track("b", [down()])]
    # a: 8 Mbit at 2. b: 8 Mbit at the other 6.
    assert run_tracks(tracks, server).finish_s == pytest.approx({"a": 4.0, "b": 8 / 6})


def test_a_share_grows_when_another_transfer_ends() -> None:
    server = replace(WIDE, up_bits_per_s=8e6)
    tracks = [track("a", [down(MEGABYTE // 2)]), track("b", [down()])]
    # At 4 Mbit/s each a's 4 Mbit take 1 s; b's other 4 Mbit then take 0.5 s at 8.
    assert run_tracks(tracks, server).finish_s == pytest.approx({"a": 1.0, "b": 1.5})


def test_a_share_shrinks_when_another_transfer_begins() -> None:
    server = replace(WIDE, up_bits_per_s=8e6)
    tracks = [track("a", [down()]), track("b", [Compute(seconds=0.5), down()])]
    # a has half of its bits when b begins, and ends at 1.5; b then has 4 Mbit left.
    assert run_tracks(tracks, server).finish_s == pytest.approx({"a": 1.5, "b": 2.0})


def test_no_stage_begins_before_all_have_ended_the_last() -> None:
    tracks = [
        track("a", [Compute(seconds=1.0)], [Compute(seconds=1.0)]),
        track("b", [Compute(seconds=5.0)], []),
        track("c"),
    ]
    timeline = run_tracks(tracks, WIDE)
    assert timeline.stage_ends_s == (5.0, 6.0)
    assert timeline.finish_s == {"a": 6.0, "b": 5.0, "c": 0.0}


def test_the_server_waits_for_what_is_lost() -> None:
    tracks = [track("a", [Compute(seconds=1.0)], [Compute(seconds=1.0)])]
    timeline = run_tracks(tracks, replace(WIDE, waits_s={0: 60.0}))
    assert timeline.stage_ends_s == (61.0, 62.0)


def test_nothing_to_do_takes_no_time() -> None:
    assert run_tracks([], WIDE) == Timeline(durations_s={}, finish_s={}, stage_ends_s=())


def test_a_device_that_is_away_begins_when_it_is_back() -> None:
    timeline = run_tracks([absent("a", 3.0, steps=[down()])], WIDE)
    assert timeline.durations_s["a"] == (pytest.approx((4.0,)),)


@pytest.mark.parametrize("step", [down(), Compute(seconds=1.0)])
def test_what_is_broken_off_goes_on_where_it_stopped(step: Step) -> None:
    # On from 0 to 0.25 and from 2 to 2.5: 0.75 s of the second are done, the rest follows at 7.
    timeline = run_tracks([absent("a", 0.0, 0.25, 2.0, 2.5, 7.0, steps=[step])], WIDE)
    assert timeline.finish_s["a"] == pytest.approx(7.25)


def test_a_device_that_goes_leaves_its_share_to_the_others() -> None:
    server = replace(WIDE, up_bits_per_s=8e6)
    tracks = [absent("a", 0.0, 1.0, 9.0, steps=[down()]), track("b", [down()])]
    # Half each until 1, b alone until 1.5, a's other half from 9 on.
    assert run_tracks(tracks, server).finish_s == pytest.approx({"a": 9.5, "b": 1.5})


def test_devices_are_on_for_the_share_of_time_that_was_asked_for() -> None:
    intervals = Availability(stream("test", 0), 30.0, 10.0)
    # 20,000 looks over about 5,000 pairs of intervals: a deviation of the share of about 0.005.
    looks = [intervals.next_on_s(10.0 * look) == 10.0 * look for look in range(20_000)]
    assert sum(looks) / len(looks) == pytest.approx(0.75, abs=0.02)


def test_intervals_do_not_depend_on_where_one_looks_first() -> None:
    one, other = (Availability(stream("test", 1), 3.0, 3.0) for _ in range(2))
    times = [0.1 * step for step in range(500)]
    assert [one.next_on_s(t) for t in times] == [other.next_on_s(t) for t in times[::-1]][::-1]


def test_fair_paces_fill_the_pipe_from_the_narrowest_link_up() -> None:
    # Two of 1 leave 8 of 10 to three, which is less than any of their own rates.
    paces = fair_paces(10.0, {1.0: 2, 3.0: 1, 8.0: 2})
    assert paces == pytest.approx({1.0: 1.0, 3.0: 8 / 3, 8.0: 8 / 3})
    assert fair_paces(100.0, {1.0: 2, 3.0: 1}) == {1.0: 1.0, 3.0: 3.0}


SIZES = st.integers(0, 3_000_000)
STEPS = st.lists(
    st.builds(Transfer, up=st.booleans(), num_bytes=SIZES)
    | st.builds(Compute, seconds=st.floats(0, 5)),
    max_size=4,
)
LINKS = st.sampled_from([LINK, *link_classes().values()])
TRACKS = st.lists(st.tuples(LINKS, st.lists(STEPS, max_size=3)), min_size=1, max_size=8).map(
    lambda devices: [
        track(f"d{number}", *stages, link=link) for number, (link, stages) in enumerate(devices)
    ]
)
SERVERS = st.builds(
    Server,
    up_bits_per_s=st.floats(1e5, 1e9),
    down_bits_per_s=st.floats(1e5, 1e9),
    waits_s=st.just({}),
)


def bits(step: Step, link: LinkClass, upwards: bool) -> float:
    """What a step sends in that direction, loss included."""
    if isinstance(step, Compute) or step.up is not upwards:
        return 0.0
    return 8 * step.num_bytes / (1 - link.loss)


@settings(max_examples=60, deadline=None)
@given(TRACKS, SERVERS)
def test_nothing_is_faster_than_its_link_or_than_the_server(
    tracks: list[Track], server: Server
) -> None:
    timeline = run_tracks(tracks, server)
    slack = 1 - 1e-6
    for each in tracks:
        for steps, taken_s in zip(each.stages, timeline.durations_s[each.device_id], strict=False):
            for step, duration_s in zip(steps, taken_s, strict=True):
                own_s = (
                    step.seconds
                    if isinstance(step, Compute)
                    else each.link.latency_s
                    + bits(step, each.link, True) / each.link.up_bits_per_s
                    + bits(step, each.link, False) / each.link.down_bits_per_s
                )
                assert duration_s >= own_s * slack - 1e-9
        assert timeline.makespan_s >= timeline.finish_s[each.device_id]
    for upwards, rate in ((True, server.down_bits_per_s), (False, server.up_bits_per_s)):
        sent = sum(
            bits(step, each.link, upwards)
            for each in tracks
            for steps in each.stages
            for step in steps
        )
        assert timeline.makespan_s >= sent / rate * slack - 1e-9


@settings(max_examples=40, deadline=None)
@given(TRACKS, SERVERS, st.randoms())
def test_the_order_of_the_devices_does_not_matter(
    tracks: list[Track], server: Server, chance: random.Random
) -> None:
    shuffled = list(tracks)
    chance.shuffle(shuffled)
    assert run_tracks(shuffled, server) == run_tracks(tracks, server)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(LINKS, SIZES), min_size=1, max_size=8), SERVERS, st.floats(1, 50))
def test_a_wider_server_makes_no_transfer_later(
    sizes: list[tuple[LinkClass, int]], server: Server, factor: float
) -> None:
    """One transfer a stage. It is no law of whole rounds: what ends sooner may begin its next
    transfer in the way of another device that was computing."""
    tracks = [
        track(f"d{number}", [down(size)], link=link) for number, (link, size) in enumerate(sizes)
    ]
    before = run_tracks(tracks, server)
    after = run_tracks(tracks, replace(server, up_bits_per_s=factor * server.up_bits_per_s))
    for name, finish_s in before.finish_s.items():
        assert after.finish_s[name] <= finish_s * (1 + 1e-6) + 1e-9


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 5), st.floats(1, 1e7), st.sampled_from([1e5, 2e6, 8e6])),
             min_size=1, max_size=12),
    st.floats(1e5, 1e7),
)  # fmt: skip
def test_every_bit_passes_the_pipe_once(
    transfers: list[tuple[float, float, float]], rate: float
) -> None:
    env = simpy.Environment()
    pipe = SharedPipe(env, rate)

    def send(begins_s: float, size: float, own: float) -> object:
        yield env.timeout(begins_s)
        yield pipe.start(size, own).done

    for begins_s, size, own in transfers:
        env.process(send(begins_s, size, own))  # type: ignore[arg-type]
    env.run()
    assert pipe.carried_bits == pytest.approx(sum(size for _, size, _ in transfers), rel=1e-6)
