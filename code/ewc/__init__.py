# Copyright (c) 2026 The authors of Weights that Remember. SPDX-License-Identifier: MIT
"""Elastic weight consolidation, from Bayes' rule to running code: the module behind the book Weights that Remember.

What is taken away lies here, on the shelf: `fisher`, `penalties`, `importance`, `sensitivity`, `kronecker`, `laplace`, `steps`,
`noise`, `distillation`, `replay`, `dark_replay`, `projection`, `metrics`, `review`, and what these are made of, `likelihoods`,
`labels`, `scores`, `batches`, `looking`, `evaluating`, `calls`, `places`, `gradients`, `mixing`, `ways`, `readings`, `processes`,
`factors`, `springs`, `checks`, `heads`.
On it stands learning: `tasks`, `datasets`, `cifar`, `models`, `passes`, `training`, `together`, `in_turn`. The floors above make the book:
`workshop` what every page needs, `chapters` the experiments, figures and small worlds of each page.
"""

from .dark_replay import DarkReplay
from .datasets import digits, fashion_mnist, letters, mnist, paired
from .distillation import Distillation
from .fisher import KroneckerFactors, diagonal_fisher, full_fisher, kronecker_fisher
from .importance import SynapticIntelligence
from .in_turn import learn_together
from .kronecker import KroneckerEWC
from .laplace import Kronecker, LaplacePosterior, laplace_approximation
from .metrics import AccuracyMatrix, fisher_overlap
from .models import mlp
from .penalties import EWC, L2
from .projection import OrthogonalWeights
from .replay import Replay
from .sensitivity import MemoryAwareSynapses
from .tasks import Task, joint, permuted, split
from .together import fit_together
from .training import accuracy, fit, learn_in_sequence

__version__ = "0.2.0"

__all__ = [
    "EWC",
    "L2",
    "AccuracyMatrix",
    "DarkReplay",
    "Distillation",
    "Kronecker",
    "KroneckerEWC",
    "KroneckerFactors",
    "LaplacePosterior",
    "MemoryAwareSynapses",
    "OrthogonalWeights",
    "Replay",
    "SynapticIntelligence",
    "Task",
    "accuracy",
    "diagonal_fisher",
    "digits",
    "fashion_mnist",
    "fisher_overlap",
    "fit",
    "fit_together",
    "full_fisher",
    "joint",
    "kronecker_fisher",
    "laplace_approximation",
    "learn_in_sequence",
    "learn_together",
    "letters",
    "mlp",
    "mnist",
    "paired",
    "permuted",
    "split",
]
