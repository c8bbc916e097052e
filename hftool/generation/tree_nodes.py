"""The records of a tree of continuations."""

from dataclasses import dataclass, field
from typing import Literal

from hftool.generation.records import OPTIONAL


@dataclass(frozen=True, slots=True)
class TreeNode:
    """A token of a tree of continuations, or the tokens that the tree leaves out after a path.

    `path` has the ids from the prompt to this token, of which there are `depth`, and `text` is what
    they add to the prompt. `prob` is the model's probability of the token after those before it,
    and `path_prob` that of the whole path; `sampled_prob` and `sampled_path_prob` are those after
    the sampling filters, if there are any. `ended` tells whether the path ends here before its
    maximum length: with a token that ends texts, or with the text to end with.

    The last record after a path is about all tokens that were left out there: their number is
    `left_out`, they have no id, and `path` is the one that they follow. The probabilities after a
    path sum to 1.
    """

    depth: int
    path: tuple[int, ...]
    id: int | None
    token: str | None
    text: str | None
    prob: float
    path_prob: float
    ended: bool | None
    left_out: int | None = field(default=None, metadata=OPTIONAL)
    sampled_prob: float | None = field(default=None, metadata=OPTIONAL)
    sampled_path_prob: float | None = field(default=None, metadata=OPTIONAL)

    @property
    def kind(self) -> Literal["node"]:
        """Distinguishes nodes from the texts at the end."""
        return "node"

    @property
    def weight(self) -> float:
        """The probability that the path is drawn: after the filters, if there are any."""
        return self.path_prob if self.sampled_path_prob is None else self.sampled_path_prob


@dataclass(frozen=True, slots=True)
class TreeText:
    """A text that ends with the text to end with, and the number of `paths` that begin with it.

    `prob` is the sum of their probabilities, which differ in their tokens, or in what follows in
    the last one. `sampled_prob` is that after the sampling filters, if there are any.
    """

    text: str
    paths: int
    prob: float
    sampled_prob: float | None = field(default=None, metadata=OPTIONAL)

    @property
    def kind(self) -> Literal["text"]:
        """Distinguishes texts from the nodes before them."""
        return "text"

    @property
    def weight(self) -> float:
        """The probability that the text is drawn: after the filters, if there are any."""
        return self.prob if self.sampled_prob is None else self.sampled_prob
