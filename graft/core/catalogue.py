"""The catalogue: model cards in their order, in parts that are in memory or read when one is used.

Legend: S cards, D statistics of a profile.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, overload

import numpy as np
import numpy.typing as npt

from graft.errors import EdgeError

if TYPE_CHECKING:
    from graft.core.records import ModelCard

Ids = npt.NDArray[np.bytes_]
Rows = npt.NDArray[np.intp]
Statistics = npt.NDArray[np.float32]
_Kind = TypeVar("_Kind", bound=np.generic)
_READ = 1024  # cards read at once where all are wanted


class Part(Protocol):
    """Some cards of a catalogue, with what is looked up among all of them as columns."""

    model_ids: Ids
    domain_ids: Ids
    round_indices: npt.NDArray[np.int64]

    def cards(self, rows: Rows) -> list["ModelCard"]:
        """The cards of these rows, in this order."""
        ...

    def statistics(self) -> Mapping[int, tuple[Rows, Statistics]]:
        """By the number of statistics, the rows whose profile has it, and these (S, D).

        Raises EdgeError for a card without a profile.
        """
        ...

    def changed(self, change: "Callable[[ModelCard], ModelCard]") -> "Part":
        """The part with another form of each card, of the same columns."""
        ...


class Catalogue(Sequence["ModelCard"]):
    """Model cards; a selection of them reads none of those that are left out."""

    def __init__(self, parts: Iterable[Part] = (), rows: Rows | None = None) -> None:
        self.parts = tuple(parts)
        self._starts = np.cumsum([0, *(len(part.model_ids) for part in self.parts)])
        self._rows = rows

    @cached_property
    def model_ids(self) -> Ids:
        """The model id of each card, as bytes."""
        return self._column([part.model_ids for part in self.parts], np.bytes_)

    @cached_property
    def domain_ids(self) -> Ids:
        """The domain id of each card, as bytes."""
        return self._column([part.domain_ids for part in self.parts], np.bytes_)

    @cached_property
    def round_indices(self) -> npt.NDArray[np.int64]:
        """The round in which each card was admitted."""
        return self._column([part.round_indices for part in self.parts], np.int64)

    @cached_property
    def owned(self) -> "Catalogue":
        """Each model once, with its first card: a method may keep a source as it is, and then its
        domain has a card of that model too."""
        _, first = np.unique(self.model_ids, return_index=True)
        return self if len(first) == len(self) else self.take(np.sort(first))

    @cached_property
    def latest(self) -> "Catalogue":
        """``owned`` without the models that their own domain has grown into later ones."""
        _, inverse, count = np.unique(self.domain_ids, return_inverse=True, return_counts=True)
        several = np.flatnonzero(count[inverse] > 1)  # only there a model can have a successor
        former = {(c.domain_id, p) for c in self.cards(several) for p in c.parents}
        owned = self.owned
        if not former:
            return owned
        named = owned.rows_of({model_id for _, model_id in former})
        gone = [
            row
            for row, card in zip(named, owned.cards(named), strict=True)
            if (card.domain_id, card.model_id) in former
        ]
        return owned.take(np.delete(np.arange(len(owned)), gone)) if gone else owned

    def __len__(self) -> int:
        return int(self._starts[-1]) if self._rows is None else len(self._rows)

    @overload
    def __getitem__(self, index: int) -> "ModelCard": ...
    @overload
    def __getitem__(self, index: slice) -> "Catalogue": ...
    def __getitem__(self, index: int | slice) -> "ModelCard | Catalogue":
        rows = np.arange(len(self))[index]
        return self.take(rows) if isinstance(index, slice) else self.cards(np.array([rows]))[0]

    def __iter__(self) -> Iterator["ModelCard"]:
        for start in range(0, len(self), _READ):
            yield from self.cards(np.arange(start, min(start + _READ, len(self))))

    def __add__(self, other: Sequence["ModelCard"]) -> "Catalogue":
        more = other if isinstance(other, Catalogue) else Catalogue([CardsInMemory(other)])
        if not len(more) or not len(self):
            return self if len(self) else more
        parts = (*self.parts, *more.parts)
        if self._rows is None and more._rows is None:
            return Catalogue(parts)
        return Catalogue(parts, np.concatenate([self._all(), self._starts[-1] + more._all()]))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (Catalogue, tuple)):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def cards(self, rows: Rows) -> list["ModelCard"]:
        """The cards of these rows of the catalogue, in this order; each part is asked once."""
        rows = np.asarray(rows, np.intp)
        whole = rows if self._rows is None else self._rows[rows]
        owner = np.searchsorted(self._starts, whole, "right") - 1
        found: list[Any] = [None] * len(rows)
        for number in np.unique(owner):
            places = np.flatnonzero(owner == number)
            cards = self.parts[number].cards(whole[places] - self._starts[number])
            for place, card in zip(places, cards, strict=True):
                found[place] = card
        return found

    def take(self, rows: Rows) -> "Catalogue":
        """The catalogue of these rows, in this order."""
        return Catalogue(self.parts, rows if self._rows is None else self._rows[rows])

    def where(self, wanted: npt.NDArray[np.bool_]) -> "Catalogue":
        """The catalogue of the cards where ``wanted`` is true."""
        return self if wanted.all() else self.take(np.flatnonzero(wanted))

    def changed(self, change: "Callable[[ModelCard], ModelCard]") -> "Catalogue":
        """The catalogue with another form of each card, with the same ids and profile."""
        return Catalogue([part.changed(change) for part in self.parts], self._rows)

    def without(
        self, *, model_ids: Iterable[str] = (), domain_ids: Iterable[str] = ()
    ) -> "Catalogue":
        """The catalogue without the cards of these models and of these domains."""
        unwanted = _is_in(self.model_ids, model_ids) | _is_in(self.domain_ids, domain_ids)
        return self.where(~unwanted)

    def of_models(self, model_ids: Iterable[str]) -> "Catalogue":
        """The cards of these models."""
        return self.where(_is_in(self.model_ids, model_ids))

    def of_domains(self, domain_ids: Iterable[str]) -> "Catalogue":
        """The cards of these domains."""
        return self.where(_is_in(self.domain_ids, domain_ids))

    def rows_of(self, model_ids: Iterable[str]) -> Rows:
        """The rows of these models, in the catalogue's order."""
        return np.flatnonzero(_is_in(self.model_ids, model_ids))

    def find(self, model_ids: Iterable[str]) -> dict[str, "ModelCard"]:
        """The first card of each of these models that is there."""
        found: dict[str, ModelCard] = {}
        for card in self.of_models(model_ids):
            found.setdefault(card.model_id, card)
        return found

    def statistics_sizes(self) -> dict[int, Rows]:
        """By the number of statistics of a profile, the rows of the cards with as many.

        Raises EdgeError for a card without a profile.
        """
        size_of = np.zeros(self._starts[-1], np.int64)
        for start, part in zip(self._starts, self.parts, strict=False):
            for size, (rows, _) in part.statistics().items():
                size_of[start + rows] = size
        size_of = size_of if self._rows is None else size_of[self._rows]
        return {int(size): np.flatnonzero(size_of == size) for size in np.unique(size_of)}

    def statistics(self, rows: Rows) -> Statistics:
        """The profile statistics (S, D) of rows whose profiles have as many, in float32."""
        whole = rows if self._rows is None else self._rows[rows]
        owner = np.searchsorted(self._starts, whole, "right") - 1
        blocks, places = [], []
        for number in np.unique(owner):
            mine = np.flatnonzero(owner == number)
            wanted = whole[mine] - self._starts[number]
            for own, statistics_SD in self.parts[number].statistics().values():
                at = np.searchsorted(own, wanted).clip(max=len(own) - 1)
                if (hit := own[at] == wanted).any():
                    blocks.append(statistics_SD[at[hit]])
                    places.append(mine[hit])
        statistics = np.empty((len(rows), blocks[0].shape[1]), np.float32)
        for place, block in zip(places, blocks, strict=True):
            statistics[place] = block
        return statistics

    def _all(self) -> Rows:
        return np.arange(len(self)) if self._rows is None else self._rows

    def _column(
        self, columns: Sequence[npt.NDArray[_Kind]], kind: type[_Kind]
    ) -> npt.NDArray[_Kind]:
        column = np.concatenate(columns) if columns else np.zeros(0, kind)
        return column if self._rows is None else column[self._rows]


