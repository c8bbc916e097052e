"""Inputs from where data is: data sets on the hub, and files on the web, kept for the next time.

A single file of texts is read as it arrives. What has to be there as a whole is downloaded first:
Parquet and workbooks, several files of one table, and what Ray's workers read.
"""

import hashlib
import io
import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from hftool import config
from hftool.atomic_files import atomic_file
from hftool.errors import HftoolError
from hftool.inputs.arriving import ArrivingFile, answer_with_file
from hftool.inputs.files import format_by_suffix
from hftool.inputs.streams import read_as_it_arrives
from hftool.models.hub_errors import raise_for
from hftool.models.references import HubModel
from hftool.options.inputs import FileOptions, TableInputOptions
from hftool.options.model import SourceOptions

log = logging.getLogger("hftool")

TIMEOUT = 30.0  # seconds without an answer
# A path has one of the slashes of a URL: Path("https://a/b") is "https:/a/b".
_DATASET = re.compile(r"hf:/+datasets/([\w.-]+/[\w.-]+)(?:@([^/]+))?(?:/(.*))?")
_WEB = re.compile(r"(https?):/+(.+)", re.DOTALL)
_PLACE = "as in hf://datasets/OWNER/NAME/train, or hf://datasets/OWNER/NAME@REV/data/a.csv"

TextOptions = TypeVar("TextOptions", bound=FileOptions)


@dataclass
class RemoteInputs:
    """Finds the files on this machine for what `--file` and `--batch` name elsewhere.

    Attributes:
        whole: whether files must be there as a whole.
        revisions: the commit of each data set, and what identifies the content of each file of the
            web, by what the user has named.
    """

    source: SourceOptions
    whole: bool = False
    revisions: dict[str, str] = field(default_factory=dict)

    def tables(self, options: TableInputOptions) -> TableInputOptions:
        """Return options with files of this machine. Raises: as `files`."""
        if not options.files:
            return options
        streamed = len(options.files) == 1 and options.input_format not in ("parquet", "xlsx")
        return replace(options, files=self.files(options.files, streamed=streamed))

    def texts(self, options: TextOptions) -> TextOptions:
        """Return options with a file of this machine. Raises: as `file`."""
        return replace(options, file=options.file and self.file(options.file))

    def settings(self) -> dict[str, Any]:
        """Return what a run's log says of the inputs: nothing if they were on this machine."""
        return {"the input": self.revisions} if self.revisions else {}

    def file(self, path: Path) -> Path:
        """Return the one file that a path names.

        Raises: as `files`; or it names several.
        """
        found = self.files([path], streamed=True)
        if len(found) > 1:
            raise HftoolError(f"{path} has {len(found)} files", "name one of them")
        return found[0]

    def files(self, paths: Sequence[Path], *, streamed: bool = False) -> list[Path]:
        """Return the files that paths name; download those that are elsewhere and not here yet.

        Args:
            streamed: whether a single file may be read as it arrives.

        Raises:
            HftoolError: there is no such thing, it can't be downloaded, or it is not here and
                downloads are turned off.
        """
        found: list[Path] = []
        for path in paths:
            if web := _WEB.fullmatch(str(path)):
                found.append(self._of_web(f"{web[1]}://{web[2]}", streamed=streamed))
            elif str(path).startswith("hf:/"):
                found += self._of_dataset(str(path), streamed=streamed)
            else:
                found.append(path)
        return found

    def _of_dataset(self, path: str, *, streamed: bool) -> list[Path]:
        match = _DATASET.fullmatch(path)
        if match is None:
            raise HftoolError(f"{path} names no data set of the hub", _PLACE)
        model = HubModel(match[1], unquote(match[2]) if match[2] else None)
        listing = self._listing(model)
        names = chosen(listing["files"], match[3] or "", model.repo)
        log.info("%s at %s: %d files", model.repo, listing["sha"][:12], len(names))
        self.revisions[path] = listing["sha"]
        if streamed and len(names) == 1 and self._may_stream(names[0]):
            return [self._of_hub(model, listing["sha"], names[0])]
        return [self._downloaded(model, listing["sha"], name) for name in names]

    def _may_stream(self, name: str) -> bool:
        """Return whether a file can be read from beginning to end, by its name."""
        file = Path(name)
        format_ = format_by_suffix(file)
        has_format = format_ != "lines" or ".txt" in file.suffixes
        return has_format and format_ not in ("parquet", "xlsx") and not self.whole

    def _of_hub(self, model: HubModel, commit: str, name: str) -> Path:
        """Return a file of a data set, which is read as it arrives if it is not here."""
        from huggingface_hub import get_token, hf_hub_url, try_to_load_from_cache

        known = try_to_load_from_cache(model.repo, name, repo_type="dataset", revision=commit)
        kept = _kept(name, model.repo, commit, name)
        if isinstance(known, str) or kept.is_file():
            return Path(known) if isinstance(known, str) else kept
        if self.source.offline:
            raise _not_here(f"{name} of {model.repo}")
        url = hf_hub_url(model.repo, name, repo_type="dataset", revision=commit)
        token, shown = self.source.hub_token or get_token(), f"{name} of {model.repo}"
        headers = {"Authorization": f"Bearer {token}"} if token else {}

        def opened() -> io.RawIOBase:
            if kept.is_file():  # it was read to its end since
                return io.FileIO(kept)
            try:
                return ArrivingFile(answer_with_file(url, shown, headers), shown, kept)
            except HftoolError:  # the hub's own client tells more about the cause
                return io.FileIO(self._downloaded(model, commit, name))

        read_as_it_arrives(kept, opened)
        return kept

    def _listing(self, model: HubModel) -> dict[str, Any]:
        """Return the commit of a revision and its files: as the hub has them now, or as they were
        when it was last asked."""
        kept = config.cache_path() / "datasets" / f"{_digest(model.repo, model.revision)}.json"
        if self.source.offline:
            if not kept.is_file():
                raise _not_here(model.repo)
            listing: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
            return listing
        from huggingface_hub import HfApi

        try:
            info = HfApi(token=self.source.hub_token).dataset_info(
                model.repo, revision=model.revision, timeout=TIMEOUT
            )
        except Exception as error:
            raise_for(error, model, "data set")
        files = [file.rfilename for file in info.siblings or []]
        listing = {"sha": info.sha, "files": [name for name in files if _is_plain(name)]}
        kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with atomic_file(kept) as file:
            json.dump(listing, file)
        return listing

    def _downloaded(self, model: HubModel, commit: str, name: str) -> Path:
        from huggingface_hub import hf_hub_download

        try:
            path = hf_hub_download(
                model.repo,
                name,
                repo_type="dataset",
                revision=commit,
                token=self.source.hub_token,
                local_files_only=self.source.offline,
            )
        except Exception as error:
            if self.source.offline:
                raise _not_here(f"{name} of {model.repo}") from None
            raise_for(error, model, "data set")
        return Path(path)

    def _of_web(self, url: str, *, streamed: bool) -> Path:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        kept = _kept(unquote(parts.path).rpartition("/")[2], url)
        shown = f"{parts.scheme}://{host}{parts.path}"
        mark = kept.with_name(".mark")
        known = mark.read_text(encoding="utf-8") if mark.is_file() and kept.is_file() else ""
        if self.source.offline:
            if not known:
                raise _not_here(shown)
            self.revisions[shown] = known
            return kept
        headers = {"If-None-Match": known} if known.startswith(('"', "W/")) else {}
        response = answer_with_file(url, shown, headers)
        if response.status_code == 304:
            self.revisions[shown] = known
            return kept
        first: list[Any] = [response]

        def opened() -> io.RawIOBase:
            if not first and kept.is_file():  # it was read to its end since
                return io.FileIO(kept)
            again = first.pop() if first else answer_with_file(url, shown, {})
            return ArrivingFile(again, shown, kept, mark)

        tag = response.headers.get("etag")
        if streamed and tag and self._may_stream(kept.name):
            self.revisions[shown] = tag
            read_as_it_arrives(kept, opened)
            return kept
        with opened() as file:
            while file.read(1 << 18):
                pass
        self.revisions[shown] = mark.read_text(encoding="utf-8")
        return kept


