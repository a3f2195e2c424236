"""Elastic weight consolidation, from Bayes' rule to running code: the module behind the book Weights that Remember.

Its rooms, each readable by itself: `fisher`, `laplace`, `penalties`, `importance`, `kronecker`, `distillation`, `replay`,
`noise`, `metrics`, `tasks`, `models`, `training`, `together`, `experiments`, `sequences`, `tuning`, `paper`, `figures`, and
`page`, which hands numbers to the text.
"""

from ewc.distillation import Distillation
from ewc.fisher import KroneckerFactors, diagonal_fisher, full_fisher, kronecker_fisher
from ewc.importance import MemoryAwareSynapses, SynapticIntelligence
from ewc.kronecker import KroneckerEWC
from ewc.laplace import Kronecker, LaplacePosterior, laplace_approximation
from ewc.metrics import AccuracyMatrix, fisher_overlap
from ewc.models import mlp
from ewc.penalties import EWC, L2
from ewc.replay import Replay
from ewc.tasks import Task, digits, fashion_mnist, joint, letters, mnist, paired, permuted, split
from ewc.together import fit_together, learn_together
from ewc.training import accuracy, fit, learn_in_sequence

__all__ = [
    "EWC",
    "L2",
    "AccuracyMatrix",
    "Distillation",
    "Kronecker",
    "KroneckerEWC",
    "KroneckerFactors",
    "LaplacePosterior",
    "MemoryAwareSynapses",
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
