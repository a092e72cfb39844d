"""Readers of zip, tar and 7z: each shows every member to a sink and writes what the sink gives a place."""

import bz2
import gzip
import lzma
import stat
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal

from .errors import DataError
from .sink import Sink, in_bytes

Kind = Literal["zip", "tar", "7z"]
_CHUNK = 1 << 20
_LONGEST_NOTE = 1 << 20  # bytes of a tar's long names and extended headers, which tarfile reads whole
_OPENERS: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
_MAGIC: tuple[tuple[bytes, Kind], ...] = (
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"7z\xbc\xaf", "7z"),
)
_DEFLATE64 = 9


def archive_kind(path: Path) -> Kind | None:
    """Return how a file is packed, by its first bytes; None where it is no archive."""
    with open(path, "rb") as file:
        head = file.read(512)
    found = next((kind for magic, kind in _MAGIC if head.startswith(magic)), None)
    if found or not (head[257:262] == b"ustar" or any(head.startswith(magic) for magic in _OPENERS)):
        return found
    return "tar"


def _unzip(archive: Path, sink: Sink) -> None:
    with zipfile.ZipFile(archive) as opened:
        places = [
            (info, sink.place(info.filename, _zip_kind(info), info.file_size)) for info in opened.infolist()
        ]
        wanted = [(info, where) for info, where in places if where]
        for info, _ in wanted:
            _check_readable(archive, info)
        sink.ready()
        for info, where in wanted:
            with opened.open(info) as source:
                sink.copy(source, where)


def _zip_kind(info: zipfile.ZipInfo) -> str:
    return "folder" if info.is_dir() else _kind_of_mode(info.external_attr >> 16)


def _kind_of_mode(mode: int) -> str:
    kinds = {0: "file", stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "link"}
    return kinds.get(stat.S_IFMT(mode), "device")


def _check_readable(archive: Path, info: zipfile.ZipInfo) -> None:
    if info.flag_bits & 1:
        raise DataError(
            f"{archive}: member {info.filename!r} is encrypted. Unpack it by hand, with the password."
        )
    known = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    if info.compress_type not in known:
        method = "deflate64" if info.compress_type == _DEFLATE64 else f"method {info.compress_type}"
        raise DataError(
            f"{archive}: member {info.filename!r} is compressed with {method}, which Python cannot read. Unpack it "
            f"with 7-Zip (7z x '{archive.name}' -oFOLDER) and run `persofl data prepare NAME --from FOLDER`."
        )


class _Short(tarfile.TarInfo):
    """A member whose long names and extended headers, which are read into memory, are short."""

    def _proc_member(self, opened: tarfile.TarFile) -> Any:
        notes = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME)
        if self.type in (*notes, tarfile.GNUTYPE_LONGLINK) and self.size > _LONGEST_NOTE:
            raise tarfile.ReadError(f"a header of {self.size} bytes")
        return super()._proc_member(opened)  # type: ignore[misc]


def _untar(archive: Path, sink: Sink) -> None:
    with ExitStack() as stack:
        packed = stack.enter_context(open(archive, "rb"))
        head = packed.read(6)
        packed.seek(0)
        opener = next((opener for magic, opener in _OPENERS.items() if head.startswith(magic)), None)
        stream = _Counted(stack.enter_context(opener(packed)) if opener else packed, packed, sink)
        opened = stack.enter_context(tarfile.open(fileobj=stream, mode="r|", tarinfo=_Short))  # type: ignore[call-overload]
        while member := opened.next():
            opened.members.clear()  # tarfile keeps all it has seen; a hundred thousand clips are many
            where = sink.place(member.name, _tar_kind(member), member.size)
            if where:
                sink.copy(opened.extractfile(member), where)
        while stream.read(_CHUNK):  # to the end, where the checksum is
            pass


def _tar_kind(member: tarfile.TarInfo) -> str:
    if member.isdir() or member.isfile():
        return "folder" if member.isdir() else "file"
    return "link" if member.issym() or member.islnk() else "device"


class _Counted:
    """An unpacked stream that ends when there is more of it than an honest archive has."""

    def __init__(self, stream: IO[bytes], packed: IO[bytes], sink: Sink) -> None:
        self.stream, self.packed, self.sink, self.done = stream, packed, sink, 0
        # how much there will be is not known before the end, so progress is that of reading
        self.progress, sink.progress = sink.progress, None
        self.headers = 4096 * sink.limits.members
        self.size = sink.archive.stat().st_size

    def read(self, size: int) -> bytes:
        data = self.stream.read(size)
        self.done += len(data)
        if self.done > self.sink.most + self.headers:
            raise self.sink.refusal(f"it unpacks to more than {in_bytes(self.sink.most)}")
        if self.progress:
            self.progress(self.packed.tell(), self.size)
        return data


def _un7z(archive: Path, sink: Sink) -> None:
    try:
        import py7zr
    except ImportError as error:
        raise DataError(
            f"{archive} is a 7z archive, for which py7zr is needed: pip install 'persofl[ved]'."
        ) from error
    # given an open file, py7zr reads in one thread, so that an error in a writer ends it
    with open(archive, "rb") as file, py7zr.SevenZipFile(file) as opened:
        if opened.needs_password():
            raise DataError(f"{archive} is encrypted. Unpack it by hand, with the password.")
        placed = [
            (item, sink.place(item.filename, _7z_kind(item), item.uncompressed)) for item in opened.list()
        ]
        wanted = {item.filename: where for item, where in placed if where}
        sink.ready()
        opened.extract(targets=list(wanted), factory=_writers(wanted, sink))


def _writers(places: Mapping[str, Path], sink: Sink) -> Any:
    """Return the factory of files that py7zr writes to, each counting its bytes."""
    from py7zr.io import Py7zIO, WriterFactory

    class Writer(Py7zIO):
        def __init__(self, path: Path) -> None:
            self.file = open(path, "xb")  # noqa: SIM115

        def write(self, data: bytes | bytearray) -> int:
            sink.count(len(data))
            return self.file.write(data)

        def read(self, size: int | None = None) -> bytes:
            return b""

        def seek(self, offset: int, whence: int = 0) -> int:
            return 0

        def flush(self) -> None:
            self.file.flush()

        def size(self) -> int:
            return self.file.tell()

        def close(self) -> None:
            self.file.close()

    class Writers(WriterFactory):
        def create(self, filename: str) -> Writer:
            return Writer(named[_posix(filename)])

    named = {_posix(name): path for name, path in places.items()}
    return Writers()


def _posix(name: str) -> str:
    return PurePosixPath(name.replace("\\", "/")).as_posix()


def _7z_kind(member: Any) -> str:
    if member.is_directory or member.is_file:
        return "folder" if member.is_directory else "file"
    return "link" if member.is_symlink else "device"


READERS: dict[Kind, Callable[[Path, Sink], None]] = {"zip": _unzip, "tar": _untar, "7z": _un7z}
