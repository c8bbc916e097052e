"""Find a hub repository's files in the Hugging Face cache, and download those that are missing."""

import logging
from pathlib import Path

from hftool.errors import HftoolError
from hftool.models.adapters import CONFIG as ADAPTER_CONFIG
from hftool.models.adapters import WEIGHTS as ADAPTER_WEIGHTS
from hftool.models.hub_cache import Need, cached_folder, missing_files
from hftool.models.hub_download import check_responses, download_files
from hftool.models.hub_errors import not_cached, raise_for
from hftool.models.references import HubModel
from hftool.options.model import SourceOptions

log = logging.getLogger("hftool")


TOKENIZER_FILES = (
    "config.json",
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "generation_config.json",
    "additional_chat_templates/*.jinja",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tekken.json",
    "tiktoken.model",
    "*.tiktoken",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "bpe.codes",
)
MODEL_FILES = (*TOKENIZER_FILES, "*.safetensors", "model.safetensors.index.json")
REMOTE_CODE_FILES = ("*.py", "pytorch_model*.bin", "pytorch_model.bin.index.json")


def download_if_missing(model: HubModel, need: Need, options: SourceOptions) -> Path:
    """Return the folder with a repository's files; download them unless all of them are cached.

    For a model that is complete in the Hugging Face cache, no request is made.

    Raises:
        HftoolError: the repository does not exist, is gated, or has not the files; the hub can't be
            reached; or files are missing and `options.offline` is set.
    """
    folder = cached_folder(model)
    if folder is not None and not missing_files(folder, need, options.trust_remote_code):
        return folder
    if options.offline:
        raise not_cached(model, folder)
    return download(model, need, options)


def download(model: HubModel, need: Need, options: SourceOptions) -> Path:
    """Download a repository's files, except those that are in the cache in their newest version.

    Raises: as `download_if_missing`.
    """
    from huggingface_hub import HfApi, constants

    patterns = MODEL_FILES if need == "model" else TOKENIZER_FILES
    if options.trust_remote_code:
        patterns = (*patterns, *REMOTE_CODE_FILES)
    log.info("downloading %s from the hub", model.repo)
    check_responses()
    try:
        # snapshot_download makes the same request, but without a timeout, and hides the response.
        HfApi(token=options.hub_token).model_info(
            model.repo, revision=model.revision, timeout=constants.HF_HUB_ETAG_TIMEOUT
        )
        folder = download_files(model, patterns, options)
    except Exception as error:
        raise_for(error, model)
    if missing := missing_files(folder, need, options.trust_remote_code):
        raise HftoolError(
            f"{model.repo} has no {missing[0]}",
            "its weights may be pickled: --trust-remote-code allows those"
            if missing == ["model.safetensors"] and not options.trust_remote_code
            else None,
        )
    return folder
