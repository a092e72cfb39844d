"""Archives: what is honest arrives whole, what is hostile leaves nothing."""

import bz2
import gzip
import io
import lzma
import os
import stat
import struct
import tarfile
import zipfile
from pathlib import Path

import py7zr
import pytest

from data_loaders import DataError
from data_loaders.sink import Limits, in_bytes
from data_loaders.unpack import archive_kind, unpack

FILES = {"load.csv": b"1;2\n" * 1000, "deep/er/clip 1.wav": os.urandom(5000), "empty.txt": b""}
ODD = {"__MACOSX/._load.csv": b"resource fork"}


def make_zip(path, files, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as opened:
        for name, data in files.items():
            opened.writestr(zipfile.ZipInfo(name) if name.endswith("/") else name, data)


def make_tar(path, files, mode="w"):
    with tarfile.open(path, mode) as opened:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            opened.addfile(member, io.BytesIO(data))


def make_7z(path, files):
    with py7zr.SevenZipFile(path, "w") as opened:
        for name, data in files.items():
            opened.writef(io.BytesIO(data), name)


MAKERS = {
    "zip": make_zip,
    "stored.zip": lambda path, files: make_zip(path, files, zipfile.ZIP_STORED),
    "tar": make_tar,
    "tar.gz": lambda path, files: make_tar(path, files, "w:gz"),
    "tar.bz2": lambda path, files: make_tar(path, files, "w:bz2"),
    "tar.xz": lambda path, files: make_tar(path, files, "w:xz"),
    "7z": make_7z,
}
HOSTILE = ["zip", "tar.gz", "7z"]


def make(tmp_path, kind, files):
    path = tmp_path / f"archive.{kind}"
    MAKERS[kind](path, files)
    return path


def tree(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def assert_refused(archive, tmp_path, match, **options):
    """Nothing arrives, what was there stays, and nothing is left beside."""
    target = tmp_path / "home" / "toy"
    target.mkdir(parents=True, exist_ok=True)
    (target / "kept.txt").write_text("mine")
    before = {path.name for path in tmp_path.iterdir()}
    with pytest.raises(DataError, match=match) as error:
        unpack(archive, target, **options)
    assert str(archive) in str(error.value)
    assert tree(tmp_path / "home") == {"toy/kept.txt": b"mine"}
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["toy"]
    assert {path.name for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("kind", MAKERS)
def test_every_kind_arrives_whole_without_the_forks_of_a_mac(tmp_path, kind):
    archive, seen = make(tmp_path, kind, FILES | ODD), []
    names = unpack(
        archive, tmp_path / "home" / "toy", progress=lambda done, total: seen.append((done, total))
    )
    assert tree(tmp_path / "home" / "toy") == FILES
    assert names == tuple(sorted(FILES))
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["toy"]
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1]


@pytest.mark.parametrize("kind", HOSTILE)
def test_only_members_asked_for_arrive_and_none_is_an_error(tmp_path, kind):
    archive = make(tmp_path, kind, FILES)
    assert unpack(archive, tmp_path / "toy", members=("*.csv", "deep/*")) == (
        "deep/er/clip 1.wav",
        "load.csv",
    )
    assert set(tree(tmp_path / "toy")) == {"deep/er/clip 1.wav", "load.csv"}
    assert_refused(archive, tmp_path, r"holds no file that matches \*\.parquet", members=("*.parquet",))


def test_what_is_there_already_stays_and_the_same_name_is_replaced(tmp_path):
    target = tmp_path / "toy"
    for name in ("deep/old.txt", "load.csv", "empty.txt/was a folder"):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_text("old")
    unpack(make(tmp_path, "zip", FILES), target)
    assert tree(target) == FILES | {"deep/old.txt": b"old"}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("../evil.txt", "points outside"),
        ("a/../../evil.txt", "points outside"),
        ("..\\evil.txt", "points outside"),
        ("/evil.txt", "absolute path"),
        ("C:/evil.txt", "absolute path"),
        ("\\\\host\\evil.txt", "absolute path"),
        ("bell\a.txt", "control characters"),
        ("prepared/abc/manifest.json", "kept for persofl's own"),
        ("Manifest.json", "kept for persofl's own"),
    ],
)
def test_a_name_that_leads_elsewhere_is_refused(tmp_path, kind, name, why):
    archive = tmp_path / f"archive.{kind}"
    if kind == "7z":  # py7zr writes no such name, so an honest one of the same length is overwritten
        stand_in = "x" * len(name)
        with py7zr.SevenZipFile(archive, "w") as opened:
            opened.header.files_info  # noqa: B018
            opened.writef(io.BytesIO(b"good"), "good.txt")
            opened.writef(io.BytesIO(b"evil"), stand_in)
            opened.header.files_info.files[-1]["filename"] = name
    else:
        MAKERS[kind](archive, {"good.txt": b"good", name: b"evil"})
    reserved = frozenset({"prepared", "manifest.json"})
    assert_refused(archive, tmp_path, why, reserved=reserved)
    assert not list(Path("/").glob("evil.txt"))


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize(
    "names",
    [
        ("a.txt", "A.TXT"),
        ("a.txt", "./a.txt"),
        ("a", "a/b"),
        ("a/b", "a"),
        ("caf\u00e9", "cafe\u0301"),
        ("b//c", "b/c"),
    ],
)
def test_names_that_collide_are_refused(tmp_path, kind, names):
    archive = tmp_path / f"archive.{kind}"
    MAKERS[kind](archive, dict.fromkeys(names, b"data"))
    assert_refused(archive, tmp_path, "collides with another")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_one_name_twice_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "twice.zip", "w") as opened:
        opened.writestr("a.txt", "1")
        opened.writestr("a.txt", "2")
    assert_refused(tmp_path / "twice.zip", tmp_path, "collides with another")


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (tarfile.SYMTYPE, "is a link"),
        (tarfile.LNKTYPE, "is a link"),
        (tarfile.CHRTYPE, "is a device"),
        (tarfile.FIFOTYPE, "is a device"),
    ],
)
def test_links_and_devices_in_a_tar_are_refused(tmp_path, kind, why):
    member = tarfile.TarInfo("inside")
    member.type, member.linkname = kind, "/etc/passwd"
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as opened:
        opened.addfile(tarfile.TarInfo("good"))
        opened.addfile(member)
    assert_refused(tmp_path / "a.tar.gz", tmp_path, why)


