"""Reader of FDU-MTL: reviews of 14 kinds of products and of films from two places."""

from collections.abc import Iterator

from graft.data.domain import DomainData
from graft.data.public.archives import Originals
from graft.data.public.recordings import Tally
from graft.data.stream_columns import text_bytes
from graft.errors import DatasetFormatError

# Of a text's UTF-8 bytes; 0.8 % of the texts are longer and are cut.
MOST_BYTES = 4096
_LABELS = {b"0": 0, b"1": 1}


def read_fdu_mtl(originals: Originals, tally: Tally) -> Iterator[DomainData]:
    """One domain a kind of review, "books" to "video"; a sample is a text.

    The authors' train and test lines keep their sides; each line is its own group. The unlabelled
    lines are counted among the rows and are no samples: a target domain's unlabelled rows are
    those whose labels the split withholds. Lines that are not UTF-8, or without a label 0 or 1 and
    a text, are skipped and counted by file. Raises DatasetFormatError where no file or one of a
    domain's is missing.
    """
    pattern = r"(?P<domain>\w+)\.task\.(?P<part>train|test|unlabel)"
    files: dict[str, dict[str, str]] = {}
    for name, match in originals.matching(pattern):
        files.setdefault(match["domain"], {})[match["part"]] = name
    if not files:
        raise DatasetFormatError(f"{originals.label}: got no <domain>.task.train, wanted reviews")
    for domain_id, parts in sorted(files.items()):
        texts: list[str] = []
        labels: list[int] = []
        marks: list[int] = []
        for mark, part in enumerate(("train", "test")):
            if part not in parts:
                raise DatasetFormatError(
                    f"{originals.label}: got no file {domain_id}.task.{part}, wanted one"
                )
            for label, text in _read_lines(originals, parts[part], tally, labelled=True):
                texts.append(text)
                labels.append(label)
                marks.append(mark)
        if "unlabel" in parts:
            for _ in _read_lines(originals, parts["unlabel"], tally, labelled=False):
                pass
        yield tally.of_rows(
            domain_id, text_bytes(domain_id, texts, MOST_BYTES), labels, split=marks
        )


def _read_lines(
    originals: Originals, name: str, tally: Tally, *, labelled: bool
) -> Iterator[tuple[int, str]]:
    """Label (-1: none) and text of each sound line, counted; blank lines are none."""
    skipped = rows = 0
    for line in originals.read(name).split(b"\n"):
        label, tab, raw = line.partition(b"\t") if labelled else (b"", b"\t", line)
        if not line.strip():
            continue
        try:
            text = raw.decode("utf-8").strip()
        except UnicodeDecodeError:
            text = ""
        if not text or not tab or (labelled and label not in _LABELS):
            skipped += 1
            continue
        rows += 1
        yield _LABELS.get(label, -1), text
    tally.add_skipped(name, skipped)
    tally.add_recording(rows=rows)
