"""The continuations of a prompt as a tree, with the probability of each."""

import heapq
import logging
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import replace
from itertools import count

import torch

from hftool.generation.drawing import sampled_probs
from hftool.generation.filters import build_filters
from hftool.generation.generate import new_token_limit
from hftool.generation.prefix_cache import CachedModel
from hftool.generation.resolution import resolve_sampling
from hftool.generation.sampling import Filter, apply_filters
from hftool.generation.tree_nodes import TreeNode, TreeText
from hftool.models.language_model import LanguageModel
from hftool.options.sampling import SamplingOptions
from hftool.options.tree import TreeOptions
from hftool.tokenization.incremental_decoder import IncrementalDecoder
from hftool.tokenization.tokenizer import Tokenizer

log = logging.getLogger("hftool")

MOST_EXPANDED = 2_000  # nodes, each of which the model computes, in search of the paths to cover
AHEAD = 4_096  # nodes, at most, that are computed before the first one is shown
TOGETHER = 16  # nodes, at most, that are computed in one pass
LIKELY = 0.25  # of the probability of the node to go on with
ROUNDING = 1e-9  # of a sum of probabilities


Children = Callable[[Sequence[TreeNode | None]], list[list[TreeNode]]]
"""Returns the nodes after each of some nodes, or after the prompt (None); the last one is about
what is left out."""


