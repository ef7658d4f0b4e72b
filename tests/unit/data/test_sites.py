"""Natural domains dealt into sites: every row once, groups whole, by a seed."""

import numpy as np
import pytest

from graft.data.domain import DomainData
from graft.data.sites import deal_domain, deal_rows
from graft.errors import ConfigError


def rows(per_class: int, classes: int = 10) -> tuple[np.ndarray, np.ndarray]:
    y_N = np.tile(np.arange(classes), per_class)
    return y_N, np.arange(len(y_N)) // classes * classes + y_N  # each row its own group


def test_every_row_is_in_one_site_and_no_group_is_divided() -> None:
    y_N, _ = rows(40)
    group_N = np.arange(400) % 200  # two rows a group
    sites = deal_rows(y_N, group_N, 6, 1.0, np.random.default_rng(0))
    assert np.sort(np.concatenate(sites)).tolist() == list(range(400))
    homes = [set(group_N[rows_N]) for rows_N in sites]
    assert sum(map(len, homes)) == len(set().union(*homes)) == 200
    assert all((np.diff(rows_N) > 0).all() for rows_N in sites)


def test_alpha_decides_how_unlike_the_sites_are() -> None:
    y_N, group_N = rows(60)

    def spread(alpha: float) -> float:
        sites = deal_rows(y_N, group_N, 5, alpha, np.random.default_rng(1))
        return float(np.std([np.bincount(y_N[rows_N], minlength=10) for rows_N in sites]))

    assert spread(0.3) > 2 * spread(100.0)


def test_too_many_sites_are_refused_and_a_seed_decides() -> None:
    y_N, group_N = rows(3, classes=2)
    with pytest.raises(ConfigError, match=r"got 5 of alpha 1 for 6 groups"):
        deal_rows(y_N, group_N, 5, 1.0, np.random.default_rng(0))
    with pytest.raises(ConfigError, match="wanted 1 or more of one above 0"):
        deal_rows(y_N, group_N, 2, 0.0, np.random.default_rng(0))
    y_N, group_N = rows(10)
    x = np.arange(len(y_N), dtype=np.float32)[:, None]
    data = DomainData(domain_id="shop", x=x, y_N=y_N, group_N=group_N)
    dealt = [[site.x.tolist() for site in deal_domain(data, 3, 1.0, seed)] for seed in (0, 0, 1)]
    assert dealt[0] == dealt[1] != dealt[2]
    assert [site.domain_id for site in deal_domain(data, 3, 1.0, 0)] == [
        "shop@1",
        "shop@2",
        "shop@3",
    ]
    assert deal_domain(data, 1, 1.0, 0) == [data]
