"""Reader of Office-Caltech10: pictures of ten kinds of objects from four places."""

from collections.abc import Iterator

import numpy as np

from graft.data.domain import DomainData
from graft.data.public.archives import Originals
from graft.data.public.recordings import Tally, describe
from graft.data.stream_columns import decode_picture
from graft.errors import DatasetFormatError, DomainValueError

SIZE = 224
DESCRIPTION = describe("office")


def read_office(originals: Originals, tally: Tally) -> Iterator[DomainData]:
    """One domain a place: "amazon", "caltech10", "dslr" and "webcam"; a sample is a picture.

    A picture is its own group, and a domain's rows are ordered by the picture's name and then by
    class, so that every class occurs early and late. A picture that does not decode is skipped
    and counted. Raises DatasetFormatError for no picture, or a class that is not as published.
    """
    pattern = r"(?P<domain>amazon|caltech10|dslr|webcam)/(?P<class>[\w-]+)/(?P<file>[^/]+\.jpe?g)"
    files: dict[str, list[tuple[str, str]]] = {}
    for name, match in originals.matching(pattern):
        files.setdefault(match["domain"], []).append((match["class"], name))
    if not files:
        raise DatasetFormatError(
            f"{originals.label}: got no <domain>/<class>/<file>.jpg, wanted pictures"
        )
    classes = DESCRIPTION.task.classes
    for domain_id, pictures in sorted(files.items()):
        unknown = sorted({label for label, _ in pictures} - {*classes})
        if unknown:
            raise DatasetFormatError(
                f"{originals.label}: got the class {unknown[0]!r}, wanted {list(classes)}"
            )
        # A name's digits differ between classes: the place in a class is what interleaves them.
        place: dict[str, int] = {}
        ordered = []
        for label, name in pictures:
            place[label] = place.get(label, 0) + 1
            ordered.append((place[label], label, name))
        decoded, labels = [], []
        for _, label, name in sorted(ordered):
            tally.add_recording(rows=1)
            try:
                decoded.append(decode_picture(name, originals.read(name), (3, SIZE, SIZE)))
            except DomainValueError:
                tally.add_skipped(name, 1)
                continue
            labels.append(classes.index(label))
        yield tally.of_rows(domain_id, np.stack(decoded), labels)
