# Copyright (c) 2026 The authors of Weights that Remember. SPDX-License-Identifier: MIT
"""A guard of the adapters of a language model: LoRA by peft, a guard that holds what is trained and nothing else.

    model = with_lora(AutoModelForCausalLM.from_pretrained(name))
    guard = EWC(model, strength=1e3, labels="sampled")      # a vocabulary is too large for all its labels
    learn(model, guard, first_loader, optimizer)
    guard.consolidate(pairs(first_loader))
    learn(model, guard, second_loader, optimizer)

A loader gives dictionaries with "input_ids" and "attention_mask", (texts, places). Train both tasks with the same adapter:
another one, added later, is free, as all that came after a task.
"""

from peft import LoraConfig, get_peft_model
from torch.nn.functional import cross_entropy

NONE = -100  # a place whose next token does not count


def with_lora(model, *, rank=4, layers="all-linear"):
    """The model with adapters, which alone are trained. No dropout in them, for the guard looks at the model without."""
    return get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=layers))


def pairs(loader):
    """Batches as a guard wants them: the model's arguments by name, and for each place the token that follows, or NONE."""
    for batch in loader:
        follows, there = batch["input_ids"].roll(-1, 1), batch["attention_mask"].roll(-1, 1).bool()
        there[:, -1] = False  # what follows the last place is not known
        arguments = {name: batch[name] for name in ("input_ids", "attention_mask")}
        yield arguments | {"use_cache": False}, follows.masked_fill(~there, NONE)


def loss_of(model, arguments, follows):
    """Mean over the tokens that are there of −log p."""
    logits = model(**arguments).logits
    return cross_entropy(logits.flatten(0, 1), follows.flatten(), ignore_index=NONE)


def learn(model, guard, loader, optimizer):
    """Once through the loader, a step a batch; the loss of each."""
    losses = []
    for arguments, follows in pairs(loader):
        optimizer.zero_grad()
        loss = loss_of(model, arguments, follows)
        loss.backward()
        guard.add_gradient()
        optimizer.step()
        losses.append(float(loss))
    return losses
