"""The neural graph of a network: traced, proved, serialisable."""

from .check import GraphCheck, check_graph
from .neural_graph import NeuralGraph
from .parts import Axis, EdgeBlock, NodeGroup, Segment, TensorAxes
from .permutation import inverse, permute, permute_named, random_permutations
from .tracing import trace_graph

__all__ = [
    "Axis",
    "EdgeBlock",
    "GraphCheck",
    "NeuralGraph",
    "NodeGroup",
    "Segment",
    "TensorAxes",
    "check_graph",
    "inverse",
    "permute",
    "permute_named",
    "random_permutations",
    "trace_graph",
]
