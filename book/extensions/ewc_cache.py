"""The cache of executed pages: a folder for each state of what pages depend on, and in it only what can be read.

Why: jupyter-cache knows a page by the source of its cells alone. Change `code/ewc`, the papers' records, the locked packages, the
data or the device, and pages would keep their old numbers. And it writes that it has a page before it has written the page: a
full disk or a killed build leaves what no later build can read.
"""

import hashlib
import shutil
from pathlib import Path

from ewc.workshop.records import meaning
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from jupyter_cache.cache.db import NbCacheRecord

KEPT = 5   # cache folders of other states: with data, without, and a few to go back to


class State:
    """The files that pages depend on, as they were when the build began, and a digest of them and of `facts`."""

    def __init__(self, project: Path, facts: str):
        self.project, self.digest = project, hashlib.sha256(facts.encode())
        self.dates = self.dates_now()   # before the contents: what is saved in between is then noticed
        for file in self.dates:
            self.digest.update(b"\0%s\0" % file.relative_to(project).as_posix().encode() + content(file))

    def dates_now(self):
        """A file that was changed and changed back has other dates than before."""
        files = [*sorted(self.project.glob("code/**/*.py")), *sorted(self.project.glob("book/records/*/*.json"))]
        return {file: (file.stat().st_mtime_ns, file.stat().st_ctime_ns) for file in [*files, self.project / "requirements.txt"]}

    def changed(self) -> list[str]:
        """The files that were saved, added or removed since the build began."""
        now = self.dates_now()
        return sorted(str(file.relative_to(self.project)) for file in now.keys() | self.dates if now.get(file) != self.dates.get(file))

    def folder(self) -> Path:
        """The cache folder of this state; the oldest of the others are removed."""
        folder = self.project / "_build" / "executed" / self.digest.hexdigest()[:16]
        if not (folder / "__version__.txt").exists():   # killed while it was made
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        folder.touch()                                    # its date says when it was last used
        others = sorted((each for each in folder.parent.iterdir() if each != folder), key=lambda each: each.stat().st_mtime)
        for old in others[:-KEPT]:
            shutil.rmtree(old)
        return folder


def content(file: Path) -> bytes:
    """What a page can depend on of a file: of code what it does, and not its comments and docstrings."""
    if file.suffix == ".py":
        try:
            return meaning(file.read_text("utf8")).encode()
        except SyntaxError:      # the page that imports it says where
            pass
    return file.read_bytes()


def opened(folder):
    """The cache in this folder, empty where its list of pages cannot be read."""
    cache = get_cache(folder)
    try:
        cache.list_cache_records()
        return cache
    except Exception:   # a damaged database fails in many ways
        shutil.rmtree(folder)
        return get_cache(folder)


def has(cache, page) -> bool:
    """Whether the page can be read from the cache; what is there and cannot be read is removed."""
    try:
        record = cache.match_cache_notebook(page)
    except KeyError:
        return False
    try:
        cache.get_cache_bundle(record.pk)
        return True
    except Exception:   # cut off, empty, gone: each fails in its own way
        NbCacheRecord.remove_records([record.pk], cache.db)
        return False


def keep(cache, page, path, seconds):
    """Write an executed page. A folder that an earlier try left in its place would stop it."""
    _, key = cache.create_hashed_notebook(page)
    shutil.rmtree(cache.path / "executed" / key, ignore_errors=True)
    cache.cache_notebook_bundle(CacheBundleIn(page, path, data={"execution_seconds": seconds}), check_validity=False, overwrite=True)
