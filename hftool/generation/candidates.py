"""What the next token can be, and the steps that choose one: records.

This module imports nothing heavy.
"""

from dataclasses import dataclass, field

from hftool.generation.records import OPTIONAL


@dataclass(frozen=True, slots=True)
class Candidate:
    """A candidate for the token after `position` (0 is the prompt's first token).

    `prob` is its probability and `logprob` the natural logarithm of that; `cumulative` is the
    total probability of this token and all that rank above it; `entropy`, in bits, is that of the
    whole distribution; `sampled_prob` and `sampled_entropy` are those after the sampling filters,
    if there are any. A masked model's candidate is one for the token at `position`, where the text
    has its `mask` (0 is the first); `model` is given when there are several models, `index` when
    there are several texts. With candidates at all positions, `after` is the text's token at
    `position`.

    A continuation of several tokens has no rank and no id; its `prob` is the product of theirs.
    `target` is its text, in its own record and in those of its tokens.
    """

    position: int
    rank: int | None
    id: int | None
    token: str
    prob: float
    logprob: float
    cumulative: float | None
    entropy: float | None
    sampled_prob: float | None = field(default=None, metadata=OPTIONAL)
    sampled_entropy: float | None = field(default=None, metadata=OPTIONAL)
    target: str | None = field(default=None, metadata=OPTIONAL)
    mask: int | None = field(default=None, metadata=OPTIONAL)
    after: str | None = field(default=None, metadata=OPTIONAL)
    model: str | None = field(default=None, metadata=OPTIONAL)
    index: int | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True)
class StepCandidate:
    """A token that a step can choose.

    `prob` is the model's own probability; an endpoint tells this alone, and no id. `after` has the
    probability after each filter in turn; it is None from the filter on that removed the token,
    which `removed_by` names. `sampled_prob` is the probability after all filters.
    `sampled_cumulative` is the sum of `sampled_prob` from the most probable token down to this one;
    the drawn number is compared with it. It is None for a removed token, and when greedy.
    """

    rank: int | None
    id: int | None
    token: str
    prob: float
    after: dict[str, float | None]
    sampled_prob: float | None
    sampled_cumulative: float | None
    removed_by: str | None


@dataclass(frozen=True)
class StepCandidates:
    """What a step can choose from: the best candidates, the number of tokens that the filters
    `kept`, and the `entropy` (bits) of the model's distribution; `sampled_entropy` is that after
    the filters. `text` is the continuation before the step. `allowed` is the number of tokens that
    a constraint allows: one is forced."""

    step: int
    entropy: float
    sampled_entropy: float
    kept: int
    text: str
    candidates: tuple[StepCandidate, ...]
    allowed: int | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True)
class Step:
    """A step, which adds one token to the text.

    `prob` is the model's own probability of the token, `rank` its rank by that, and `entropy`
    (bits) the entropy of the model's distribution. `sampled_prob` and `sampled_entropy` are those
    after the filters, which left `kept` tokens. `drawn` is the random number, uniform in [0, 1),
    that chose the token: at least `sampled_cumulative` minus `sampled_prob`, and less than
    `sampled_cumulative`. It is None when greedy, or when the user `picked` the token. `text` is
    the continuation of the prompt so far. `candidates` are the best ones, then the chosen one if it
    ranks below them. `allowed` is the number of tokens that a constraint allows: one is forced.
    XTC acts if `xtc_drawn`, the random number of the step for that, is less than its probability.

    An endpoint draws by itself, and shows the best tokens only: what depends on the others or on
    the filters is None, and so is the rank of a token that is not among the best. `unseen` is the
    probability of all the others there.
    """

    step: int
    id: int | None
    token: str
    prob: float
    sampled_prob: float | None
    sampled_cumulative: float | None
    rank: int | None
    entropy: float | None
    sampled_entropy: float | None
    kept: int | None
    drawn: float | None
    text: str
    candidates: tuple[StepCandidate, ...]
    picked: bool | None = field(default=None, metadata=OPTIONAL)
    allowed: int | None = field(default=None, metadata=OPTIONAL)
    xtc_drawn: float | None = field(default=None, metadata=OPTIONAL)
    unseen: float | None = field(default=None, metadata=OPTIONAL)
