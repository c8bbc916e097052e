"""Find a hub repository's GGUF file in the Hugging Face cache, and download it if missing."""

import logging
import re
from collections.abc import Sequence
from pathlib import Path

from hftool.errors import HftoolError
from hftool.models.hub_cache import cached_folder
from hftool.models.hub_download import check_responses, download_files
from hftool.models.hub_errors import raise_for
from hftool.models.references import HubGguf, HubModel, first_part, gguf_parts
from hftool.options.model import SourceOptions

log = logging.getLogger("hftool")


def download_gguf_if_missing(source: HubGguf, options: SourceOptions) -> Path:
    """Return a GGUF file of a repository, of several files the first; download it unless it is
    cached.

    Raises: as `download_if_missing`.
    """
    if path := cached_gguf(source):
        return path
    if options.offline:
        raise HftoolError(
            f"{source.repo}:{source.which} is not in the local cache, and downloads are turned off",
            "without --offline and HF_HUB_OFFLINE, run: hftool models pull"
            f" {source.repo}:{source.which}",
        )
    return download_gguf(source, options)


def cached_gguf(source: HubGguf) -> Path | None:
    """Return a GGUF file in the Hugging Face cache, None if it is not complete there."""
    folder = cached_folder(_model(source))
    if folder is None:
        return None
    names = [str(path.relative_to(folder)) for path in folder.rglob("*.gguf")]
    found = _matching(names, source.which)
    if len(found) != 1 or not all(part.is_file() for part in gguf_parts(folder / found[0])):
        return None
    return folder / found[0]


def download_gguf(source: HubGguf, options: SourceOptions) -> Path:
    """Download a GGUF file of a repository, with all its parts, and return its path.

    Raises: as `download_if_missing`; or the repository has no such file, or several.
    """
    from huggingface_hub import HfApi, constants

    model = _model(source)
    check_responses()
    try:
        info = HfApi(token=options.hub_token).model_info(
            model.repo,
            revision=model.revision,
            timeout=constants.HF_HUB_ETAG_TIMEOUT,
            files_metadata=True,
        )
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
        first = _only_gguf(source, list(sizes))
        names = [str(part) for part in gguf_parts(Path(first))]
        gigabytes = sum(sizes.get(name, 0) for name in names) / 1e9
        log.info("downloading %s of %s from the hub (%.1f GB)", first, model.repo, gigabytes)
        folder = download_files(model, names, options)
    except HftoolError:
        raise
    except Exception as error:
        raise_for(error, model)
    return folder / first


def _model(source: HubGguf) -> HubModel:
    return HubModel(source.repo, source.revision)


def _matching(names: Sequence[str], which: str) -> list[str]:
    """Return the GGUF files, of several parts the first, with a name or a quantization."""
    quantization = re.compile(rf"(?:^|[-._/]){re.escape(which)}(?:[-./].*)?", re.IGNORECASE)
    models = [name for name in names if name.endswith(".gguf") and "mmproj" not in name.lower()]
    found = [n for n in models if which in (n, n.rpartition("/")[2])]
    found = found or [n for n in models if quantization.search(n.removesuffix(".gguf"))]
    return sorted({str(first_part(Path(name))) for name in found})


def _only_gguf(source: HubGguf, names: Sequence[str]) -> str:
    """Return the one GGUF file that a reference means.

    Raises:
        HftoolError: there is none, or several.
    """
    found = _matching(names, source.which)
    if len(found) == 1:
        return found[0]
    if found:
        raise HftoolError(
            f"{source.repo} has several GGUF files of {source.which}",
            "name one: " + ", ".join(f"{source.repo}:{name}" for name in found[:4]),
        )
    others = sorted({str(first_part(Path(n))) for n in names if n.endswith(".gguf")})
    raise HftoolError(
        f"{source.repo} has no GGUF file {source.which}",
        ("it has " + ", ".join(others[:8])) if others else "it has no GGUF file at all",
    )
