"""The published benchmarks of visual search as samples: V*, HR-Bench, MME-RealWorld, TreeBench, VisualProbe, and others.

`registry` names them and loads one from a local copy or from the hub; `copy` reads what a copy holds; each other file knows
the layout of one benchmark.

Layouts are those that cards and file listings of the hub and public evaluation code show, named in each file. No published
file was opened while these readers were written, so `load` checks what it can: columns, numbers of questions, images.
"""

from cof_agent.data.benchmarks.registry import BENCHMARKS, Benchmark, load
from cof_agent.data.choices import shuffled

__all__ = ["BENCHMARKS", "Benchmark", "load", "shuffled"]
