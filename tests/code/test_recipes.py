"""Each recipe of book/recipes, run: it moves the weights as a plain loop does with the penalty written out.

Where a library is missing its tests are skipped; `pip install .[recipes]` brings them.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ewc import EWC, SynapticIntelligence, diagonal_fisher
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

FOLDER = Path(__file__).parents[2] / "book" / "recipes"
EXTRA = "pip install .[recipes] brings it"


def recipe(name):
    """The module of a recipe, from its file."""
    spec = importlib.util.spec_from_file_location(f"recipes_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def library(name):
    pytest.importorskip(name, reason=f"{name} is not installed: {EXTRA}")


pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast")  # it has no float32: then the step is the plain one, scaled


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


def data(task, count=16):
    draw = torch.Generator().manual_seed(10 + task)
    return torch.randn(count, 6, generator=draw), torch.randint(3, (count,), generator=draw)


def held(model, strength=20.0):
    """A guard that has seen a task, at other weights than those that the model has now."""
    guard = EWC(model, strength)
    guard.consolidate(*data(0))
    nudge(model, 0.3)
    return guard


def written_out(model, state, strength):
    """λ/2 Σ F (θ − θ*)², from a guard's state, with no line of the package."""
    return strength / 2 * sum(
        (state[f"0/importance/{name}"] * (parameter - state[f"0/anchor/{name}"]) ** 2).sum()
        for name, parameter in model.named_parameters()
        if f"0/anchor/{name}" in state
    )


def plain_loop(model, state, strength, batches, optimizer, loss_of=None):
    """A step a batch on its loss and the penalty."""
    loss_of = loss_of or (lambda inputs, targets: cross_entropy(model(inputs), targets))
    for batch in batches:
        optimizer.zero_grad()
        (loss_of(*batch) + written_out(model, state, strength)).backward()
        optimizer.step()


def assert_alike(found, wanted, start=None, within=1e-6):
    """All weights are the same; and not those of the start."""
    pairs = list(zip(found.parameters(), wanted.parameters(), strict=True))
    assert max(float((one - other).abs().max()) for one, other in pairs) <= within
    if start is not None:
        assert max(float((one - other).abs().max()) for one, other in zip(found.parameters(), start, strict=True)) > 0.01


def nudge(model, by=0.05):
    """Other trainable weights than those of the task."""
    with torch.no_grad():
        for place, parameter in enumerate(model.parameters()):
            if parameter.requires_grad:
                parameter += by * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(place))


def copies(model):
    return [parameter.detach().clone() for parameter in model.parameters()]


# ---- Lightning


def lightning_run(guard, model, loader, folder, **told):
    import lightning.pytorch as lightning

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = model

        def training_step(self, batch, _):
            return cross_entropy(self.model(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1, momentum=0.9)

    module, callback = Module(), recipe("lightning_callback").Guarded(guard)
    trainer = lightning.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[callback], default_root_dir=folder, **told,
    )
    trainer.fit(module, loader)
    return module, callback, trainer


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("clip", [None, 0.5])
def test_lightning_with_accumulation_is_the_plain_loop(tmp_path, clip):
    library("lightning")
    model, twin = network(), network()
    guard, state = held(model), held(twin).state_dict()
    start, (x, y) = copies(model), data(1)
    lightning_run(guard, model, DataLoader(TensorDataset(x, y), 4), tmp_path, max_epochs=3, accumulate_grad_batches=2, gradient_clip_val=clip)
    optimizer = torch.optim.SGD(twin.parameters(), 0.1, momentum=0.9)
    for _ in range(3):
        for part, labels in zip(x.split(8), y.split(8), strict=True):
            optimizer.zero_grad()
            (cross_entropy(twin(part), labels) + written_out(twin, state, 20.0)).backward()
            if clip:
                nn.utils.clip_grad_norm_(twin.parameters(), clip)
            optimizer.step()
    assert_alike(model, twin, start)


@pytest.mark.filterwarnings("ignore")
def test_a_checkpoint_of_lightning_holds_the_guard(tmp_path):
    library("lightning")
    guard, loader = held(network()), DataLoader(TensorDataset(*data(1)), 8)
    module, _, trainer = lightning_run(guard, guard.model, loader, tmp_path, max_epochs=1)
    trainer.save_checkpoint(tmp_path / "kept.ckpt")
    fresh = EWC(network(3), 20.0)
    module, callback, trainer = lightning_run(fresh, fresh.model, loader, tmp_path, max_epochs=0)
    trainer.fit_loop.max_epochs = 2
    trainer.fit(module, loader, ckpt_path=tmp_path / "kept.ckpt", weights_only=True)
    assert all(torch.equal(value, guard.state_dict()[key]) for key, value in fresh.state_dict().items())
    assert fresh.state_dict().keys() == guard.state_dict().keys() and fresh.penalty() > 0
    assert callback.guard is fresh


