"""No random budget is exceeded by a byte of the ledger, a second or a byte of memory."""

from collections.abc import Callable
from dataclasses import asdict, replace

import pytest
from graft_simulation.clock.simulated_clock import SimulatedClock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_system import ARRIVING, CONFIG, WORLD, System

from graft.core.config import BudgetConfig, SelectionConfig
from graft.core.exchange import TrainResult
from graft.core.ledger import is_upload
from graft.core.records import LedgerEntry
from graft.core.results import result_row
from graft.rounds import Round
from graft.wire.sizes import EncodedSizes

Expand = Callable[..., tuple[Round, System]]
METHODS = ("hat", "graft", "finetuned-any", "finetuned-same", "feddf", "fedavg", "fedproto", "shot")
SETTINGS = {
    "method": METHODS[0],
    "comparisons": METHODS[1:],
    "selection": SelectionConfig(num_sources=2, num_candidates=3),
}
SIZES = EncodedSizes()


def spent(entries: list[LedgerEntry], domain_id: str, method: str) -> tuple[int, int]:
    """Bytes down and up of the ledger, and the join that the small system has not."""
    mine = [e for e in entries if e.domain_id == domain_id and e.method in ("", method)]
    up = sum(e.payload_bytes for e in mine if is_upload(e))
    down = sum(e.payload_bytes for e in mine if not is_upload(e))
    return down, up + SIZES.join_bytes(domain_id)


@st.composite
def budgets(draw: st.DrawFn) -> BudgetConfig:
    limit = st.none() | st.integers(10, 18).flatmap(lambda k: st.integers(2**k, 2 ** (k + 1)))
    return BudgetConfig(
        down_bytes=draw(limit),
        up_bytes=draw(limit),
        device_s=draw(st.none() | st.floats(-6, -1).map(lambda power: 10**power)),
        memory_bytes=draw(st.none() | st.integers(1_500_000, 6_000_000)),
    )


def check_budgets(expand: Expand, budget: BudgetConfig, *, by_site: bool) -> list[str]:
    """What was left out; raises AssertionError where anything is beyond the budget."""
    limits = {f"max_{name}": value for name, value in asdict(budget).items()}
    policy = replace(CONFIG.policy, **limits) if by_site else CONFIG.policy
    own = {**SETTINGS, "policy": policy, "budget": BudgetConfig() if by_site else budget}
    done, system = expand(**own)
    costs = SimulatedClock(system.config, WORLD.task)._costs
    for request, response in system.exchanges:
        costs.note(request, response)
    seconds = costs.take_seconds()
    assert len(done.reports) == len(METHODS) * len(ARRIVING[0])
    for report in done.reports:
        key = report.domain_id, report.method
        used: dict[str, float] = dict(
            zip(("down_bytes", "up_bytes"), spent(system.entries, *key), strict=True)
        )
        if isinstance(report, TrainResult):
            used["device_s"] = seconds[key].probe_s + sum(seconds[key].learn_s)
            used["memory_bytes"] = report.peak_memory_bytes
            assert result_row(report).left_out == list(report.left_out)
        else:
            assert report.error in ("BudgetError", "ArchitectureError")
        for name, value in used.items():
            limit = getattr(budget, name)
            assert limit is None or value <= limit, (name, key, report)
    return [text for each in done.reports for text in getattr(each, "left_out", ())]


@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(budget=budgets(), by_site=st.booleans())
def test_no_random_budget_is_exceeded(
    expand_trained: Expand, budget: BudgetConfig, by_site: bool
) -> None:
    check_budgets(expand_trained, budget, by_site=by_site)


@pytest.mark.slow
@settings(
    max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(budget=budgets(), by_site=st.booleans())
def test_none_of_many_random_budgets_is_exceeded(
    expand_trained: Expand, budget: BudgetConfig, by_site: bool
) -> None:
    check_budgets(expand_trained, budget, by_site=by_site)


@pytest.mark.parametrize(
    ("budget", "left_out"),
    [
        (BudgetConfig(down_bytes=4096), "0 of 3 candidates kept (down_bytes)"),
        (BudgetConfig(down_bytes=4096), "graft, label-only in its place"),
        (BudgetConfig(down_bytes=60_000), "exact sources: int8 bases in their place (down_bytes)"),
        (BudgetConfig(up_bytes=4096), "registration (up_bytes)"),
        (BudgetConfig(device_s=0.008), "steps kept (device_s)"),
        (BudgetConfig(device_s=0.03), "of 3 candidates kept (device_s)"),
    ],
)
def test_what_a_limit_leaves_out_is_said(
    expand_trained: Expand, budget: BudgetConfig, left_out: str
) -> None:
    assert any(left_out in text for text in check_budgets(expand_trained, budget, by_site=False))


def test_a_wide_budget_changes_nothing(expand_trained: Expand) -> None:
    wide = BudgetConfig(down_bytes=2**40, up_bytes=2**40, device_s=1e6, memory_bytes=2**42)
    assert check_budgets(expand_trained, wide, by_site=False) == []
    plain, limited = (
        {(r.domain_id, r.method): r for r in expand_trained(**SETTINGS, budget=each)[0].reports}
        for each in (BudgetConfig(), wide)
    )
    assert plain.keys() == limited.keys()
    for key, one in plain.items():
        other = limited[key]
        assert isinstance(one, TrainResult)
        assert isinstance(other, TrainResult)
        assert one.metrics == other.metrics
        assert (one.card and one.card.model_id) == (other.card and other.card.model_id)