class CardsInMemory:
    """A part of cards that are all there."""

    def __init__(self, cards: Sequence["ModelCard"]) -> None:
        self._cards = tuple(cards)
        self.model_ids = np.array([card.model_id for card in cards], np.bytes_)
        self.domain_ids = np.array([card.domain_id for card in cards], np.bytes_)
        self.round_indices = np.array([card.round_index for card in cards], np.int64)

    def cards(self, rows: Rows) -> list["ModelCard"]:
        """The cards of these rows, in this order."""
        return [self._cards[row] for row in rows]

    def changed(self, change: "Callable[[ModelCard], ModelCard]") -> "CardsInMemory":
        """As ``Part`` says."""
        return CardsInMemory([change(card) for card in self._cards])

    def statistics(self) -> Mapping[int, tuple[Rows, Statistics]]:
        """As ``Part`` says."""
        return self._statistics

    @cached_property
    def _statistics(self) -> Mapping[int, tuple[Rows, Statistics]]:
        profiles = []
        for card in self._cards:
            if card.profile is None:
                raise EdgeError(f"card of {card.domain_id}: got no profile, wanted one to rank by")
            profiles.append(card.profile.statistics_D)
        size_of = np.array([len(statistics) for statistics in profiles])
        by_size = {int(size): np.flatnonzero(size_of == size) for size in np.unique(size_of)}
        return {
            size: (rows, np.stack([profiles[row] for row in rows]))
            for size, rows in by_size.items()
        }


def as_catalogue(cards: Sequence["ModelCard"]) -> Catalogue:
    """The cards as a catalogue, themselves where they are one."""
    if isinstance(cards, Catalogue):
        return cards
    return Catalogue([CardsInMemory(cards)] if len(cards) else ())


def _is_in(ids: Ids, wanted: Iterable[str]) -> npt.NDArray[np.bool_]:
    names = np.unique(np.array([name.encode() for name in wanted], np.bytes_))
    if not len(names) or not len(ids):
        return np.zeros(len(ids), np.bool_)
    found: npt.NDArray[np.bool_] = (
        names[np.searchsorted(names, ids).clip(max=len(names) - 1)] == ids
    )
    return found