@pytest.mark.filterwarnings("ignore")
def test_lightning_counts_the_path_of_synaptic_intelligence(tmp_path):
    """Over two parts that are accumulated: the importance is that of a loop over the whole."""
    library("lightning")
    model, twin, (x, y) = network(), network(), data(1)
    guard, by_hand = SynapticIntelligence(model, 2.0), SynapticIntelligence(twin, 2.0)
    lightning_run(guard, model, DataLoader(TensorDataset(x, y), 4), tmp_path, max_epochs=3, accumulate_grad_batches=2)
    optimizer = torch.optim.SGD(twin.parameters(), 0.1, momentum=0.9)
    for part, labels in 3 * list(zip(x.split(8), y.split(8), strict=True)):
        optimizer.zero_grad()
        cross_entropy(twin(part), labels).backward()
        optimizer.step()
    guard.consolidate()
    by_hand.consolidate()
    for key, value in by_hand.state_dict().items():
        torch.testing.assert_close(guard.state_dict()[key], value, rtol=1e-4, atol=1e-6)


# ---- Hugging Face's Trainer


def texts(task, count=8, places=6):
    draw = torch.Generator().manual_seed(20 + task)
    words = torch.randint(3, 30, (count, places), generator=draw)
    labels = torch.randint(2, (count,), generator=draw)
    return [{"input_ids": w, "attention_mask": torch.ones_like(w), "labels": c} for w, c in zip(words, labels, strict=True)]


def reader(seed=0):
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = BertConfig(vocab_size=30, max_position_embeddings=8, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **sizes)
    return BertForSequenceClassification(config)


def together(rows):
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def trainer_of(model, rows, guard, folder, **told):
    from transformers import Trainer, TrainingArguments

    arguments = TrainingArguments(
        output_dir=str(folder), use_cpu=True, report_to=[], disable_tqdm=True, logging_strategy="no", per_device_train_batch_size=2,
        optim="sgd", learning_rate=0.1, lr_scheduler_type="constant", **{"save_strategy": "no", "max_grad_norm": 0.0, **told},
    )
    recipes = recipe("trainer_callback")
    loss = None if hasattr(model, "lm_head") else recipes.mean_over_all
    return Trainer(model, arguments, train_dataset=rows, callbacks=[recipes.Guarded(guard)], compute_loss_func=loss)


@pytest.mark.filterwarnings("ignore")
def test_the_trainer_with_accumulation_is_the_plain_loop(tmp_path):
    library("transformers")
    library("accelerate")
    model, twin = reader(), reader()
    pairs, loader = recipe("trainer_callback").pairs, DataLoader(texts(0), 4)
    guards = [EWC(each, 5.0, batch_size=4) for each in (model, twin)]
    for guard in guards:
        guard.consolidate(pairs(loader))
    wanted = diagonal_fisher(twin, {k: v for k, v in together(texts(0)).items() if k != "labels"})
    for name, value in wanted.items():
        torch.testing.assert_close(guards[0].state_dict()[f"0/importance/{name}"], value, rtol=1e-4, atol=1e-9)
    for each in (model, twin):
        nudge(each)
    start, rows = copies(model), texts(1)
    assert cross_entropy(twin(**{**together(rows), "labels": None}).logits, together(rows)["labels"]) == twin(**together(rows)).loss
    # Four parts of two texts a step, and eight texts: each step is one on all of them, in whatever order they come.
    trainer_of(model, rows, guards[0], tmp_path, num_train_epochs=5, gradient_accumulation_steps=4).train()
    plain_loop(
        twin, guards[1].state_dict(), 5.0, 5 * [(together(rows),)], torch.optim.SGD(twin.parameters(), 0.1), lambda batch: twin(**batch).loss
    )
    assert_alike(model, twin, start)


