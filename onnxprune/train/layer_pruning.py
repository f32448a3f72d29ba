"""Training and layer pruning at once: gates on the residual sections of the graph.

Sources: Guenter and Sideris, arXiv 2406.04549; ``gates`` has the objective.

Every mini-batch draws which sections are on. One that is off is not computed. theta moves by
estimates of C1 - C0, the loss with a section on less that with it off:

* two passes: the batch's loss is measured again with one section switched, the others as drawn.
  C1 - C0 does not depend on the section's own theta, so that this is unbiased however it was drawn;
* the gradient dNLL/dxi at xi = 1 in the steps in which the section is on, which costs nothing. For a
  loss that is convex in xi it is at least C1 - C0. Where the weights have settled, it is known:
  a section is linear in its last weights w, so that theta E[dNLL/dxi] = -lambda |w|^2, and a section
  stays if that is over the price. Here it moves theta at most theta of the time; a positive factor
  moves no equilibrium.

In the steps in which a section is off the optimiser does nothing to it; its last weights decay. With
theta at its floor and last weights so small that C0 - C1 < |log gamma| the section cannot come back:
both go to zero. It is pruned when theta has stayed below a tolerance and its last weights have
decayed in several tests in a row, and then cut out of the graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import torch
from torch import Tensor

from onnxprune.arrays import Array
from onnxprune.errors import UnsupportedModelError
from onnxprune.train.executed_macs import ExecutedMacs, node_macs
from onnxprune.train.gate_options import GateOptions
from onnxprune.train.gated_sections import GatedSection, gated_sections, remaining
from onnxprune.train.gates import Gates
from onnxprune.train.last_weights import last_weights
from onnxprune.train.linear_skips import merge_skips, own_skips
from onnxprune.train.method import Backpropagation, Changes, Step
from onnxprune.train.network import TrainableNetwork
from onnxprune.train.section_cut import without_sections


class LayerPruning(Backpropagation):
    """Gates on sections.

    Attributes:
        sections: all sections that have had a gate, in the order of the graph.
        frozen: joins that have none, and why.
        pruned: names of those that are gone, in the order in which they went.
    """
