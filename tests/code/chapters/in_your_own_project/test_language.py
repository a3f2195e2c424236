"""The two texts, and the model that writes them."""

import math

import pytest
import torch
from ewc.chapters.in_your_own_project import experiments, language
from ewc.chapters.in_your_own_project.language import ALPHABET, Writer
from torch import nn


def small(seed=0):
    torch.manual_seed(seed)
    return Writer(width=16, heads=2, blocks=2, length=12)


def test_letters_come_back_as_they_went_in():
    text = "def f(x):\n    return x ** 2  # ~{}|"
    assert language.decoded(language.encoded(text)) == text
    assert language.decoded(language.encoded("naïve\tword")) == "na?ve word"


def test_prose_is_kept_and_lists_and_examples_are_not():
    sentence = "The mean of many numbers is their sum divided by how many they are, and a reader of this book may be trusted to know as much."
    source = f'def f():\n    """{sentence}\n\n    >>> f(1, 2)[3:4] == {{5: 6, 7: 8}} != [{"9, " * 40}]\n\n    Short.\n    """\n'
    assert list(language._prose(source)) == [sentence]


def test_code_is_kept_without_its_docstrings_and_comments(tmp_path):
    file = tmp_path / "module.py"
    file.write_text('"""Of the module."""\n\n\ndef f(x):\n    """Of f."""\n    return x  # said aside\n\n\nclass C:\n    """Nothing else."""\n')
    assert language._bare(file).split() == ["def", "f(x):", "return", "x", "class", "C:", "pass"]


def test_parts_do_not_overlap_and_are_all_of_the_text():
    parts = language.parts(torch.arange(1000))
    assert [len(part) for part in parts.values()] == [900, 50, 50]
    assert torch.equal(torch.cat(list(parts.values())), torch.arange(1000))


def test_a_sequence_is_followed_by_its_next_letters():
    inputs, wanted = language.sequences(torch.arange(50), 200, 10, torch.Generator().manual_seed(0))
    assert torch.equal(wanted, inputs + 1)
    assert inputs.min() == 0, "the first letter can be drawn"
    assert wanted.max() == 49, "and the last"


def test_a_letter_sees_those_before_it_and_none_after():
    model, inputs = small(), torch.arange(12)[None]
    changed = inputs.clone()
    changed[0, 7] = 90
    same = (model(inputs) == model(changed)).all(-1)[0]
    assert same.tolist() == [True] * 7 + [False] * 5


def test_the_table_of_letters_is_the_last_layer_too():
    model = small()
    assert sum(weight.shape == (len(ALPHABET), 16) for weight in model.parameters()) == 1
    model(torch.arange(12)[None])[0, 3, 80].backward()
    assert model.letters.weight.grad[80].any(), "as a row of the last layer"
    assert model.letters.weight.grad[2].any(), "as what a letter is looked up as"


def test_attention_is_that_of_the_definition_with_what_is_far_seen_less():
    model = small().double()
    block, x = model.blocks[0], torch.randn(3, 12, 16, dtype=torch.float64)
    query, key, value = block.asked(block.norm_looking(x)).view(3, 12, 3, 2, 8).unbind(2)
    seen = torch.zeros(3, 12, 2, 8, dtype=torch.float64)
    for head, slope in enumerate((2.0, 0.5)):
        for place in range(12):
            back = torch.arange(place, -1, -1)
            scores = (key[:, : place + 1, head] @ query[:, place, head, :, None])[..., 0] / 8**0.5 - slope * back
            seen[:, place, head] = (scores.softmax(-1)[..., None] * value[:, : place + 1, head]).sum(1)
    looked = x + block.looked(seen.flatten(2))
    assert torch.allclose(block(x), looked + block.thinking(block.norm_thinking(looked)))


class Even(nn.Module):
    def forward(self, inputs):
        return torch.zeros(*inputs.shape, len(ALPHABET))


def test_bits_are_those_of_the_definition():
    text = torch.arange(5).repeat(200)
    assert language.bits_per_character(Even(), text) == pytest.approx(math.log2(len(ALPHABET)), rel=1e-5)
    assert language.bits_of_counting(text) == pytest.approx(math.log2(5))


def test_what_is_written_begins_with_what_was_given_and_is_the_same_again():
    model = small()
    text = language.written(model, "Return the ", 30, length=12)
    assert text.startswith("Return the ")
    assert len(text) == 41
    assert text == language.written(model, "Return the ", 30, length=12)
    assert text != language.written(model, "Return the ", 30, length=12, seed=1)


def test_low_rank_changes_nothing_at_first_and_learns_beside_held_weights():
    model, inputs = small(), torch.arange(12)[None]
    before = model(inputs)
    whole = sum(weight.numel() for weight in model.parameters())
    experiments.add_low_rank(model, rank=2)
    assert torch.equal(model(inputs), before)
    free = [weight for weight in model.parameters() if weight.requires_grad]
    assert sum(weight.numel() for weight in free) < whole / 2
    held = {name: weight.clone() for name, weight in model.named_parameters() if not weight.requires_grad}
    text = torch.arange(60).repeat(40)
    experiments.lesson(model, text, steps=20, learning_rate=1e-2, seed=0, length=12)
    assert not torch.allclose(model(inputs), before)
    assert all(torch.equal(dict(model.named_parameters())[name], weight) for name, weight in held.items())


def test_old_sequences_take_an_eighth_of_each_batch():
    seen = []

    class Spy(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(len(ALPHABET)))

        def forward(self, inputs):
            seen.append(inputs)
            return self.weight.expand(*inputs.shape, -1)

    old = torch.full((5, experiments.LENGTH), 90), torch.full((5, experiments.LENGTH), 91)
    experiments.lesson(Spy(), torch.arange(80).repeat(10), steps=3, learning_rate=0.1, seed=0, old=old)
    assert [(batch == 90).all(1).sum().item() for batch in seen] == [2, 2, 2]
    assert {len(batch) for batch in seen} == {16}