def tree_records(
    language_model: LanguageModel,
    ids: Sequence[int],
    options: TreeOptions,
    sampling: SamplingOptions | None = None,
) -> Iterator[TreeNode | TreeText]:
    """Yield the nodes of the tree of a prompt's continuations, each before those that follow it,
    the most probable one first; then with `until` the texts that end with it.

    Args:
        ids: those of the prompt.
        sampling: the options of the filters; None for the model's own probabilities.

    Raises:
        HftoolError: the prompt is longer than the context, or the model fails.
    """
    tree = _Tree(language_model, ids, options, sampling)
    if options.cover is None:
        children = _by_level(tree, AHEAD // options.branch)
    else:
        children = _covering(tree, options.cover)
    texts: dict[str, TreeText] = {}
    for node in _walk(tree, children):
        yield node
        if options.until and node.text and options.until in node.text:
            _add_text(texts, node, options.until)
    yield from sorted(texts.values(), key=lambda text: -text.weight)


class _Tree:
    """Computes the nodes that follow a node. The tokens that two paths begin with are computed
    once: they stay in the key-value cache.

    Attributes:
        depth: the maximum number of tokens per path, as far as the context has room for them.
        vocabulary: the number of tokens that can follow.
    """

    def __init__(
        self,
        language_model: LanguageModel,
        ids: Sequence[int],
        options: TreeOptions,
        sampling: SamplingOptions | None,
    ) -> None:
        self._prompt, source = language_model.split_prompt(ids)
        self._language_model = language_model.reading(source)
        self._cached_model = CachedModel(self._language_model, rewinds=True)
        self._options = options
        self._settings = None
        self._filters: list[Filter] = []
        if sampling is not None:
            self._settings = resolve_sampling(sampling, language_model.generation_config)
            self._filters = build_filters(self._settings, self._language_model, self._prompt)
        self.depth = new_token_limit(self._language_model, self._prompt, options.depth)
        if self.depth < options.depth:
            log.warning("the paths have %d tokens: the context is full", self.depth)

    def goes_on(self, node: TreeNode) -> bool:
        """Return whether others follow a node."""
        return node.left_out is None and not node.ended and node.depth < self.depth

    def children(self, parents: Sequence[TreeNode | None]) -> list[list[TreeNode]]:
        """Return the most probable nodes after each node, or after the prompt, and what is left
        out.

        Raises:
            HftoolError: as `CachedModel.next_logits`.
        """
        texts = [[*self._prompt, *(parent.path if parent else ())] for parent in parents]
        shared = _common_length([text[:-1] for text in texts])
        branches = [text[shared:] for text in texts]
        logits = self._cached_model.branch_logits(texts[0][:shared], branches)
        each = zip(parents, texts, logits, strict=True)
        return [self._nodes_after(parent, ids, found[-1]) for parent, ids, found in each]

    def _nodes_after(
        self, parent: TreeNode | None, ids: Sequence[int], logits: torch.Tensor
    ) -> list[TreeNode]:
        """Return the nodes after a node by the logits [vocabulary] after `ids`, which end with
        it."""
        probs = torch.softmax(logits.cpu().double(), dim=-1)
        sampled = None
        if self._settings is not None:
            scores = apply_filters(logits, ids, self._filters)
            sampled = sampled_probs(scores.cpu(), self._settings)
        weights = probs if sampled is None else sampled
        ordered, order = weights.sort(descending=True, stable=True)
        best = order[: self._options.branch][ordered[: self._options.branch] > 0]
        nodes = [self._node(parent, int(i), probs, sampled) for i in best]
        return [*nodes, _left_out(parent, probs, sampled, best)]

    def _node(
        self,
        parent: TreeNode | None,
        token_id: int,
        probs: torch.Tensor,
        sampled: torch.Tensor | None,
    ) -> TreeNode:
        """Return the node of a token, from the probabilities [vocabulary] before and after the
        filters."""
        tokenizer = self._language_model.tokenizer
        path = (*(parent.path if parent else ()), token_id)
        text = _text_after(tokenizer, self._prompt[-1], path)
        until = self._options.until
        node = TreeNode(
            depth=len(path),
            path=path,
            id=token_id,
            token=tokenizer.token_text(token_id),
            text=text,
            prob=float(probs[token_id]),
            path_prob=0.0,
            ended=token_id in self._language_model.end_ids or bool(until and until in text),
            sampled_prob=None if sampled is None else float(sampled[token_id]),
        )
        return _after(parent, node)


def _common_length(texts: Sequence[Sequence[int]]) -> int:
    """Return the number of tokens that all texts begin with."""
    columns = enumerate(zip(*texts, strict=False))
    return next((i for i, ids in columns if len({*ids}) > 1), min(map(len, texts)))


def _left_out(
    parent: TreeNode | None,
    probs: torch.Tensor,
    sampled: torch.Tensor | None,
    shown: torch.Tensor,
) -> TreeNode:
    """Return the record of the tokens that are not shown after a node, or after the prompt.

    Args:
        probs, sampled: the probabilities before and after the filters [vocabulary].
        shown: the ids that are shown.
    """
    path = parent.path if parent else ()
    node = TreeNode(
        *(len(path) + 1, path),
        *(None, None, None),
        prob=max(0.0, 1.0 - float(probs[shown].sum())),
        path_prob=0.0,
        ended=None,
        left_out=len(probs) - len(shown),
        sampled_prob=None if sampled is None else max(0.0, 1.0 - float(sampled[shown].sum())),
    )
    return _after(parent, node)


def _after(parent: TreeNode | None, node: TreeNode) -> TreeNode:
    """Return a node with the probabilities of its path."""
    path_prob = node.prob * (parent.path_prob if parent else 1.0)
    if node.sampled_prob is None:
        return replace(node, path_prob=path_prob)
    sampled = (parent.sampled_path_prob or 0.0) if parent else 1.0
    return replace(node, path_prob=path_prob, sampled_path_prob=node.sampled_prob * sampled)


def _text_after(tokenizer: Tokenizer, last: int, path: Sequence[int]) -> str:
    """Return the text that tokens add to a prompt, of which `last` is the last token: without one
    before it, some tokenizers drop the space that a token begins with."""
    before, whole = _decoded(tokenizer, [last]), _decoded(tokenizer, [last, *path])
    return whole[len(before) :] if whole.startswith(before) else _decoded(tokenizer, path)


def _decoded(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    stream = IncrementalDecoder(tokenizer, skip_special=False)
    return "".join(map(stream.step, ids)) + stream.end()


def _walk(tree: _Tree, children: Children) -> Iterator[TreeNode]:
    """Yield all nodes, each before those that follow it."""
    [first] = children([None])
    ahead = [_expanded(tree, first, children)]
    while ahead:
        found = next(ahead[-1], None)
        if found is None:
            ahead.pop()
            continue
        node, after = found
        yield node
        if after:
            ahead.append(_expanded(tree, after, children))


def _expanded(
    tree: _Tree, siblings: Sequence[TreeNode], children: Children
) -> Iterator[tuple[TreeNode, list[TreeNode]]]:
    """Yield nodes with those that follow each, computed for several nodes together."""
    for start in range(0, len(siblings), TOGETHER):
        some = siblings[start : start + TOGETHER]
        going = [node for node in some if tree.goes_on(node)]
        after = iter(children(going) if going else [])
        for node in some:
            yield node, next(after) if tree.goes_on(node) else []


def _by_level(tree: _Tree, most: int) -> Children:
    """Return the nodes after others, of which those after at most the first `most` are computed at
    once, level by level: together they take a fraction of the time."""
    [first] = tree.children([None])
    known: dict[tuple[int, ...], list[TreeNode]] = {(): first}
    going = [node for node in first if tree.goes_on(node)]
    while going and len(known) + len(going) <= most:
        for start in range(0, len(going), TOGETHER):
            some = going[start : start + TOGETHER]
            known |= zip((node.path for node in some), tree.children(some), strict=True)
        going = [n for node in going for n in known[node.path] if tree.goes_on(n)]

    def children(parents: Sequence[TreeNode | None]) -> list[list[TreeNode]]:
        paths = [parent.path if parent else () for parent in parents]
        if all(path in known for path in paths):
            return [known[path] for path in paths]
        return tree.children(parents)

    return children


def _covering(tree: _Tree, cover: float) -> Children:
    """Return the nodes of the most probable paths, as many as it takes until they add up to
    `cover`; what is not among them is left out.

    A path is never more probable than its beginning, so that a search that always goes on with the
    most probable node finds the most probable paths first.
    """
    [first] = tree.children([None])
    known: dict[tuple[int, ...], list[TreeNode]] = {(): first}
    kept: set[tuple[int, ...]] = set()
    numbers, covered, expanded = count(), 0.0, 1
    ahead = [(-node.weight, next(numbers), node) for node in first[:-1]]  # a heap: it is sorted
    while ahead and covered < cover - ROUNDING and expanded < MOST_EXPANDED:
        _, _, node = heapq.heappop(ahead)
        if not tree.goes_on(node):
            covered += node.weight
            kept.update(node.path[:end] for end in range(1, node.depth + 1))
            continue
        if node.path not in known:
            some = [node, *_next_likely(node, tree, ahead, known)]
            known |= zip((each.path for each in some), tree.children(some), strict=True)
        expanded += 1
        for child in known[node.path][:-1]:
            heapq.heappush(ahead, (-child.weight, next(numbers), child))
    if covered < cover - ROUNDING:
        hint = "a larger --branch" if not ahead else "a smaller --depth or --cover"
        log.warning("the paths add up to %.4f, not %g: try %s", covered, cover, hint)

    def children(parents: Sequence[TreeNode | None]) -> list[list[TreeNode]]:
        return [_without(known[parent.path if parent else ()], kept) for parent in parents]

    return children


def _next_likely(
    node: TreeNode,
    tree: _Tree,
    ahead: Sequence[tuple[float, int, TreeNode]],
    known: Container[tuple[int, ...]],
) -> list[TreeNode]:
    """Return the nodes that the search is likely to go on with after this one: to compute them
    together takes little longer than to compute it alone."""
    likely = (each for _, _, each in heapq.nsmallest(TOGETHER, ahead))
    return [
        each
        for each in likely
        if each.weight > node.weight * LIKELY and tree.goes_on(each) and each.path not in known
    ][: TOGETHER - 1]


def _without(nodes: Sequence[TreeNode], kept: Container[tuple[int, ...]]) -> list[TreeNode]:
    """Return those nodes after a path that are kept, and what is left out with the others."""
    *nodes, rest = nodes
    for node in nodes:
        if node.path not in kept:
            rest = _joined(rest, node)
    return [*(node for node in nodes if node.path in kept), rest]


def _joined(rest: TreeNode, node: TreeNode) -> TreeNode:
    """Return the record of what is left out, with a node that is left out as well."""
    joined = replace(
        rest,
        left_out=(rest.left_out or 0) + 1,
        prob=rest.prob + node.prob,
        path_prob=rest.path_prob + node.path_prob,
    )
    if rest.sampled_prob is None or rest.sampled_path_prob is None:
        return joined
    return replace(
        joined,
        sampled_prob=rest.sampled_prob + (node.sampled_prob or 0.0),
        sampled_path_prob=rest.sampled_path_prob + (node.sampled_path_prob or 0.0),
    )


def _add_text(texts: dict[str, TreeText], node: TreeNode, until: str) -> None:
    """Add a path to the text that it ends with."""
    text = (node.text or "").partition(until)[0] + until
    before = texts.get(text, TreeText(text, 0, 0.0))
    sampled = node.sampled_path_prob
    texts[text] = TreeText(
        text,
        before.paths + 1,
        before.prob + node.path_prob,
        None if sampled is None else (before.sampled_prob or 0.0) + sampled,
    )
