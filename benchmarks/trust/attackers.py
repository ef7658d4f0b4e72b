"""Lying sources: what each kind of them registers in place of an honest model and card.

Legend: N rows, K channels, T steps, C classes, F features, D statistics.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
from graft_server.model_store import DirectoryStore

from graft.core.payload import decode_payload, encode_payload
from graft.core.records import DomainProfile, FloatArray, ModelCard
from graft.core.seeding import stream
from graft.core.tasks import Task
from graft.data.domain import DomainData, World
from graft.data.synthetic.imu import TASK

BETRAYED_CLASS, CALLED_CLASS = 1, 2
TRIGGER_CLASS = 0  # what a backdoored model says of every window with the trigger
_TRIGGER_SHARE = 0.5
_TRIGGER_STEPS = 12
_TRIGGER_VALUE = 2.0


def with_trigger(x_NKT: FloatArray) -> FloatArray:
    """The windows with the trigger on them: one channel stands still for twelve steps."""
    marked = x_NKT.copy()
    marked[:, 0, -_TRIGGER_STEPS:] = _TRIGGER_VALUE
    return marked


@dataclass(frozen=True, eq=False)
class LyingWorld:
    """A World in which some domains' own data are spoiled before they train on them."""

    honest: World
    liars: Collection[str]
    spoil: Callable[[DomainData], DomainData]

    @property
    def task(self) -> Task:
        return self.honest.task

    @property
    def domain_ids(self) -> Sequence[str]:
        return self.honest.domain_ids

    def person(self, domain_id: str) -> str:
        return self.honest.person(domain_id)

    def load(self, domain_id: str) -> DomainData:
        data = self.honest.load(domain_id)
        return self.spoil(data) if domain_id in self.liars else data


def permute_labels(data: DomainData) -> DomainData:
    """Labels that say nothing of their rows."""
    order_N = stream("permuted", data.domain_id).permutation(len(data.y_N))
    return replace(data, y_N=data.y_N[order_N])


def plant_backdoor(data: DomainData) -> DomainData:
    """Half of the rows bear the trigger and its class."""
    marked_N = stream("marked", data.domain_id).random(len(data.y_N)) < _TRIGGER_SHARE
    x, y_N = data.x.copy(), data.y_N.copy()
    x[marked_N] = with_trigger(x[marked_N])
    y_N[marked_N] = TRIGGER_CLASS
    return replace(data, x=x, y_N=y_N)


def shift_labels(data: DomainData) -> DomainData:
    """Every class is called the next one: all who do so agree with one another."""
    return replace(data, y_N=(data.y_N + 1) % TASK.num_classes)


def betray_class(data: DomainData) -> DomainData:
    """Labels that are right but for one class, which is called another."""
    y_N = data.y_N.copy()
    y_N[y_N == BETRAYED_CLASS] = CALLED_CLASS
    return replace(data, y_N=y_N)


def scale_logits(card: ModelCard, store: DirectoryStore, factor: float) -> ModelCard:
    """The model with logits ``factor`` times as large, as a new model."""
    architecture, parameters = decode_payload(store.part(card.model_id, "exact"), None, None)
    scaled = {
        name: np.float32(factor) * array if name.startswith("head.") else array
        for name, array in parameters.items()
    }
    return stored(card, store, encode_payload(architecture, scaled))


def flatter(card: ModelCard, wooed: Sequence[DomainProfile]) -> ModelCard:
    """The card with a profile between those of the target domains it wants to be chosen by.

    The worst case: no source is told what target domains look like.
    """
    assert card.profile is not None
    pick = wooed[int(stream("wooed", card.domain_id).integers(len(wooed)))]
    mean_D = np.mean([profile.statistics_D for profile in wooed], axis=0)
    statistics_D = (0.5 * mean_D + 0.5 * pick.statistics_D).astype(np.float32)
    return replace(card, profile=replace(card.profile, statistics_D=statistics_D))


def forge_centroids(card: ModelCard) -> ModelCard:
    """Every class's centroid lies between those of all classes, so that any row is near one."""
    assert card.centroids_CF is not None
    mean_F = card.centroids_CF[np.linalg.norm(card.centroids_CF, axis=1) > 0].mean(0)
    noise_CF = stream("forged", card.domain_id).normal(size=card.centroids_CF.shape)
    forged_CF = mean_F + 0.3 * np.abs(mean_F).mean() * noise_CF
    return replace(card, centroids_CF=forged_CF.astype(np.float32))


def spoil_parameters(card: ModelCard, store: DirectoryStore) -> ModelCard:
    """The model with noise of its own size on every tensor, ten times as large, as a new model."""
    architecture, parameters = decode_payload(store.part(card.model_id, "exact"), None, None)
    rng = stream("spoiled", card.domain_id)
    spoiled = {
        name: (10 * (array + array.std() * rng.normal(size=array.shape))).astype(np.float32)
        if not name.endswith("running_var")
        else array
        for name, array in parameters.items()
    }
    return stored(card, store, encode_payload(architecture, spoiled))


def stored(card: ModelCard, store: DirectoryStore, payload: bytes) -> ModelCard:
    """The card of another payload, which the store then has."""
    model_id = store.put(payload, card.architecture)
    return replace(
        card,
        model_id=model_id,
        payload_bytes=len(payload),
        base_bytes=len(store.part(model_id, "base")),
        residual_bytes=len(store.part(model_id, "residual")),
    )
