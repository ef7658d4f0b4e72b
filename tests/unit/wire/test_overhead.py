"""What carrying a message takes, each number from its parts."""

from graft.wire.overhead import (
    CONNECTION_DOWN_BYTES,
    CONNECTION_UP_BYTES,
    FETCH_DOWN_BYTES,
    PUSH_UP_BYTES,
    DepotCalls,
    framed_bytes,
    request_bytes,
    response_bytes,
    returned_bytes,
    stream_bytes,
)

# Ethernet 14, IP 20, TCP 20, time stamps 12; what is left of 1,500 for data.
HEADERS, SEGMENT = 66, 1448


def test_a_short_message_takes_one_record_and_one_segment() -> None:
    assert framed_bytes(100) == 100 + 5 + 9
    assert stream_bytes(100) == 100 + 22 + HEADERS
    assert stream_bytes(SEGMENT - 22) == SEGMENT + HEADERS
    assert stream_bytes(SEGMENT - 21) == SEGMENT + 1 + 2 * HEADERS


def test_a_long_one_takes_a_record_every_16_kb_and_a_segment_every_1448_bytes() -> None:
    records, sealed = 7, 100_000 + 7 * 22  # 6 x 16,384 = 98,304 and a rest
    assert 16_384 * (records - 1) < 100_000 <= 16_384 * records
    assert stream_bytes(100_000) == sealed + HEADERS * 70  # 100,154 / 1,448 = 69.2


def test_one_in_five_segments_is_answered() -> None:
    assert returned_bytes(1514 * 10) == 2 * HEADERS
    assert returned_bytes(1514 * 4) == 0


def test_a_payload_adds_to_an_exchange_what_its_segments_take() -> None:
    for weigh in (request_bytes, response_bytes):
        assert weigh(1_000) - weigh(0) == 1_000
        assert weigh(20_000) - weigh(0) == 20_000 + 22 + 13 * HEADERS  # 20,022 / 1,448 = 13.8


def test_the_first_call_of_a_link_pays_for_its_connection() -> None:
    calls = DepotCalls()
    assert calls.fetch_bytes() == FETCH_DOWN_BYTES + CONNECTION_DOWN_BYTES
    assert calls.push_bytes() == PUSH_UP_BYTES
    assert DepotCalls().push_bytes() == PUSH_UP_BYTES + CONNECTION_UP_BYTES