def chosen(files: Sequence[str], path: str, repo: str) -> list[str]:
    """Return the files of a data set that a path means: a file, a folder, or a split, whose name is
    a part of theirs.

    Raises:
        HftoolError: there are none, or the split is in several folders.
    """
    path = path.strip("/")
    tables = [name for name in files if format_by_suffix(Path(name)) != "lines" or ".txt" in name]
    if path in files:
        return [path]
    inside = sorted(name for name in tables if path and name.startswith(f"{path}/"))
    of_split = re.compile(rf"(?:.*[-._/ ])?{re.escape(path)}(?:[-._/ \d].*)?")
    found = inside or sorted(name for name in tables if path and of_split.fullmatch(name))
    if not found:
        listed = ", ".join(tables[:8]) or "no file that hftool reads"
        raise HftoolError(f"{repo} has no split, folder or file '{path}'", f"it has {listed}")
    folders = sorted({name.rpartition("/")[0] for name in found})
    if not inside and len(folders) > 1:
        raise HftoolError(
            f"'{path}' is in several folders of {repo}", f"name one: {', '.join(folders[:8])}"
        )
    return found


def _kept(name: str, *values: object) -> Path:
    """Return where the cache keeps a file of this name, which these values identify."""
    plain = re.sub(r"[^\w.-]", "_", name.rpartition("/")[2])[-80:].lstrip(".") or "data"
    return config.cache_path() / "inputs" / _digest(*values) / plain


def _digest(*values: object) -> str:
    return hashlib.sha256(repr(values).encode()).hexdigest()[:24]


def _is_plain(name: str) -> bool:
    """Return whether a name leads to a file inside of the repository."""
    return not name.startswith("/") and ".." not in name.split("/") and "\\" not in name


def _not_here(what: str) -> HftoolError:
    return HftoolError(
        f"{what} is not on this machine, and downloads are turned off",
        "run it once without --offline and HF_HUB_OFFLINE",
    )
