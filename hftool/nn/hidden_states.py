"""Read and replace the hidden states between the layers of any model, by hooks."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

SEQUENCES = (tuple, list)  # of the hidden states and what else a layer returns
States = dict[nn.ModuleList, list[torch.Tensor]]


def layer_lists(model: nn.Module, without: nn.Module | None = None) -> Iterator[nn.ModuleList]:
    """Yield the lists of modules in a model that are in no other list, one of which is usually that
    of its layers; none in the module `without`."""
    for module in model.children():
        if module is without:
            continue
        if isinstance(module, nn.ModuleList):
            yield module
        else:
            yield from layer_lists(module, without)


@contextmanager
def recorded_states(
    lists: Sequence[nn.ModuleList], tokens: int, positions: Sequence[int]
) -> Iterator[States]:
    """Record what enters the first module of each list, and what leaves each module, in the order
    in which they are called: one may be called several times.

    Yields: the hidden states at the positions [positions, hidden], by their list; without numbers
    if a module does not pass on one sequence of one vector for each of the `tokens`.
    """
    states: States = {layers: [] for layers in lists}
    from_end = [position - tokens for position in positions]
    shapes = [(1, tokens)]
    if from_end == [-1]:  # Gemma 4 has layers that leave out all tokens but the last
        shapes.append((1, 1))

    def record(layers: nn.ModuleList, hidden: Any) -> None:
        known = torch.is_tensor(hidden) and hidden.ndim == 3 and hidden.shape[:2] in shapes
        at = hidden[0, from_end].clone() if known else torch.empty(0)
        states[layers].append(at)

    def before(layers: nn.ModuleList, given: Sequence[Any], named: dict[str, Any]) -> None:
        if not states[layers]:
            record(layers, given[0] if given else named.get("hidden_states"))

    def after(layers: nn.ModuleList, output: Any) -> None:
        record(layers, output[0] if type(output) in SEQUENCES else output)

    with _hooks(lists, before, after):
        yield states


@contextmanager
def replaced_states(layers: nn.ModuleList, call: int, states: torch.Tensor) -> Iterator[None]:
    """Replace what leaves the module that is called as number `call` (from 1) in a list.

    Args:
        states: the hidden states of one token for each sequence [sequences, hidden].
    """
    calls = 0

    def after(_: nn.ModuleList, output: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls != call:
            return None
        if type(output) in SEQUENCES:
            return type(output)((states[:, None], *output[1:]))
        return states[:, None]

    with _hooks([layers], lambda *_: None, after):
        yield


@contextmanager
def _hooks(
    lists: Sequence[nn.ModuleList],
    before: Callable[[nn.ModuleList, Sequence[Any], dict[str, Any]], None],
    after: Callable[[nn.ModuleList, Any], Any],
) -> Iterator[None]:
    """Call functions before and after each module of the lists."""
    hooks: list[Any] = []
    for layers in lists:
        for module in layers:
            hooks += [
                module.register_forward_pre_hook(
                    lambda _, given, named, of=layers: before(of, given, named), with_kwargs=True
                ),
                module.register_forward_hook(lambda _, __, output, of=layers: after(of, output)),
            ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
