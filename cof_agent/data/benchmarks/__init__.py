"""The published benchmarks of visual search as samples: V*, HR-Bench, MME-RealWorld, TreeBench, VisualProbe, and others.

`registry` says what each is; `load` reads one from a local copy or from the hub; `layout` knows how a row becomes a sample;
`copy` knows what a copy holds; each other file knows the layout of one benchmark that is no plain table.

Few published files were opened while these readers were written. So `load` checks columns, numbers of questions, and images.
"""

from cof_agent.data.benchmarks.benchmark import RULES, Benchmark
from cof_agent.data.benchmarks.load import load, named
from cof_agent.data.benchmarks.registry import BENCHMARKS
from cof_agent.data.choices import shuffled

__all__ = ["BENCHMARKS", "RULES", "Benchmark", "load", "named", "shuffled"]
