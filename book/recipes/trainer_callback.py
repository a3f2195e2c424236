# Copyright (c) 2026 The authors of Weights that Remember. SPDX-License-Identifier: MIT
"""A guard in the Trainer of Hugging Face's transformers: its pull is added once a step, whatever is accumulated.

    told = {"callbacks": [Guarded(guard)], "compute_loss_func": mean_over_all}
    trainer = Trainer(model, arguments, train_dataset=first, **told)
    trainer.train()
    guard.consolidate(pairs(trainer.get_train_dataloader()))
    Trainer(model, arguments, train_dataset=second, **told).train()

Not in `compute_loss`: a penalty there is counted once for each part of what is accumulated.
"""

from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from transformers import TrainerCallback


class Guarded(TrainerCallback):
    """guard: EWC, KroneckerEWC, MemoryAwareSynapses, SynapticIntelligence, L2 or OrthogonalWeights of the trainer's model."""

    def __init__(self, guard):
        self.guard = guard

    def on_train_begin(self, args, state, control, **others):
        if args.fp16 and not args.max_grad_norm:  # the trainer unscales a gradient only to clip it
            raise ValueError("max_grad_norm is 0 under fp16; with this callback it must be above 0, or bf16 be taken")

    # Called after the gradient was clipped: the pull is not. With max_grad_norm=1, the default, the loss pulls with at most 1 and
    # the guard with what it is; in a loop of your own that would be clip, then add_gradient.
    def on_pre_optimizer_step(self, args, state, control, **others):
        if hasattr(self.guard, "observe"):  # SynapticIntelligence counts the gradient of the loss alone
            self.guard.observe()
        self.guard.add_gradient()

    # Beside each checkpoint; guard.load_state_dict(torch.load(folder / "guard.pt")) takes it back.
    def on_save(self, args, state, control, **others):
        if state.is_world_process_zero:
            torch.save(self.guard.state_dict(), Path(args.output_dir, f"checkpoint-{state.global_step}", "guard.pt"))


def mean_over_all(outputs, labels, num_items_in_batch=None):
    """The loss of a model that tells classes, a mean over all that is accumulated.

    Many such models of the library take a mean over each part and say that they took the whole: the trainer then adds the parts up,
    and the loss is as many times too large as there are parts. Its language models do not need this.
    """
    total = cross_entropy(outputs.logits, labels, reduction="sum")
    return total / (len(labels) if num_items_in_batch is None else num_items_in_batch)


def pairs(loader):
    """Batches of a model that tells classes of texts, as a guard wants them: the model's arguments by name, and the labels."""
    for batch in loader:
        arguments = dict(batch)
        labels = arguments.pop("labels")
        yield arguments, labels