@pytest.mark.filterwarnings("ignore")
def test_the_trainer_of_a_language_model_with_accumulation_is_the_plain_loop(tmp_path):
    """Texts of different lengths: the mean is over the tokens of all parts, and the pull is added once."""
    library("transformers")
    library("accelerate")
    library("peft")
    model, twin, recipes = writer(), writer(), recipe("language_model_lora")
    guards = [EWC(each, 5.0, labels="exact") for each in (model, twin)]
    rows = [row | {"labels": row["input_ids"].masked_fill(row["attention_mask"] == 0, -100)} for row in language(1, 8)]
    for guard in guards:
        guard.consolidate(recipes.pairs(DataLoader(language(0), 4)))
        nudge(guard.model)
    start = copies(model)
    trainer_of(model, rows, guards[0], tmp_path, num_train_epochs=4, gradient_accumulation_steps=4).train()
    rule = torch.optim.SGD([each for each in twin.parameters() if each.requires_grad], 0.1)
    (batch,) = recipes.pairs([together(rows)])
    plain_loop(twin, guards[1].state_dict(), 5.0, 4 * [batch], rule, lambda *batch: recipes.loss_of(twin, *batch))
    assert_alike(model, twin, start)


@pytest.mark.filterwarnings("ignore")
def test_the_trainer_keeps_the_guard_beside_a_checkpoint_and_refuses_what_would_be_scaled(tmp_path):
    library("transformers")
    library("accelerate")
    model = reader()
    guard = EWC(model, 5.0)
    guard.consolidate(recipe("trainer_callback").pairs(DataLoader(texts(0), 4)))
    trainer_of(model, texts(1), guard, tmp_path, max_steps=1, save_strategy="steps", save_steps=1).train()
    kept = torch.load(tmp_path / "checkpoint-1" / "guard.pt")
    assert all(torch.equal(value, kept[key]) for key, value in guard.state_dict().items()) and len(kept) > 2
    trainer = trainer_of(model, texts(1), guard, tmp_path, max_steps=1)
    trainer.args.fp16 = True
    with pytest.raises(ValueError, match="max_grad_norm is 0 under fp16"):
        trainer.callback_handler.on_train_begin(trainer.args, trainer.state, trainer.control)


# ---- Avalanche


@pytest.mark.filterwarnings("ignore")
def test_avalanche_is_the_plain_loop_over_two_experiences(tmp_path):
    library("avalanche")
    from avalanche.benchmarks import benchmark_from_datasets
    from avalanche.benchmarks.utils import AvalancheDataset, DataAttribute
    from avalanche.training.supervised import Naive

    def experience(task):
        x, y = data(task)
        return AvalancheDataset(
            [TensorDataset(x, y)],
            data_attributes=[DataAttribute(y.tolist(), "targets"), DataAttribute([0] * len(y), "targets_task_labels", use_in_getitem=True)],
        )

    model, twin = network(), network()
    guard, by_hand = EWC(model, 20.0), EWC(twin, 20.0)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    strategy = Naive(
        model=model, optimizer=optimizer, criterion=nn.CrossEntropyLoss(), train_mb_size=16, train_epochs=4, evaluator=None,
        plugins=[recipe("avalanche_plugin").Guarded(guard, batch_size=5)],
    )
    for each in benchmark_from_datasets(train=[experience(1), experience(2)]).train_stream:
        strategy.train(each)
    start = copies(twin)
    plain_loop(twin, {}, 20.0, 4 * [data(1)], torch.optim.SGD(twin.parameters(), 0.1))
    by_hand.consolidate(*data(1))
    plain_loop(twin, by_hand.state_dict(), 20.0, 4 * [data(2)], torch.optim.SGD(twin.parameters(), 0.1))
    by_hand.consolidate(*data(2))
    assert_alike(model, twin, start)
    for key, value in by_hand.state_dict().items():
        torch.testing.assert_close(guard.state_dict()[key], value, rtol=1e-4, atol=1e-7)


# ---- the gradient scaler


def line():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 3))


@pytest.mark.parametrize("way", ["step", "step_scaled"])
def test_a_scaled_step_is_the_plain_step(way):
    """In float32, where scaling by a power of 2 rounds nothing: the scale is in no weight."""
    model, twin, (x, y) = network(), network(), data(1)
    guard, state = held(model), held(twin).state_dict()
    start, optimizer = copies(model), torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12, growth_interval=2)
    scales = []
    for _ in range(6):
        getattr(recipe("grad_scaler"), way)(model, guard, x, y, optimizer, scaler, dtype=torch.float32)
        scales.append(scaler.get_scale())
    plain_loop(twin, state, 20.0, 6 * [(x, y)], torch.optim.SGD(twin.parameters(), 0.1, momentum=0.9))
    assert len(set(scales)) > 1
    assert_alike(model, twin, start)


