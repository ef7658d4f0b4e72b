"""Pictures as domain folders: decoded as a person sees them, every file accounted for."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from graft.data.check import explain_folder
from graft.data.folder import FolderWorld
from graft.data.importers.images import import_images
from graft.data.importers.labelled import Destination, ImportReport
from graft.data.importers.table import RowColumns
from graft.data.stream_columns import decode_picture
from graft.errors import ConfigError, DataError, DatasetFormatError, DomainEmptyError

RED, BLUE = (255, 0, 0), (0, 0, 255)


def write_picture(
    path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (12, 8)
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def write_tree(folder: Path, pictures: int = 3) -> Path:
    for domain in ("shop a", "garden"):
        for label, colour in (("mug", RED), ("bike", BLUE)):
            for number in range(pictures):
                write_picture(folder / domain / label / f"{number}.png", (*colour[:2], number + 1))
    return folder


def convert(source: Path, out: Path, *, size: int = 8, **options: object) -> ImportReport:
    share = options.pop("max_unreadable", 0.02)
    to = Destination(out=out, name="things", licence="mine", max_unreadable=share)  # type: ignore
    return import_images(source, to, size=size, **options)  # type: ignore[arg-type]


def test_a_tree_becomes_domains_classes_and_pictures(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "pictures")
    calls: list[tuple[str, int, int]] = []
    report = convert(source, tmp_path / "out", progress=lambda *call: calls.append(call))
    world = FolderWorld(tmp_path / "out")
    assert (list(world.domain_ids), world.task.classes) == (["garden", "shop-a"], ("bike", "mug"))
    data = world.load("shop-a")
    assert (data.x.shape, data.x.dtype) == ((6, 3, 8, 8), np.dtype(np.uint8))
    assert data.x[:, :, 4, 4].tolist() == [*([0, 0, n] for n in (1, 2, 3)),
                                           *([255, 0, n] for n in (1, 2, 3))]  # fmt: skip
    assert data.y_N.tolist() == [0, 0, 0, 1, 1, 1]
    assert (report.rows_read, report.rows_kept, report.skipped) == (12, 12, ())
    assert calls[-1] == ("pictures", 11, 12)
    # The same 6 pictures are in both domains.
    assert len(report.remarks) == 1
    assert report.remarks[0].startswith("6 samples are in two domains")
    assert not any(finding.is_problem for finding in explain_folder(tmp_path / "out"))


def test_pictures_are_upright_rgb_and_cut_about_their_centre(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "pictures")
    # Left red, right blue, and turned by its camera's note: the top is red.
    turned = Image.new("RGB", (64, 32), RED)
    turned.paste(BLUE, (32, 0, 64, 32))
    exif = Image.Exif()
    exif[274] = 6
    turned.save(source / "garden" / "bike" / "turned.jpg", exif=exif, quality=95)
    Image.new("L", (16, 16), 77).save(source / "garden" / "bike" / "grey.png")
    Image.new("P", (16, 16)).save(source / "garden" / "bike" / "palette.gif")
    convert(source, tmp_path / "out", size=16)
    x = FolderWorld(tmp_path / "out").load("garden").x
    grey, palette, top = x[3], x[4], x[5]  # digits before letters
    assert np.ptp(grey) == 0
    assert grey[0, 0, 0] == 77
    assert palette.shape == (3, 16, 16)
    assert top[0, 1].min() > 200
    assert top[0, -2].max() < 60
    assert top[2, 1].max() < 60
    assert top[2, -2].min() > 200
    files = list((tmp_path / "out").rglob("*.png"))
    assert files
    assert not any(Image.open(path).getexif() for path in files)


def test_every_file_is_accounted_for_by_a_reason(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "pictures", pictures=30)
    (source / "garden" / "bike" / "torn.png").write_bytes(
        (source / "garden" / "bike" / "1.png").read_bytes()[:40]
    )
    (source / "garden" / "bike" / "Thumbs.db").write_bytes(b"x")
    write_picture(source / "garden" / "lost.png", RED)
    write_picture(source / "alone" / "mug" / "1.png", RED)
    report = convert(source, tmp_path / "out")
    assert report.rows_read == report.rows_kept + 4 == 124
    assert [words.partition(", first")[0] for words in report.skipped] == [
        "1 row: its domain has fewer than two classes",
        "1 row: not a picture by its suffix (.db)",
        "1 row: not in a folder domain/class",
        "1 row: picture does not decode",
    ]
    assert "torn.png" in report.skipped[3]
    assert not (tmp_path / "out" / "domains" / "alone").exists()
    with pytest.raises(DatasetFormatError, match=r"got 1 of 124 rows.*torn\.png"):
        convert(source, tmp_path / "strict", max_unreadable=0.0)
    assert not (tmp_path / "strict").exists()


def test_a_folder_below_the_class_and_equal_pictures_are_groups(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "pictures")
    for number in range(2):
        write_picture(source / "garden" / "mug" / "session 1" / f"{number}.png", (9, 9, number))
    write_picture(source / "garden" / "mug" / "again.png", (*RED[:2], 1))
    report = convert(source, tmp_path / "out")
    data = FolderWorld(tmp_path / "out").load("garden")
    assert sorted(np.unique(data.group_N, return_counts=True)[1].tolist()) == [1, 1, 1, 1, 1, 2, 2]
    assert "1 rows repeat another of their domain" in report.remarks


def test_a_table_names_pictures_beside_it(tmp_path: Path) -> None:
    write_tree(tmp_path / "pictures")
    rows = ["file,site,kind,visit"]
    for domain in ("shop a", "garden"):
        for label in ("mug", "bike"):
            rows += [
                f"pictures/{domain}/{label}/{n}.png,{domain},{label},{n // 2}" for n in range(3)
            ]
    rows += ["pictures/gone.png,garden,mug,1", rows[1], "pictures/x.png,,mug,1", "a,b"]
    table = tmp_path / "list.csv"
    table.write_text("\n".join(rows))
    columns = RowColumns(domain="site", label="kind", group="visit")
    report = convert(table, tmp_path / "out", path_column="file", columns=columns,
                     max_unreadable=0.2)  # fmt: skip
    assert (report.rows_read, report.rows_kept, report.domains) == (16, 12, 2)
    assert len(report.skipped) == 4
    assert FolderWorld(tmp_path / "out").load("garden").group_N.tolist() == [0, 0, 1, 0, 0, 1]
    with pytest.raises(DatasetFormatError, match="wanted 'domain' once among them"):
        convert(table, tmp_path / "other")


def test_what_cannot_be_is_refused_and_nothing_is_touched(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "pictures")
    before = sorted(tmp_path.rglob("*"))
    for out in (source, source / "out", tmp_path):
        with pytest.raises(DataError, match="wanted one apart from it"):
            convert(source, out)
    with pytest.raises(ConfigError, match="size: got 0"):
        convert(source, tmp_path / "out", size=0)
    with pytest.raises(ConfigError, match="max-unreadable: got 1"):
        convert(source, tmp_path / "out", max_unreadable=1.0)
    with pytest.raises(DatasetFormatError, match="no such table"):
        convert(tmp_path / "nothing", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetFormatError, match="got no picture"):
        convert(tmp_path / "empty", tmp_path / "out")
    (tmp_path / "empty").rmdir()
    (source / "shop-a").mkdir()
    write_picture(source / "shop-a" / "mug" / "1.png", RED)
    with pytest.raises(DatasetFormatError, match="which both become 'shop-a'"):
        convert(source, tmp_path / "out")
    for path in (source / "shop-a" / "mug" / "1.png", source / "shop-a" / "mug", source / "shop-a"):
        path.unlink() if path.is_file() else path.rmdir()
    one = write_tree(tmp_path / "one") / "garden"
    os.rename(one / "mug", tmp_path / "elsewhere")
    with pytest.raises(DomainEmptyError, match="no domain of two classes"):
        convert(_only(tmp_path / "one", "garden"), tmp_path / "out")
    assert [path for path in sorted(tmp_path.rglob("*")) if path in before] == before
    assert not (tmp_path / "out").exists()


def _only(folder: Path, domain: str) -> Path:
    for path in list(folder.iterdir()):
        if path.name != domain:
            os.rename(path, folder.parent / f"aside-{path.name}")
    return folder


def test_an_occupied_folder_is_left_alone_and_equal_sources_give_equal_bytes(
    tmp_path: Path,
) -> None:
    source = write_tree(tmp_path / "pictures")
    for name in ("a", "b"):
        convert(source, tmp_path / name)
    with pytest.raises(DataError, match="already holds something"):
        convert(source, tmp_path / "a")
    files = [path for path in (tmp_path / "a").rglob("*") if path.is_file()]
    assert len(files) == 15
    for path in files:
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()


def test_a_picture_of_16_bits_keeps_its_greys() -> None:
    packed = io.BytesIO()
    Image.fromarray(np.full((4, 4), 32_896, np.uint16)).save(packed, "PNG")
    picture = decode_picture("p", packed.getvalue(), (3, 4, 4))
    assert set(picture.ravel().tolist()) == {128}
