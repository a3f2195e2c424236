"""What a page hands to its text: how numbers are written, what is refused, what is published."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from ewc.workshop import page
from scipy import stats

S = "\N{NO-BREAK SPACE}"


def task(**changes):
    values = {"name": "digits", "embedded": True, "source": "scikit-learn’s digits"}
    return SimpleNamespace(train_inputs=torch.zeros(8, 784), test_inputs=torch.zeros(2, 784), **(values | changes))


@pytest.fixture
def published(monkeypatch):
    """What the cells would hand over: a list of (mime bundle, metadata)."""
    outputs = []
    monkeypatch.setattr(page, "_display", lambda bundle, metadata=None: outputs.append((bundle, metadata)))
    monkeypatch.setattr(page, "_published", set())
    return outputs


@pytest.mark.parametrize(
    ("value", "options", "text"),
    [
        (60000, {}, "60,000"),
        (-3, {}, "−3"),
        (0.937, {"unit": "%"}, f"93.7{S}%"),
        (torch.tensor(0.5), {}, "0.500"),
        (torch.tensor(7), {}, "7"),
        (0, {}, "0"),
        (0.0, {}, "0"),
        (1234.6, {}, "1,235"),
        (0.9999, {}, "1.00"),
        (3.2e-16, {}, f"3.2{S}×{S}10⁻¹⁶"),
        (-4.56e9, {}, f"−4.6{S}×{S}10⁹"),
        (2.0, {"digits": 0}, "2"),
        (-0.001, {"digits": 1}, "0.0"),
        (12.3, {"unit": "s"}, f"12.3{S}s"),
        ("plain SGD", {}, "plain SGD"),
        ([0.14, 0.16], {"unit": "%"}, f"15.0{S}±{S}1.0{S}%"),
        ([0.146, 0.152, 0.158], {"unit": "%"}, f"15.2{S}±{S}0.3{S}%"),
        (torch.tensor([1.0, 1.0]), {}, "1.00"),
        ([5.0], {}, "5.00"),
        ([0.0, 1000.0], {}, f"500{S}±{S}500"),
        ([1e-9, 3e-9], {}, f"(2.0{S}±{S}1.0){S}×{S}10⁻⁹"),
        ([0.14, 0.16], {"unit": "%", "digits": 2}, f"15.00{S}±{S}1.00{S}%"),
    ],
)
def test_a_number_is_written_as_a_reader_expects_it(value, options, text):
    assert page.number("x", value, **options) == text


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), [1.0, float("nan")]])
def test_a_value_that_is_not_finite_is_refused(bad):
    with pytest.raises(ValueError, match="value must be finite"):
        page.number("x", bad)


@pytest.mark.parametrize("bad", [None, True, [], [[1.0]], ["a"], {"a": 1}, torch.zeros(2, 2)])
def test_a_value_that_is_no_number_is_refused(bad):
    with pytest.raises(TypeError, match="value must be"):
        page.number("x", bad)


def test_a_bad_name_and_bad_digits_are_named():
    with pytest.raises(TypeError, match="name must be"):
        page.number("", 1)
    with pytest.raises(ValueError, match="digits must be"):
        page.number("x", 1, digits=-1)


@pytest.mark.parametrize(("strength", "text"), [(0.03, "0.03"), (2.5, "2.5"), (300.0, "300"), (1000.0, "1,000"), (1e8, "100,000,000")])
def test_a_strength_is_spelled_out(strength, text):
    assert page.spelled(strength) == text


@pytest.mark.parametrize("seeds", [2, 3, 4, 5, 8, 31])
@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
def test_an_interval_is_as_wide_as_students_t_makes_it(seeds, level):
    values = torch.randn(seeds, dtype=torch.float64, generator=torch.Generator().manual_seed(seeds)).tolist()
    middle, half = page.interval(values, level=level)
    expected = stats.t.interval(level, seeds - 1, loc=middle, scale=stats.sem(values))
    assert (middle - half, middle + half) == pytest.approx(expected, rel=1e-9)
    assert middle == pytest.approx(sum(values) / seeds)


def test_an_interval_holds_the_truth_as_often_as_it_says():
    draws = torch.randn(4000, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    held = [abs(middle) <= half for middle, half in map(page.interval, draws)]
    assert sum(held) / len(held) == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize(
    ("ours", "theirs", "sign", "text"),
    [
        ([0.90, 0.91, 0.92], [0.80, 0.80, 0.80], 1, f"11.0 points above EWC (95{S}%: 8.5 to 13.5)"),
        ([0.80, 0.80, 0.80], [0.90, 0.91, 0.92], -1, f"11.0 points below EWC (95{S}%: 8.5 to 13.5)"),
        ([0.82, 0.83, 0.87], [0.80, 0.80, 0.80], 0, f"4.0 points above EWC (95{S}%: −2.6 to 10.6; not told apart)"),
        ([0.5, 0.5], [0.5, 0.5], 0, f"0.0 points above EWC (95{S}%: 0.0 to 0.0; not told apart)"),
    ],
)
def test_a_difference_is_a_claim_only_where_the_seeds_bear_it(ours, theirs, sign, text):
    assert page.told_apart(ours, theirs) == sign
    assert page.compared(ours, theirs, "EWC") == text


def test_pairs_are_compared_and_not_means():
    """Seeds that are all hard for both differ much; the difference of the two may still be the same on each."""
    ours, theirs = [0.60, 0.75, 0.90], [0.58, 0.73, 0.881]
    assert page.told_apart(ours, theirs) == 1


def test_a_gap_is_a_signed_mean_with_half_its_interval_on_one_line():
    assert page.gap([0.60, 0.75, 0.90], [0.58, 0.73, 0.881]) == "+2.0\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}0.1"
    middle, half = page.interval([-2, -4])
    assert page.gap([0.5, 0.6], [0.52, 0.64]).replace("\N{NO-BREAK SPACE}", " ") == f"\N{MINUS SIGN}{-middle:.1f} ± {half:.1f}"


def test_too_few_values_and_an_impossible_level_are_named():
    with pytest.raises(ValueError, match="values must be at least two"):
        page.interval([0.5])
    with pytest.raises(ValueError, match="values must be at least two"):
        page.interval(0.5)
    with pytest.raises(ValueError, match="level must lie between 0 and 1, not 95"):
        page.interval([0.5, 0.6], level=95)
    with pytest.raises(ValueError, match="a value for each seed of ours, 3; it has 2"):
        page.compared([0.1, 0.2, 0.3], [0.1, 0.2], "EWC")


def test_a_number_is_published_with_its_runs_and_not_displayed(published):
    records = [SimpleNamespace(key="a1"), SimpleNamespace(key="b2"), SimpleNamespace(key="a1")]
    page.number("plain", 0.5, runs=records)
    ((bundle, metadata),) = published
    (mime,) = bundle
    assert mime.startswith("application/papermill.record/")
    assert json.loads(bundle[mime]) == {"text": "0.500", "runs": "a1 b2"}
    assert metadata["scrapbook"]["name"] == "number:plain"


def test_a_run_is_published_once_and_a_row_must_be_whole(published):
    row = dict.fromkeys(("name", "device", "finished", "data"), "x") | {
        "key": "k1", "configuration": {"lr": 0.05}, "seed": 0, "seconds": 1.5, "versions": {"torch": "2"},
    }  # fmt: skip
    page.run(row)
    page.run(row)
    assert len(published) == 1
    with pytest.raises(ValueError, match="lacks seconds"):
        page.run({field: value for field, value in row.items() if field != "seconds"})


def test_the_banner_stands_where_stand_ins_are_used_and_only_there(published):
    page.data(task(embedded=False))
    assert len(published) == 1
    page.data(task(), task(name="<letters>"))
    banner = published[-1][0]["text/html"]
    assert "banner-embedded" in banner
    assert "&lt;letters&gt;" in banner
    (row, _) = json.loads(published[-2][0]["application/papermill.record/text/plain"])
    assert row == {
        "name": "digits", "train": 8, "test": 2, "embedded": True, "source": "scikit-learn’s digits",
    }  # fmt: skip


def test_outside_jupyter_it_needs_neither_ipython_nor_anything_else_and_returns_the_text():
    code = (
        "import sys, runpy; sys.modules['IPython'] = None\n"
        f"page = runpy.run_path({json.dumps(page.__file__)})\n"
        "print(ascii(page['number']('x', [0.5, 0.7], unit='%')))\n"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ascii(f"60{S}±{S}10{S}%")
