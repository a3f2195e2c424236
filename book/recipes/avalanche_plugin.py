# Copyright (c) 2026 The authors of Weights that Remember. SPDX-License-Identifier: MIT
"""A guard in Avalanche: its pull is added in each step, and each experience is consolidated when it has been learned.

    strategy = Naive(model=model, optimizer=optimizer, criterion=CrossEntropyLoss(), plugins=[Guarded(guard)])
    for experience in benchmark.train_stream:
        strategy.train(experience)
"""

from avalanche.training.plugins import SupervisedPlugin
from torch.utils.data import DataLoader


class Guarded(SupervisedPlugin):
    """guard: EWC, KroneckerEWC, MemoryAwareSynapses, SynapticIntelligence, L2 or OrthogonalWeights of the strategy's model."""

    def __init__(self, guard, batch_size=256):
        super().__init__()
        self.guard, self.batch_size = guard, batch_size

    # Between the backward pass and the step. A plugin that projects or clips gradients stands before this one in the list.
    def before_update(self, strategy, **others):
        if hasattr(self.guard, "observe"):  # SynapticIntelligence counts the gradient of the loss alone
            self.guard.observe()
        self.guard.add_gradient()

    # An experience gives (inputs, targets, number of its task); a guard wants pairs. `experience.dataset` and not
    # `strategy.adapted_dataset`, to which a plugin with a buffer adds examples of other tasks.
    def after_training_exp(self, strategy, **others):
        loader = DataLoader(strategy.experience.dataset.eval(), batch_size=self.batch_size)
        self.guard.consolidate((inputs, targets) for inputs, targets, *_ in loader)