@pytest.mark.parametrize(("mode", "why"), [(stat.S_IFLNK, "is a link"), (stat.S_IFIFO, "is a device")])
def test_links_and_devices_in_a_zip_are_refused(tmp_path, mode, why):
    info = zipfile.ZipInfo("inside")
    info.external_attr = (mode | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as opened:
        opened.writestr(info, "/etc/passwd")
    assert_refused(tmp_path / "a.zip", tmp_path, why)


def test_links_in_a_7z_are_refused(tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "file").write_text("1")
    (tmp_path / "raw" / "inside").symlink_to("file")
    with py7zr.SevenZipFile(tmp_path / "a.7z", "w") as opened:
        opened.writeall(tmp_path / "raw", "raw")
    assert_refused(tmp_path / "a.7z", tmp_path, "is a link")


TIGHT = Limits(members=5, bytes=10_000_000, ratio=10, free=10_000)


@pytest.mark.parametrize("kind", HOSTILE)
def test_an_archive_that_blows_up_is_stopped(tmp_path, kind):
    archive = make(tmp_path, kind, {"zeros": bytes(5_000_000)})
    assert_refused(archive, tmp_path, r"unpack to more than [\d.]+ kB", limits=TIGHT)


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_is_large_and_honest_or_small_and_dense_is_not(tmp_path, kind):
    for data in (os.urandom(200_000), bytes(9_000)):
        unpack(make(tmp_path, kind, {"data": data}), tmp_path / "toy", limits=TIGHT)
        assert (tmp_path / "toy" / "data").read_bytes() == data


@pytest.mark.parametrize("kind", HOSTILE)
def test_too_many_members_are_refused(tmp_path, kind):
    archive = make(tmp_path, kind, {str(number): b"1" for number in range(6)})
    assert_refused(archive, tmp_path, "more than 5 members", limits=TIGHT)


def test_a_zip_that_lies_about_its_size_is_caught_while_it_is_written(tmp_path):
    """Declared 10 bytes, packed 5 MB of zeros: the reader stops at what was declared, and the checksum is wrong."""
    archive = make(tmp_path, "zip", {"zeros": bytes(5_000_000)})
    data = archive.read_bytes()
    archive.write_bytes(data.replace(struct.pack("<L", 5_000_000), struct.pack("<L", 10)))
    assert_refused(archive, tmp_path, "damaged or cut off", limits=TIGHT)


def test_bytes_are_counted_as_they_are_written_whatever_was_declared(tmp_path):
    from data_loaders.sink import Sink

    archive = make(tmp_path, "zip", {"a": b"1"})
    sink = Sink(archive, tmp_path, (), frozenset(), TIGHT, None)
    where = sink.place("zeros", "file", 1)
    with pytest.raises(DataError, match="unpack to more than"):
        sink.copy(io.BytesIO(bytes(2_000_000)), where)


def test_a_bomb_in_a_tars_headers_is_refused_before_it_fills_the_memory(tmp_path):
    with gzip.open(tmp_path / "a.tar.gz", "wb") as file:
        header = tarfile.TarInfo("note")
        header.type, header.size = tarfile.XHDTYPE, 2 << 20
        file.write(header.tobuf(tarfile.USTAR_FORMAT) + b"9 a=" + bytes(2 << 20))
    assert_refused(tmp_path / "a.tar.gz", tmp_path, "a header of 2097152 bytes")


def test_zeros_after_the_end_of_a_tar_are_counted_too(tmp_path):
    archive = make(tmp_path, "tar", {"a": b"1"})
    packed = tmp_path / "a.tar.gz"
    packed.write_bytes(gzip.compress(archive.read_bytes() + bytes(3_000_000)))
    assert_refused(packed, tmp_path, "unpacks to more than", limits=TIGHT)


@pytest.mark.parametrize("kind", MAKERS)
def test_an_archive_cut_off_is_refused(tmp_path, kind):
    archive = make(tmp_path, kind, {"load.csv": os.urandom(300_000)})
    os.truncate(archive, 150_000)
    assert_refused(archive, tmp_path, "damaged or cut off.*Delete it")


@pytest.mark.parametrize("kind", ["zip", "stored.zip", "tar.gz", "tar.bz2", "tar.xz", "7z"])
def test_a_flipped_bit_is_noticed(tmp_path, kind):
    archive = make(tmp_path, kind, {"load.csv": os.urandom(300_000)})
    data = bytearray(archive.read_bytes())
    data[150_000] ^= 1
    archive.write_bytes(data)
    assert_refused(archive, tmp_path, "damaged or cut off")


def test_deflate64_names_a_tool_that_reads_it(tmp_path):
    archive = make(tmp_path, "zip", {"LCL.csv": b"1" * 100})
    data = bytearray(archive.read_bytes())
    central = data.index(b"PK\x01\x02")
    data[8:10] = data[central + 10 : central + 12] = struct.pack("<H", 9)
    archive.write_bytes(data)
    assert_refused(
        archive, tmp_path, "deflate64, which Python cannot read.*7z x 'archive.zip'.*persofl data prepare"
    )


def test_an_encrypted_archive_is_refused(tmp_path):
    archive = make(tmp_path, "zip", {"a": b"1"})
    data = bytearray(archive.read_bytes())
    central = data.index(b"PK\x01\x02")
    data[6] |= 1
    data[central + 8] |= 1
    archive.write_bytes(data)
    assert_refused(archive, tmp_path, "is encrypted")
    with py7zr.SevenZipFile(tmp_path / "locked.7z", "w", password="secret") as opened:
        opened.writef(io.BytesIO(b"1"), "a")
    assert_refused(tmp_path / "locked.7z", tmp_path, "is encrypted")


def test_an_empty_archive_is_refused(tmp_path):
    for kind in ("zip", "tar.gz"):
        assert_refused(make(tmp_path, kind, {}), tmp_path, "holds no file|damaged or cut off")
    assert_refused(make(tmp_path, "zip", ODD), tmp_path, "holds no file")


# a time in the gzip header would give two test workers two names for one test
GZIPPED = gzip.compress(b"no tar", mtime=0)


@pytest.mark.parametrize("data", [b"", b"<html>Not found</html>", b"PK", GZIPPED])
def test_what_is_no_archive_is_said_to_be_none(tmp_path, data):
    path = tmp_path / "page.zip"
    path.write_bytes(data)
    assert_refused(path, tmp_path, "is no zip, tar or 7z archive|damaged or cut off")


def test_a_disk_too_small_is_told_before_anything_is_written(tmp_path, monkeypatch):
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("data_loaders.sink.shutil.disk_usage", lambda path: usage(0, 0, 4_000))
    for kind in ("zip", "7z"):
        assert_refused(make(tmp_path, kind, FILES), tmp_path, "needs 9.0 kB unpacked, and .* has 4.0 kB free")


def test_what_a_killed_process_left_beside_is_removed_a_day_later(tmp_path):
    old, new = tmp_path / ".toy-unpack-old", tmp_path / ".toy-unpack-new"
    old.mkdir()
    new.mkdir()
    os.utime(old, (0, 0))
    unpack(make(tmp_path, "zip", FILES), tmp_path / "toy")
    assert (old.exists(), new.exists()) == (False, True)


def test_kinds_are_told_by_the_first_bytes_not_by_the_name(tmp_path):
    for kind in MAKERS:
        archive = make(tmp_path, kind, FILES).rename(tmp_path / "download")
        assert archive_kind(archive) == {"stored.zip": "zip"}.get(kind, kind[:3])
    for data in (bz2.compress(b"x"), lzma.compress(b"x")):
        (tmp_path / "x").write_bytes(data)
        assert archive_kind(tmp_path / "x") == "tar"


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (2.6e8, "260.0 MB"),
        (7e9, "7.0 GB"),
        (8e12, "8000.0 GB"),
    ],
)
def test_sizes_in_words(size, words):
    assert in_bytes(size) == words
