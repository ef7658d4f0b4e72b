"""Few natural domains dealt into many sites, each with a mix of classes of its own.

Legend: N rows of a domain, G groups, C classes, S sites.
"""

from dataclasses import replace

import numpy as np

from graft.core.records import IntArray
from graft.core.seeding import stream
from graft.data.domain import DomainData
from graft.errors import ConfigError

_DRAWS = 1000


def deal_domain(data: DomainData, sites: int, alpha: float, seed: int) -> list[DomainData]:
    """The domain in so many sites, "id@1", "id@2" ...; itself for one site. See ``deal_rows``."""
    if sites == 1:
        return [data]
    rng = stream("sites", seed, data.domain_id)
    dealt = deal_rows(data.y_N, data.group_N, sites, alpha, rng)
    return [
        replace(
            data,
            domain_id=f"{data.domain_id}@{number}",
            x=data.x[rows_N],
            y_N=data.y_N[rows_N],
            group_N=data.group_N[rows_N],
            split_N=None if data.split_N is None else data.split_N[rows_N],
        )
        for number, rows_N in enumerate(dealt, start=1)
    ]


def deal_rows(
    y_N: IntArray, group_N: IntArray, sites: int, alpha: float, rng: np.random.Generator
) -> list[IntArray]:
    """The rows of each of ``sites`` sites, ascending; every row is in exactly one.

    The groups of each class are dealt by shares that are drawn from a Dirichlet distribution of
    ``alpha``, and no group is divided. A small ``alpha`` gives sites of few classes, a large one
    sites that are alike. What leaves a site without two classes of two groups each, with which it
    can be split, is drawn anew.

    Parameters
    ----------
    y_N, group_N
        Class and group of each row; a group's class is that of most of its rows.
    sites
        1 or more.
    alpha
        Above 0.
    rng
        Decides the shares and who gets which group.

    Raises
    ------
    ConfigError
        For other numbers, and where the rows are too few for so many sites.
    """
    if sites < 1 or not 0 < alpha < np.inf:
        raise ConfigError(f"sites: got {sites} of alpha {alpha}, wanted 1 or more of one above 0")
    groups, group_of_row_N = np.unique(group_N, return_inverse=True)
    votes_GC = np.zeros((len(groups), int(y_N.max(initial=0)) + 1), np.int64)
    np.add.at(votes_GC, (group_of_row_N, y_N), 1)
    class_G = votes_GC.argmax(axis=1)
    for _ in range(_DRAWS):
        site_G = np.empty(len(groups), np.int64)
        counts_SC = np.zeros((sites, votes_GC.shape[1]), np.int64)
        for label in np.unique(class_G):
            own = rng.permutation(np.flatnonzero(class_G == label))
            counts_SC[:, label] = rng.multinomial(len(own), rng.dirichlet(np.full(sites, alpha)))
            site_G[own] = np.repeat(np.arange(sites), counts_SC[:, label])
        if ((counts_SC >= 2).sum(axis=1) >= 2).all():
            return [np.flatnonzero(site_G[group_of_row_N] == site) for site in range(sites)]
    raise ConfigError(
        f"sites: got {sites} of alpha {alpha:g} for {len(groups)} groups of rows, wanted so many "
        "that each site has two of two classes"
    )
