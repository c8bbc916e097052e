"""`hftool bench`"""

from hftool.cli.dataclass_options import expand_dataclasses
from hftool.options.bench import BenchOptions
from hftool.options.model import LoadOptions
from hftool.options.output import OutputOptions


@expand_dataclasses
def bench(*, load: LoadOptions, measuring: BenchOptions, output: OutputOptions) -> None:
    """Measure how fast a model is on this machine.

    Each precision is measured in a process of its own: the seconds to load, the most memory, and
    the tokens per second to read a prompt, to generate a text, and to generate several texts side
    by side. Close other programs first.

    Examples:
        hftool bench
        # One precision, with a longer prompt
        hftool bench --quantize int8 --prompt-tokens 2000
        hftool bench -m Qwen/Qwen3-0.6B -o qwen.json
    """
    from hftool.generation.benchmark import benchmarks
    from hftool.output.views.bench import BENCHMARKS
    from hftool.output.writer import write

    write(benchmarks(load, measuring), BENCHMARKS, output)
