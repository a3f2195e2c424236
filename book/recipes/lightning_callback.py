# Copyright (c) 2026 The authors of Weights that Remember. SPDX-License-Identifier: MIT
"""A guard in Lightning: its pull is added once a step, whatever is accumulated, clipped or scaled.

    trainer = Trainer(callbacks=[Guarded(guard)], accumulate_grad_batches=4)
    trainer.fit(module, first_loader)
    guard.consolidate(first_loader)          # of (inputs, targets); with several processes each its own share
    trainer.fit(module, second_loader)
"""

from lightning.pytorch import Callback


class Guarded(Callback):
    """guard: EWC, KroneckerEWC, MemoryAwareSynapses, SynapticIntelligence, L2 or OrthogonalWeights of the module's network."""

    def __init__(self, guard):
        self.guard = guard

    def on_fit_start(self, trainer, module):
        if len(trainer.optimizers) > 1:  # the hook below is called for each, and the pull would be added as often
            raise ValueError(f"trainer has {len(trainer.optimizers)} optimizers; with this callback it may have one")

    # Not on_after_backward, which is called for each part of what is accumulated. Here the gradient is whole and unscaled, and
    # not yet clipped: what Trainer(gradient_clip_val=…) shortens is the sum of both, as for a penalty in the loss.
    def on_before_optimizer_step(self, trainer, module, optimizer):
        if hasattr(self.guard, "observe"):  # SynapticIntelligence counts the gradient of the loss alone
            self.guard.observe()
        self.guard.add_gradient()

    # With these two a checkpoint of Lightning's holds the guard too.
    def state_dict(self):
        return self.guard.state_dict()

    def load_state_dict(self, state):
        self.guard.load_state_dict(state)