def test_a_scaled_step_is_clipped_with_the_pull():
    model, twin, (x, y) = network(), network(), data(1)
    guard, state = held(model), held(twin).state_dict()
    scaler, optimizer = torch.amp.GradScaler("cpu", init_scale=2.0**12), torch.optim.SGD(model.parameters(), 0.1)
    recipe("grad_scaler").step(model, guard, x, y, optimizer, scaler, dtype=torch.float32, longest=0.2)
    (cross_entropy(twin(x), y) + written_out(twin, state, 20.0)).backward()
    assert nn.utils.clip_grad_norm_(twin.parameters(), 0.2) > 0.4
    torch.optim.SGD(twin.parameters(), 0.1).step()
    assert_alike(model, twin)


@pytest.mark.parametrize("way", ["step", "step_scaled"])
def test_a_step_that_overflows_is_skipped_and_the_next_is_right(way):
    model, twin, (x, y) = line(), line(), data(1)
    guard, state = held(model), held(twin).state_dict()
    scaler, optimizer = torch.amp.GradScaler("cpu", init_scale=2.0**100), torch.optim.SGD(model.parameters(), 0.1)
    before, taken = copies(model), getattr(recipe("grad_scaler"), way)
    taken(model, guard, x * 1e12, y, optimizer, scaler, dtype=torch.float32)
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), before, strict=True))
    scaler.update(new_scale=1024.0)
    taken(model, guard, x, y, optimizer, scaler, dtype=torch.float32)
    plain_loop(twin, state, 20.0, [(x, y)], torch.optim.SGD(twin.parameters(), 0.1))
    assert_alike(model, twin, before)


def test_a_step_that_overflows_leaves_no_mark_on_the_path():
    """A gradient that is infinite, times no step at all, is nothing."""
    model, twin, (x, y) = line(), line(), data(1)
    guard, by_hand = SynapticIntelligence(model, 2.0), SynapticIntelligence(twin, 2.0)
    scaler, optimizer = torch.amp.GradScaler("cpu", init_scale=2.0**100), torch.optim.SGD(model.parameters(), 0.1)
    step = recipe("grad_scaler").step
    step(model, guard, x * 1e12, y, optimizer, scaler, dtype=torch.float32)
    assert any(not parameter.grad.isfinite().all() for parameter in model.parameters())
    scaler.update(new_scale=1024.0)
    for _ in range(3):
        step(model, guard, x, y, optimizer, scaler, dtype=torch.float32)
    rule = torch.optim.SGD(twin.parameters(), 0.1)
    plain_loop(twin, {}, 0.0, 3 * [(x, y)], rule)
    guard.consolidate()
    by_hand.consolidate()
    for key, value in by_hand.state_dict().items():
        torch.testing.assert_close(guard.state_dict()[key], value, rtol=1e-4, atol=1e-7)


# ---- several processes

TWO = """
import sys, torch
from torch import distributed
sys.path.insert(0, {folder!r})
import data_parallel
torch.set_num_threads(1)
rank, world = int(sys.argv[1]), int(sys.argv[2])
distributed.init_process_group("gloo", "file://" + sys.argv[3], rank=rank, world_size=world)
torch.set_default_dtype(torch.float64)
network, before, after = data_parallel.main(steps=40)
torch.save((network.state_dict(), before, after), sys.argv[4] + str(rank))
distributed.destroy_process_group()
"""


