"""The special and added tokens of a model's files, read as transformers reads them.

They can be in tokenizer.json, in tokenizer_config.json (by role, in `added_tokens_decoder`, in
`extra_special_tokens` or `additional_special_tokens`), in special_tokens_map.json and in
added_tokens.json. The order of precedence is that of `PreTrainedTokenizerBase._from_pretrained` and
`TokenizersBackend.__init__` (transformers 5.23): if tokenizer_config.json has
`added_tokens_decoder`, the two other files are ignored; otherwise special_tokens_map.json wins.
"""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from hftool.errors import HftoolError
from hftool.json_files import read_json

log = logging.getLogger("hftool")

ROLES = (
    *("bos_token", "eos_token", "unk_token", "sep_token"),
    *("pad_token", "cls_token", "mask_token"),
)
Token = str | AddedToken


class AddedTokens:
    """The tokens that a model's files add to its vocabulary, or declare special.

    Attributes:
        roles: the special tokens by role, including the model's own roles such as `image_token`.
        extra: special tokens without a role.
        listed: the added tokens that the files give an id, by id.

    Raises:
        TypeError, ValueError, AttributeError: a token is not written as one.
        HftoolError: a token of added_tokens.json has no number.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], backend: Tokenizer) -> None:
        settings = dict(config)
        if settings.get("additional_special_tokens") and not settings.get("extra_special_tokens"):
            settings["extra_special_tokens"] = settings["additional_special_tokens"]
        self.listed: dict[int, AddedToken] = {}
        if config.get("added_tokens_decoder") is not None:
            for token_id, token in config["added_tokens_decoder"].items():
                self.listed[int(token_id)] = _as_token(token)
        else:
            settings.update(_special_tokens_map(folder, settings))
            # Not those that tokenizer_config.json has with their flags: transformers converts them
            # only later.
            extra = _values(settings.get("extra_special_tokens"))
            special = {str(token) for token in (*(settings.get(r) for r in ROLES), *extra)}
            for text, token_id in read_json(folder / "added_tokens.json").items():
                if not isinstance(token_id, int):
                    raise HftoolError(
                        f"cannot read {folder / 'added_tokens.json'}: the id of {text} is no number"
                    )
                known = text in special
                self.listed[token_id] = AddedToken(text, special=known, normalized=not known)
            self.listed |= backend.get_added_tokens_decoder()
        by_text: dict[str, Token] = {t.content: t for t in self.listed.values()}
        own = settings.get("extra_special_tokens")
        models_own = {role: token for role, token in config.items() if role not in ROLES}
        named = {**settings, **models_own, **(own if isinstance(own, dict) else {})}
        others = [role for role in named if role.endswith("_token") and role not in ROLES]
        self.roles: dict[str, Token] = {}
        for role in (*ROLES, *others):
            if (named_token := _as_written(named.get(role))) is not None:
                flagged = by_text.get(text_of(named_token), named_token)
                self.roles[role] = flagged if role in ROLES else named_token
        listed = [] if isinstance(own, dict) else _values(own)
        self.extra = [token for t in listed if (token := _as_written(t)) is not None]

    @property
    def texts(self) -> dict[str, str]:
        """The special tokens' texts by role."""
        return {role: text_of(token) for role, token in self.roles.items()}

    def add_to(self, backend: Tokenizer, name: str) -> None:
        """Add the tokens to a tokenizer, with their flags.

        A token that is not in the vocabulary gets the next free id, whatever id the files give it:
        then this logs a warning. `name` is the model's name for that.
        """
        tokens: list[Token] = [token for _, token in sorted(self.listed.items())]
        present = {token.content for token in backend.get_added_tokens_decoder().values()}
        present |= {token.content for token in self.listed.values()}
        for token in (*self.roles.values(), *self.extra):
            if text_of(token) not in present and token not in tokens:
                tokens.append(token)
        by_role = set(self.texts.values())
        ready = []
        for token in tokens:
            added = AddedToken(token, special=True) if isinstance(token, str) else token
            if added.content in by_role:
                added.special = True
            ready.append(added)
        backend.add_tokens(ready)
        for token_id, listed in self.listed.items():
            if (got := backend.token_to_id(listed.content)) != token_id:
                log.warning(
                    "%s: its files give %s the id %d, which is past the vocabulary or is that of"
                    " another token; the id is %s, as in transformers",
                    *(name, listed.content, token_id, got),
                )


def _special_tokens_map(folder: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return special_tokens_map.json; its `extra_special_tokens` are added to those in settings."""
    found = read_json(folder / "special_tokens_map.json")
    tokens = {
        role: _as_token({**value, "special": True}) if "content" in value else value
        for role, value in found.items()
        if isinstance(value, dict)
    }
    found = {**found, **tokens}
    if not settings.get("extra_special_tokens") and found.get("additional_special_tokens"):
        found.setdefault("extra_special_tokens", found["additional_special_tokens"])
    elif isinstance(found.get("extra_special_tokens"), list):
        known = list(_values(settings.get("extra_special_tokens")))
        more = [t for t in found["extra_special_tokens"] if t not in known]
        found["extra_special_tokens"] = [*known, *more]
    return found


def _values(tokens: Any) -> Iterable[Any]:
    return tokens.values() if isinstance(tokens, dict) else tokens or ()


def _as_written(token: Any) -> Token | None:
    if isinstance(token, dict) and "content" in token:
        return _as_token(token)
    return token if isinstance(token, str | AddedToken) else None


def _as_token(token: Any) -> AddedToken:
    if isinstance(token, AddedToken):
        return token
    flags = {key: value for key, value in token.items() if key not in ("__type", "id")}
    return AddedToken(**flags)


def text_of(token: Any) -> str:
    """Return the text of a token that is written as text or with its flags."""
    if isinstance(token, AddedToken):
        return token.content
    return str(token["content"]) if isinstance(token, dict) else str(token)
