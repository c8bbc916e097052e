"""Options that control how the next token is chosen."""

import functools
from dataclasses import dataclass
from typing import Annotated

from hftool.options.shared import option

_sampling = functools.partial(option, panel="Sampling")


@dataclass(frozen=True)
class FilterOptions:
    """Options that change the probabilities; None leaves one to the model's generation_config."""

    temperature: Annotated[
        float | None,
        _sampling(
            "--temperature",
            "--temp",
            metavar="T",
            min=0,
            help="Divide the logits by T; 0 is greedy.",
            common=True,
        ),
    ] = None
    top_k: Annotated[
        int | None,
        _sampling(
            "--top-k",
            metavar="K",
            min=0,
            help="Keep the K most probable tokens; 0 keeps all.",
            common=True,
        ),
    ] = None
    top_p: Annotated[
        float | None,
        _sampling(
            "--top-p",
            metavar="P",
            min=0,
            max=1,
            help="Keep the most probable tokens that add up to P.",
            common=True,
        ),
    ] = None
    min_p: Annotated[
        float | None,
        _sampling(
            "--min-p",
            metavar="P",
            min=0,
            max=1,
            help="Keep tokens at least P times as probable as the best one.",
        ),
    ] = None
    typical_p: Annotated[
        float | None,
        _sampling(
            "--typical-p",
            metavar="P",
            min=0,
            max=1,
            help="Keep tokens of typical surprisal that add up to P.",
        ),
    ] = None
    top_n_sigma: Annotated[
        float | None,
        _sampling(
            "--top-n-sigma",
            metavar="N",
            min=0,
            help="Keep tokens within N standard deviations of the best logit.",
        ),
    ] = None
    top_h: Annotated[
        float | None,
        _sampling(
            "--top-h",
            metavar="H",
            min=0,
            max=1,
            help="Keep the most probable tokens that have H of the entropy.",
        ),
    ] = None
    epsilon_cutoff: Annotated[
        float | None,
        _sampling(
            "--epsilon-cutoff",
            metavar="P",
            min=0,
            max=1,
            help="Keep tokens with a probability of P or more.",
        ),
    ] = None
    eta_cutoff: Annotated[
        float | None,
        _sampling(
            "--eta-cutoff",
            metavar="P",
            min=0,
            max=1,
            help="Like --epsilon-cutoff, but less where the model is undecided.",
        ),
    ] = None
    repetition_penalty: Annotated[
        float | None,
        _sampling(
            "--repetition-penalty",
            "--repeat-penalty",
            metavar="X",
            help="Above 1, make tokens that have occurred less likely.",
        ),
    ] = None
    no_repeat_ngram_size: Annotated[
        int | None,
        _sampling(
            "--no-repeat-ngram-size", metavar="N", min=0, help="Never repeat N tokens in a row."
        ),
    ] = None
    dry_multiplier: Annotated[
        float | None,
        _sampling(
            "--dry-multiplier",
            metavar="X",
            min=0,
            help="Penalize tokens that continue a repetition (DRY); 0 does not.",
        ),
    ] = None
    dry_base: Annotated[
        float | None,
        _sampling(
            "--dry-base",
            metavar="X",
            min=1,
            show_default="1.75",
            help="DRY: factor for each further token repeated.",
        ),
    ] = None
    dry_allowed_length: Annotated[
        int | None,
        _sampling(
            "--dry-allowed-length",
            metavar="N",
            min=1,
            show_default="2",
            help="DRY: repeated tokens from which it begins.",
        ),
    ] = None
    bias: Annotated[
        list[str] | None,
        _sampling(
            "--bias", metavar="TEXT=B", help="Add B to the logits of TEXT's tokens (repeatable)."
        ),
    ] = None
    ban: Annotated[
        list[str] | None,
        _sampling("--ban", metavar="TEXT", help="Never generate TEXT (repeatable)."),
    ] = None
    any_case: Annotated[
        bool,
        _sampling(
            "--any-case", help="--bias and --ban: also in lower, upper and capitalized letters."
        ),
    ] = False
    samplers: Annotated[
        str | None,
        _sampling(
            "--samplers",
            metavar="LIST",
            help="Apply only these filters, in this order: 'top_k;top_p;temperature'.",
        ),
    ] = None


@dataclass(frozen=True)
class SamplingOptions(FilterOptions):
    """Options that control how the next token is chosen."""

    greedy: Annotated[
        bool, _sampling("--greedy", help="Always choose the most probable token.", common=True)
    ] = False
    seed: Annotated[
        int | None,
        _sampling(
            "--seed",
            metavar="N",
            min=0,
            max=2**63 - 1,
            show_default="random",
            help="Make the run repeatable.",
            common=True,
        ),
    ] = None

    presence_penalty: Annotated[
        float | None,
        _sampling(
            "--presence-penalty",
            metavar="X",
            min=-100,
            max=100,
            help="Subtract X from the logits of tokens that were generated.",
        ),
    ] = None
    frequency_penalty: Annotated[
        float | None,
        _sampling(
            "--frequency-penalty",
            metavar="X",
            min=-100,
            max=100,
            help="Subtract X for each time that a token was generated.",
        ),
    ] = None
    xtc_probability: Annotated[
        float | None,
        _sampling(
            "--xtc-probability",
            metavar="P",
            min=0,
            max=1,
            help="How often to remove all probable tokens but the last (XTC).",
        ),
    ] = None
    xtc_threshold: Annotated[
        float | None,
        _sampling(
            "--xtc-threshold",
            metavar="P",
            min=0,
            max=1,
            show_default="0.1",
            help="XTC: probability from which a token is a probable one.",
        ),
    ] = None
    min_new_tokens: Annotated[
        int | None,
        _sampling(
            "--min-new-tokens",
            "--min-tokens",
            metavar="N",
            min=0,
            help="Do not end before N tokens.",
        ),
    ] = None
    think_tokens: Annotated[
        int | None,
        _sampling(
            "--think-tokens",
            metavar="N",
            min=0,
            help="End the model's reasoning after N tokens.",
        ),
    ] = None
    ignore_eos: Annotated[
        bool, _sampling("--ignore-eos", help="Never choose a token that ends the text.")
    ] = False
