"""A model on a device's disk: received there and, if it is large, joined and read there too."""

from contextlib import ExitStack

from graft.core.records import FloatArray, ModelCard, Phase
from graft.errors import PayloadChangedError
from graft.wire.payload.encoding import Shapes, decode_payload
from graft.wire.payload.parts import decode_base, join_parts
from graft.wire.payload.parts_file import PartFile, join_files, read_base
from graft.wire.payload.payload_file import check_payload, fits_in_memory, map_values
from graft.wire.payload.regions import open_work
from graft.wire.transfer.cache import FolderCache
from graft.wire.transfer.download import PROGRESSIVE, Downloads, announced_bytes, comes_whole
from graft.wire.transfer.link import Part


class ModelFiles:
    """One reading of one model; ``used_before``: whether some of it lay in the folder before.

    ``base`` and ``exact`` give the architecture's name and the parameters, and raise as
    ``WeightTransport.fetch``.
    """

    def __init__(
        self, card: ModelCard, shapes: Shapes, cache: FolderCache, downloads: Downloads
    ) -> None:
        self._card = card
        self._shapes = shapes
        self._cache = cache
        self._downloads = downloads
        self.used_before = False

    def base(self) -> tuple[str, dict[str, FloatArray]]:
        """The approximation."""
        with ExitStack() as files:
            base = self._part("base", "probe", files)
            if fits_in_memory(self._shapes):
                return decode_base(base.content(), self._shapes)
            sink = files.enter_context(open_work(self._cache.folder))
            return read_base(base, sink, self._cache.folder, self._shapes)

    def exact(self) -> tuple[str, dict[str, FloatArray]]:
        """The model itself, by whichever way costs fewer bytes from here."""
        name, folder = self._card.model_id, self._cache.folder
        with ExitStack() as files:
            if comes_whole(self._card, lambda part: self._cache.holds(name, part)):
                whole = self._part("exact", "ship", files)
                if fits_in_memory(self._shapes):
                    return decode_payload(whole.content(), self._shapes, name)
                file = whole.file
                facts = check_payload(file, whole.num_bytes, self._shapes)
            else:
                base, residual = (self._part(part, "ship", files) for part in PROGRESSIVE)
                if fits_in_memory(self._shapes):
                    payload = join_parts(base.content(), residual.content(), self._shapes)
                    return decode_payload(payload, self._shapes, name)
                file = files.enter_context(open_work(folder))
                facts = join_files(base, residual, file, folder, self._shapes)
            if facts.model_id != name:
                raise PayloadChangedError(f"payload hashes to {facts.model_id}, wanted {name}")
            return facts.architecture, map_values(file, facts.shapes, facts.data_at)

    def _part(self, part: Part, phase: Phase, files: ExitStack) -> PartFile:
        """One part, from the folder or over the link, of exactly the announced length."""
        announced = announced_bytes(self._card, part)
        held = self._cache.open(self._card.model_id, part)
        if held is not None:
            files.enter_context(held.file)
            if held.num_bytes == announced:
                self.used_before = True
                self._downloads.write_cached(phase, part)
                return held
        partial = self._cache.partial(self._card.model_id, part, announced)
        self.used_before |= partial.num_bytes > 0
        try:
            self._downloads.bring(self._card, part, phase, partial)
            kept = partial.keep()
        finally:
            partial.close()
        files.enter_context(kept.file)
        return kept
