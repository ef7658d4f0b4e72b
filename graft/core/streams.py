"""Rows of several named streams: what stands where a single stream has one array or tensor.

The columns are NumPy arrays, torch tensors or ``Lazy`` columns, which are read when their rows
are. Nothing here imports torch by itself.

Legend: N rows.
"""

from collections.abc import Callable, ItemsView, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

Column: TypeAlias = Any  # an array, a tensor or a Lazy


class Lazy:
    """A column whose rows are read or decoded only when they are indexed.

    Parameters
    ----------
    read
        From row numbers (int64, of the whole column) to their values, an array or a tensor.
    rows_N
        The row numbers that this column has.
    shape
        Of one row.
    dtype
        Of what ``read`` gives.
    """

    def __init__(
        self, read: Callable[[Any], Any], rows_N: Any, shape: tuple[int, ...], dtype: Any
    ) -> None:
        self.read, self.rows_N, self.dtype = read, np.asarray(rows_N, np.int64), dtype
        self.shape = (len(self.rows_N), *shape)

    def __len__(self) -> int:
        return len(self.rows_N)

    def __getitem__(self, rows: Any) -> Any:
        """The rows' values (``rows`` as for an array, but no single number)."""
        return self.read(self.rows_N[as_numpy(rows)])

    def select(self, rows: Any) -> "Lazy":
        """A column of these rows, still unread."""
        return Lazy(self.read, self.rows_N[as_numpy(rows)], self.shape[1:], self.dtype)

    def mapped(self, change: Callable[[Any], Any]) -> "Lazy":
        """The column whose rows are ``change`` of what is read, of the same shape."""
        read = self.read
        return Lazy(lambda rows: change(read(rows)), self.rows_N, self.shape[1:], self.dtype)

    def to(self, device: Any) -> "Lazy":
        """The column whose rows go to a torch device once read."""
        return self.mapped(lambda read: read.to(device))


class Streams:
    """Several columns of one length by the names of their streams, indexed by name or by rows.

    Parameters
    ----------
    columns
        By stream. Raises ValueError for none, or for unequal lengths.

    Examples
    --------
    >>> import numpy as np
    >>> rows = Streams({"acc": np.zeros((4, 3, 64)), "text": np.zeros((4, 20), np.uint8)})
    >>> len(rows), rows.names, rows[1:3]["acc"].shape
    (4, ('acc', 'text'), (2, 3, 64))
    """

    def __init__(self, columns: Mapping[str, Column]) -> None:
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"streams: got the lengths {lengths}, wanted equal ones")
        self._columns = dict(columns)

    @property
    def names(self) -> tuple[str, ...]:
        """The streams' names, in their order."""
        return tuple(self._columns)

    def items(self) -> ItemsView[str, Column]:
        """Name and column of each stream."""
        return self._columns.items()

    def __len__(self) -> int:
        return len(next(iter(self._columns.values())))

    def __contains__(self, name: object) -> bool:
        return name in self._columns

    def __getitem__(self, key: Any) -> Any:
        """A stream's column by its name, or the rows of every stream (slice, indices, mask)."""
        if isinstance(key, str):
            return self._columns[key]
        return self.apply(lambda column: column[key])

    def apply(self, change: Callable[[Column], Column]) -> "Streams":
        """The streams with ``change`` of each column."""
        return Streams({name: change(column) for name, column in self._columns.items()})

    def only(self, names: Sequence[str]) -> "Streams":
        """These streams alone, in this order."""
        return Streams({name: self._columns[name] for name in names})

    def to(self, device: Any) -> "Streams":
        """The streams' tensors on a torch device."""
        return self.apply(lambda column: column.to(device))


# What a method gets: a tensor of one stream, whole or read when indexed, or several streams.
Rows: TypeAlias = "Tensor | Lazy | Streams"


def as_rows(x: Column, rows_N: Any = None) -> Rows:
    """Rows of a domain's ``x`` (arrays, Lazy or Streams) as tensors, all of them by default.

    A Lazy column stays unread; its rows become tensors when they are indexed.
    """
    import torch

    def tensor_of(column: Column) -> Rows:
        if isinstance(column, Lazy):
            return column.mapped(torch.from_numpy)
        return torch.from_numpy(column)

    chosen = x if rows_N is None else select(x, rows_N)
    return chosen.apply(tensor_of) if isinstance(chosen, Streams) else tensor_of(chosen)


def select(x: Column, rows: Any) -> Column:
    """These rows of a domain's ``x``; a Lazy column stays unread."""
    if isinstance(x, Streams):
        return x.apply(lambda column: select(column, rows))
    return x.select(rows) if isinstance(x, Lazy) else x[rows]


def concat(parts: Sequence[Any]) -> Any:
    """The parts' rows one after the other; one stream of tensors gives a tensor."""
    import torch

    first = parts[0]
    if isinstance(first, Streams):
        return Streams({name: concat([part[name] for part in parts]) for name in first.names})
    if any(isinstance(part, Lazy) for part in parts):
        return _concat_lazy(parts)
    return torch.cat(list(parts))


def in_batches(x: Rows, size: int) -> Iterator[Any]:
    """The rows in turn, ``size`` at a time; no rows are one empty batch."""
    for first in range(0, max(len(x), 1), size):
        yield x[first : first + size]


def row_shape(x: Rows) -> tuple[Any, ...]:
    """The shape of one row, or name and shape of each stream."""
    if isinstance(x, Streams):
        return tuple((name, tuple(column.shape[1:])) for name, column in x.items())
    return tuple(x.shape[1:])


def as_numpy(rows: Any) -> Any:
    """An index as NumPy takes it: a tensor's values, anything else as it is."""
    return rows.numpy() if hasattr(rows, "numpy") else rows


def _concat_lazy(parts: Sequence[Any]) -> Lazy:
    import torch

    ends = np.cumsum([len(part) for part in parts])

    def read(rows_N: Any) -> Any:
        part_N = np.searchsorted(ends, rows_N, side="right")
        out: Any = None
        for index, part in enumerate(parts):
            here = np.flatnonzero(part_N == index)
            if len(here) or out is None:
                starts = ends[index] - len(part)
                values = part[torch.from_numpy(rows_N[here] - starts)]
                out = values.new_empty(len(rows_N), *values.shape[1:]) if out is None else out
                out[torch.from_numpy(here)] = values
        return out

    return Lazy(read, np.arange(ends[-1]), tuple(parts[0].shape[1:]), parts[0].dtype)