def processes(world, folder):
    environment = os.environ | {"PYTHONPATH": str(FOLDER.parents[1] / "code"), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    code = TWO.format(folder=str(FOLDER))
    command = [sys.executable, "-c", code]
    started = [
        subprocess.Popen([*command, str(rank), str(world), folder / f"meeting{world}", folder / f"found{world}."], env=environment)
        for rank in range(world)
    ]
    assert [process.wait(120) for process in started] == [0] * world
    return [torch.load(f"{folder / f'found{world}.'}{rank}") for rank in range(world)]


@pytest.mark.skipif(
    not torch.distributed.is_available() or not torch.distributed.is_gloo_available(), reason="torch was built without gloo"
)
def test_processes_stay_alike_and_have_the_fisher_of_all_examples(tmp_path):
    (first, *numbers), (second, *_) = processes(2, tmp_path)
    assert all(torch.equal(first[name], second[name]) for name in first)
    # One process, by hand: in each step the examples that the two have had, side by side.
    module = recipe("data_parallel")
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        torch.manual_seed(0)
        alone = nn.Sequential(nn.Linear(20, 64), nn.Tanh(), nn.Linear(64, 4))
        shares = [[(x[rank::2], y[rank::2]) for rank in range(2)] for x, y in module.two_tasks()]
        (x, y), _ = module.two_tasks()
        guard, optimizer = EWC(alone, 30.0), torch.optim.SGD(alone.parameters(), 0.1)
        for task, parts in enumerate(shares):
            state = guard.state_dict()
            for step in range(40):
                places = torch.arange(step * 64, (step + 1) * 64) % 1000
                optimizer.zero_grad()
                losses = [cross_entropy(alone(inputs[places]), targets[places]) for inputs, targets in parts]
                (sum(losses) / 2 + (written_out(alone, state, 30.0) if state else 0)).backward()
                optimizer.step()
            if task == 0:
                guard.consolidate(x)
                assert numbers[0] == float((alone(x).argmax(1) == y).float().mean())
    finally:
        torch.set_default_dtype(before)
    for name, value in alone.state_dict().items():
        assert float((first[name] - value).abs().max()) <= 1e-6, name
    assert numbers[0] > numbers[1] > 0.3


# ---- a language model with LoRA


def language(task, count=12, places=7):
    draw = torch.Generator().manual_seed(30 + task)
    words = torch.randint(50, (count, places), generator=draw)
    lengths = torch.randint(3, places + 1, (count, 1), generator=draw)
    return [{"input_ids": w, "attention_mask": (torch.arange(places) < length).long()} for w, length in zip(words, lengths, strict=True)]


def writer(seed=0):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=50, max_position_embeddings=8, bos_token_id=None, eos_token_id=None, **sizes)
    model = recipe("language_model_lora").with_lora(LlamaForCausalLM(config))
    nudge(model, 0.1)  # a fresh adapter is 0 in one factor, and then the other has no Fisher information
    return model


def exact_by_hand(model, rows):
    """E over texts and the model's own tokens of the squared score, place by place, in the definition's words."""
    parameters = {name: each for name, each in model.named_parameters() if each.requires_grad}
    fisher = {name: torch.zeros_like(each) for name, each in parameters.items()}
    for row in rows:
        length = int(row["attention_mask"].sum())
        log_p = model(row["input_ids"][None], attention_mask=row["attention_mask"][None]).logits[0].log_softmax(-1)
        for place in range(length - 1):
            for value in log_p[place]:
                for total, gradient in zip(
                    fisher.values(), torch.autograd.grad(value, list(parameters.values()), retain_graph=True), strict=True
                ):
                    total += value.detach().exp() * gradient**2 / len(rows)
    return fisher


@pytest.mark.filterwarnings("ignore")
def test_a_guard_of_adapters_holds_them_alone_and_moves_them_as_the_plain_loop():
    for name in ("transformers", "peft"):
        library(name)
    module, loader = recipe("language_model_lora"), DataLoader(language(0), 4)
    model, twin = writer(), writer()
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained and all("lora_" in name for name in trained)
    guard, by_hand = EWC(model, 50.0, labels="exact"), EWC(twin, 50.0, labels="exact")
    for each in (guard, by_hand):
        each.consolidate(module.pairs(loader))
    assert {key.split("/", 2)[2] for key in guard.state_dict() if "/importance/" in key} == trained
    few = language(0)[:2]
    short = EWC(model, labels="exact")
    short.consolidate(module.pairs([together(few)]))
    for name, value in exact_by_hand(model, few).items():
        off = (short.state_dict()[f"0/importance/{name}"] - value).abs().max()
        assert off <= 1e-4 * value.abs().max(), name
    for each in (model, twin):
        nudge(each)
    start, second = copies(model), DataLoader(language(1), 4)
    rates = [torch.optim.SGD([p for p in each.parameters() if p.requires_grad], 0.1) for each in (model, twin)]
    losses = module.learn(model, guard, second, rates[0])
    plain_loop(twin, by_hand.state_dict(), 50.0, module.pairs(second), rates[1], lambda *batch: module.loss_of(twin, *batch))
    assert len(losses) == 3
    assert_alike(model, twin, start)


@pytest.mark.filterwarnings("ignore")
def test_the_sampled_fisher_of_adapters_is_the_exact_one_on_average():
    for name in ("transformers", "peft"):
        library(name)
    model, module = writer(), recipe("language_model_lora")
    batch = next(module.pairs([together(language(0))]))
    exact = diagonal_fisher(model, [batch], labels="exact")
    draws = [
        diagonal_fisher(model, [batch], labels="sampled", samples=8, generator=torch.Generator().manual_seed(seed)) for seed in range(24)
    ]
    for name, value in exact.items():
        totals = torch.stack([draw[name].sum() for draw in draws])
        assert abs(float(totals.mean() - value.sum())) <= 4 * float(totals.std()) / len(draws) ** 0.5, name
