"""Records of forgotten domains: what was removed, what had learned from it, and what became of it.

A record is a JSON file in ``forgotten/`` of a run folder. It names domains and model ids and holds
no data; as long as it is there, none of its models is stored or admitted again.
"""

import dataclasses
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from graft.core.files import AnyPath
from graft.core.records import ModelCard, SystemState
from graft.errors import RunError

FOLDER = "forgotten"
Descendants = Literal["keep", "quarantine", "retrain"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Descendant:
    """A model that learned from a forgotten one, directly or through others."""

    domain_id: str
    model_id: str
    round_index: int
    parents: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Forgetting:
    """One forgetting, or (``reason`` "replaced") the end of a descendant that was trained again.

    Parameters
    ----------
    number, run, round_index : int, str, int
        The record's number from 0, its run, and the number of finished rounds at that time.
    reason : {"forgotten", "replaced"}
        Only a forgotten domain's name is refused.
    domain_id : str
        The domain.
    models : mapping of str to list of str
        The ids of the removed models, each with its parents.
    policy : {"keep", "quarantine", "retrain"}
        What happens to ``descendants`` and ``averages``.
    descendants : tuple of Descendant
        Models of the catalogue that learned from the removed ones, by lineage.
    averages : tuple of str
        Ids of the architecture averages that the domain's model is part of.
    enrolment : str
        SHA-256 of the device's key, of a deployment; a device with another one is enrolled anew.
    collect : bool
        Whether all models that no card named were removed, too.
    """

    number: int
    run: str
    round_index: int
    reason: Literal["forgotten", "replaced"]
    domain_id: str
    models: Mapping[str, list[str]]
    policy: Descendants
    descendants: tuple[Descendant, ...] = ()
    averages: tuple[str, ...] = ()
    enrolment: str = ""
    collect: bool = False

    def to_bytes(self) -> bytes:
        """The record as canonical JSON, which its signature covers."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True).encode()


def parse_forgetting(table: Mapping[str, Any]) -> Forgetting:
    """The record of ``to_bytes``; raises KeyError, TypeError or ValueError for anything else."""
    descendants = tuple(
        Descendant(**{**each, "parents": tuple(each["parents"])}) for each in table["descendants"]
    )
    averages = tuple(map(str, table["averages"]))
    models = {str(model_id): list(map(str, ids)) for model_id, ids in table["models"].items()}
    values = {**table, "descendants": descendants, "averages": averages, "models": models}
    return Forgetting(**values)


def read_records(run_folder: AnyPath) -> list[tuple[Forgetting, bytes]]:
    """The records of a run folder with their signatures (empty: none), in their order.

    Raises RunError where one cannot be read.
    """
    folder, records = run_folder / FOLDER, []
    paths: list[AnyPath] = list(folder.glob("*.json")) if folder.exists() else []
    for path in sorted(paths, key=lambda path: path.name):
        try:
            file = json.loads(path.read_text("utf-8"))
            records.append((parse_forgetting(file["record"]), bytes.fromhex(file["signature"])))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RunError(
                f"{path}: got {error!r}, wanted a record of a forgotten domain"
            ) from error
    return records


class Forgotten:
    """All records of a run together."""

    def __init__(self, records: Iterable[Forgetting] = ()) -> None:
        self.records = tuple(records)
        self.model_ids = frozenset(name for each in self.records for name in each.models)
        shut_out = [each for each in self.records if each.policy != "keep"]
        self.quarantined = frozenset(
            name
            for each in shut_out
            for name in (*each.averages, *(model.model_id for model in each.descendants))
        )
        self.retrained = {
            model.model_id: model
            for each in self.records
            if each.policy == "retrain"
            for model in each.descendants
        }
        self.retrained_averages = frozenset(
            name for each in self.records if each.policy == "retrain" for name in each.averages
        )

    def refused(self, enrolments: Mapping[str, str] | None = None) -> frozenset[str]:
        """The forgotten domains that were not enrolled anew; ``enrolments`` as in a record."""
        known = enrolments or {}
        return frozenset(
            each.domain_id
            for each in self.records
            if each.reason == "forgotten" and known.get(each.domain_id, "") == each.enrolment
        )

    def names_until(self, round_index: int) -> frozenset[str]:
        """The domains whose traces are removed from a finished round's tables."""
        return frozenset(
            each.domain_id
            for each in self.records
            if each.reason == "forgotten" and round_index < each.round_index
        )

    def filtered(self, state: SystemState) -> SystemState:
        """The state without forgotten models."""
        return dataclasses.replace(
            state,
            catalogue=state.catalogue.without(model_ids=self.model_ids),
            architecture_averages=_without(state.architecture_averages, self.model_ids),
        )

    def offered(self, state: SystemState) -> SystemState:
        """The state that sources are chosen from: without quarantined models."""
        return dataclasses.replace(
            state,
            catalogue=state.catalogue.without(model_ids=self.quarantined),
            architecture_averages=_without(state.architecture_averages, self.quarantined),
        )

    def pending(self, state: SystemState) -> tuple[ModelCard, ...]:
        """The models that are still to be trained again."""
        return tuple(state.catalogue.of_models(self.retrained))

    def pending_averages(self, state: SystemState) -> tuple[ModelCard, ...]:
        """The architecture averages that are still to be trained again."""
        averages = state.architecture_averages
        return tuple(card for card in averages if card.model_id in self.retrained_averages)

    def is_pending(self, state: SystemState) -> bool:
        """Whether anything is still to be trained again."""
        return bool(self.pending(state) or self.pending_averages(state))

    def asked_again(self, state: SystemState) -> frozenset[str]:
        """The domains without which these are not trained again."""
        again = {card.domain_id for card in self.pending(state)}
        if self.pending_averages(state):
            initial = state.catalogue.round_indices == 0
            again |= {card.domain_id for card in state.catalogue.where(initial)}
        return frozenset(again)

    def arriving(self, planned: Sequence[str], state: SystemState) -> tuple[str, ...]:
        """The domains of the next round: the planned ones, and those of models to train again."""
        wanted = dict.fromkeys((*planned, *(card.domain_id for card in self.pending(state))))
        refused = self.refused()
        return tuple(domain_id for domain_id in wanted if domain_id not in refused)

    def after(self, before: SystemState, grown: SystemState) -> SystemState:
        """The state after a round that ``offered(before)`` grew to ``grown``.

        Quarantined models stay in their order; one leaves when its domain has a new model.
        """
        new = grown.catalogue[len(self.offered(before).catalogue) :]
        renewed = {card.domain_id for card in new}
        replaced = {card.model_id for card in self.pending(before) if card.domain_id in renewed}
        stayed = before.catalogue.without(model_ids=replaced)
        averages = {card.architecture: card for card in before.architecture_averages}
        averages |= {card.architecture: card for card in grown.architecture_averages}
        return dataclasses.replace(
            grown,
            catalogue=stayed + new,
            architecture_averages=tuple(averages[name] for name in sorted(averages)),
        )

    def descendants(self, state: SystemState, roots: Iterable[str]) -> tuple[ModelCard, ...]:
        """The cards that learned from ``roots``, by their parents, also through removed models."""
        parents: dict[str, Iterable[str]] = {
            name: ids for each in self.records for name, ids in each.models.items()
        }
        parents |= {card.model_id: card.parents for card in state.catalogue}
        tainted, size = set(roots), -1
        while size != len(tainted):
            size = len(tainted)
            tainted |= {name for name, ids in parents.items() if not tainted.isdisjoint(ids)}
        found = tainted - set(roots)
        return tuple(state.catalogue.of_models(found))


def _without(cards: tuple[ModelCard, ...], model_ids: Collection[str]) -> tuple[ModelCard, ...]:
    return tuple(card for card in cards if card.model_id not in model_ids)
