"""A folder or zip of class folders -> training/<class>/ and testing/<class>/: stratified, seeded, checked."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tfinpaint.config_transforms import Transform
from tfinpaint.data.decode import Reading, UnreadableImageError, read_image
from tfinpaint.data.digits import write_digits
from tfinpaint.data.sources import path_hash
from tfinpaint.data.tree import is_hidden, is_image, walk_files
from tfinpaint.errors import UserError

_CHECK = Reading((Transform(resize=[32, 32]),))  # small, so that JPEG files are decoded fast
DIGITS = "digits"  # the name of the data set that needs no download
MAX_FILE_BYTES = 256 * 2**20  # a single image larger than this, unpacked, is not read

ZIP_ENCRYPTED = 0x1  # bit of a member's general purpose flags (APPNOTE.TXT, section 4.4.4)

ReadFile = Callable[[str], bytes]


@dataclass(frozen=True)
class Report:
    """What `prepare` did.

    Attributes:
        counts: class -> (images in training/, images in testing/).
        stray: files passed over because they are not images.
        bad: (path in the source, reason) of each image that could not be decoded; they are left out.
    """

    dest: Path
    counts: dict[str, tuple[int, int]]
    stray: tuple[str, ...]
    bad: tuple[tuple[str, str], ...]

    def lines(self) -> list[str]:
        training, testing = (sum(pair[i] for pair in self.counts.values()) for i in (0, 1))
        lines = [f"Unreadable, left out: {path}: {reason}" for path, reason in self.bad]
        lines += [f"{name:>16}  {train:6} training  {test:5} testing" for name, (train, test) in self.counts.items()]
        passed = f", {len(self.stray)} other files passed over" if self.stray else ""
        return [
            *lines,
            f"{self.dest}: {training} training and {testing} testing images in {len(self.counts)} classes"
            f"{passed}, {len(self.bad)} unreadable",
        ]


def prepare(source: Path, dest: Path, *, test_fraction: float = 0.1, seed: int = 0) -> Report:
    """Copy the images of `source` into `dest/training/<class>/` and `dest/testing/<class>/`, files as they are.

    The split takes the same share of every class. It depends on the seed and the contents of the files alone, and
    copies of one file within a class end up on the same side. `dest` appears complete or not at all.

    Args:
        source: a folder or zip file with one folder per class, at any depth; or "digits" for scikit-learn's bundled
            handwritten digits.
        test_fraction: share of each class for testing/, between 0 and 1; at least one image.

    Raises:
        UserError: no such source, no class folders, a class with fewer than two images, `dest` is in use, or it
            cannot be written.
    """
    if not 0 < test_fraction < 1:
        raise UserError(f"--test-fraction {test_fraction}: expected a share between 0 and 1, such as 0.1")
    if dest.exists() and (not dest.is_dir() or any(dest.iterdir())):
        raise UserError(f"{dest}: already exists; remove it or name another folder")
    dest = dest.resolve()
    if source.is_dir() and dest.is_relative_to(source.resolve()):
        raise UserError(f"{dest}: lies inside {source}; name a folder elsewhere")
    partial = dest.with_name(f".{dest.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        if str(source) == DIGITS and not source.exists():
            source = write_digits(partial / DIGITS)
        with _open_source(source) as (names, read):
            _refuse_empty_classes(source)
            report = _split(source, names, read, partial, test_fraction, seed)
        shutil.rmtree(partial / DIGITS, ignore_errors=True)
        if dest.exists():
            dest.rmdir()
        partial.rename(dest)
    except OSError as error:
        raise UserError(f"{dest}: cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Report(dest, *report)


@contextmanager
def _open_source(source: Path) -> Iterator[tuple[list[str], ReadFile]]:
    """(POSIX names of all files in the source, function that reads one)."""
    if source.is_dir():

        def read_file(name: str) -> bytes:
            _check_size((source / name).stat().st_size)
            return (source / name).read_bytes()

        yield list(walk_files(source)), read_file
    elif zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            members = {PurePosixPath(info.filename).as_posix(): info for info in archive.infolist()}
            members = {name: info for name, info in members.items() if not info.is_dir()}
            if any(info.flag_bits & ZIP_ENCRYPTED for info in members.values()):
                raise UserError(f"{source}: the archive is encrypted; unpack it and give the folder")

            def read_member(name: str) -> bytes:
                _check_size(members[name].file_size)
                return archive.read(members[name])

            yield list(members), read_member
    elif source.exists():
        raise UserError(f"{source}: expected a folder or a zip file of class folders")
    else:
        raise UserError(f"{source}: no such folder or zip file")


def _refuse_empty_classes(source: Path) -> None:
    """A folder without any file beside folders with files is a class that lost its images."""
    if not source.is_dir():
        return
    for folder, subfolders, files in os.walk(source):
        if not files and not subfolders and not is_hidden(os.path.basename(folder)):  # noqa: PTH119
            raise UserError(f"{folder}: class folder without images; fill it or remove it")


def _check_size(size: int) -> None:
    if size > MAX_FILE_BYTES:
        raise UnreadableImageError(f"{size} bytes, more than {MAX_FILE_BYTES}")


def _split(
    source: Path, names: Sequence[str], read: ReadFile, dest: Path, test_fraction: float, seed: int
) -> tuple[dict[str, tuple[int, int]], tuple[str, ...], tuple[tuple[str, str], ...]]:
    paths = sorted(PurePosixPath(name) for name in names)
    paths = [path for path in paths if not any(is_hidden(part) for part in path.parts)]
    images = [path for path in paths if is_image(path.name)]
    root = _class_root(source, images)
    members = [path for path in images if path.parent.parent == root and len(path.parts) == len(root.parts) + 2]
    digests, bad = _check(members, read)
    by_class: dict[str, list[PurePosixPath]] = {path.parent.name: [] for path in members}
    for path in digests:
        by_class[path.parent.name].append(path)
    if len(by_class) < 2:
        raise UserError(f"{source}: found one class only ({', '.join(by_class)}); a classifier needs at least two")
    counts = {}
    for name, files in sorted(by_class.items()):
        tests = _sort_for_split(files, digests, test_fraction, seed)
        if tests is None:
            lines = [f"{path}: {reason}" for path, reason in bad if PurePosixPath(path).parent.name == name]
            problem = f"{source}: class {name} has {len(files)} readable image(s); a split needs 2 different ones"
            raise UserError("\n".join([problem, *lines]))
        for side, chosen in (("testing", files[:tests]), ("training", files[tests:])):
            folder = dest / side / name
            folder.mkdir(parents=True)
            for path in chosen:
                (folder / path.name).write_bytes(read(str(path)))
        counts[name] = (len(files) - tests, tests)
    used = set(members)
    return counts, tuple(str(path) for path in paths if path not in used), bad


def _sort_for_split(
    files: list[PurePosixPath], digests: dict[PurePosixPath, str], test_fraction: float, seed: int
) -> int | None:
    """Put a class's files into random order; the first so many, which is returned, are for testing.

    Copies of one file stand together, and the boundary never falls between them. None where nothing can be split.
    """
    files.sort(key=lambda path: (path_hash(seed, digests[path]), path.name))
    wanted = max(1, round(test_fraction * len(files)))
    boundaries = [i for i in range(1, len(files)) if digests[files[i]] != digests[files[i - 1]]]
    return min(boundaries, key=lambda i: abs(i - wanted), default=None)


def _class_root(source: Path, images: Sequence[PurePosixPath]) -> PurePosixPath:
    """The folder whose subfolders are the classes. The same data twice in a source (Kaggle's archive) is taken once."""
    below: dict[PurePosixPath, set[tuple[str, str]]] = defaultdict(set)
    for path in images:
        if len(path.parts) >= 2:
            below[path.parent.parent].add((path.parent.name, path.name))
    if not below:
        raise UserError(f"{source}: no class folders with images; expected {source.name}/<class>/<image>")
    # An image beside class folders makes their parent look like a class: that is no root but a stray image.
    below = {root: found for root, found in below.items() if not all(root / name in below for name, _ in found)}
    roots = sorted(below, key=lambda root: (len(root.parts), root))
    if any(below[root] != below[roots[0]] for root in roots[1:]):
        found = ", ".join(str(root) for root in roots[:5])
        raise UserError(f"{source}: class folders at several places ({found}); give one of them as SOURCE")
    return roots[0]


def _check(
    paths: Sequence[PurePosixPath], read: ReadFile
) -> tuple[dict[PurePosixPath, str], tuple[tuple[str, str], ...]]:
    """Decode every file once: (digest of each good file's contents, (path, reason) of each bad one)."""

    def check(path: PurePosixPath) -> tuple[str, str]:
        try:
            contents = read(str(path))
            read_image(io.BytesIO(contents), _CHECK)
        except (UnreadableImageError, OSError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
            return "", str(error)
        return hashlib.sha256(contents).hexdigest(), ""

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        results = dict(zip(paths, pool.map(check, paths), strict=True))
    good = {path: digest for path, (digest, _) in results.items() if digest}
    return good, tuple((str(path), reason) for path, (digest, reason) in results.items() if not digest)
