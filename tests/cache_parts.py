"""Parts put into any cache, and taken out, through the port."""

from graft.wire.transfer.cache import PartCache
from graft.wire.transfer.link import Part


def put_part(cache: PartCache, model_id: str, part: Part, data: bytes) -> None:
    """Receive a part whole."""
    partial = cache.start_download(model_id, part, len(data))
    try:
        partial.append(data[partial.num_bytes :])
        partial.keep().file.close()
    finally:
        partial.close()


def get_part(cache: PartCache, model_id: str, part: Part) -> bytes | None:
    """The bytes of a cached part; None where it is not cached."""
    cached = cache.open(model_id, part)
    if cached is None:
        return None
    with cached.file as file:
        return file.read(cached.num_bytes)
