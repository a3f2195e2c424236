"""What a page hands to its text: numbers for the prose, rows for the table of runs, and the data sets that it used.

A cell of a chapter calls these; the book's extension `ewc_numbers` picks up what they publish. It travels as cell
outputs that are never shown (the way of myst-nb's glue), so the execution cache keeps it with the page. Outside Jupyter
nothing is published and `number` still returns its text, so a chapter's code runs anywhere.
"""

import html
import json
import math
from statistics import fmean, stdev

_HIDDEN = "application/papermill.record/"  # an output of this type is kept with the cell and never displayed
_SPACE = "\N{NO-BREAK SPACE}"
_published = set()  # a row is published once, however often a page obtains the record


def number(name, value, *, unit="", digits=None, runs=()):
    """Publish `value` under `name` for the role {num}`name`, and return the text that the role will show.

    value: a text, taken as it is; a number; or a sequence over seeds, shown as mean ± standard error of the mean.
    unit: written after the number; "%" also multiplies by 100.
    digits: decimals after the point; by default as many as the spread allows, or three significant digits without one.
    runs: the records (objects with `.key`) that the number was computed from.
    """
    if not isinstance(name, str) or not name:
        raise TypeError(f"name must be a non-empty text, not {name!r}")
    if digits is not None and (not isinstance(digits, int) or digits < 0):
        raise ValueError(f"digits must be None or a whole number from 0 on, not {digits!r}")
    words = isinstance(value, str)
    text = value + (_SPACE + unit if unit else "") if words else _with_unit(_plain(value), unit, digits)
    keys = " ".join(dict.fromkeys(record.key for record in runs))
    _publish(f"number:{name}", {"text": text, "runs": keys})
    return text


def spelled(strength):
    """λ as the pages write it: 0.03, 2.5, 100,000,000."""
    return f"{strength:,.0f}" if strength >= 1000 else f"{strength:g}"


def interval(values, *, level=0.95):
    """Mean of a few values, and how far the interval reaches to either side that holds the true mean `level` of the time.

    Of few seeds the standard error is itself a guess. Student's t allows for that: 4.3 standard errors for three, not 2.
    For the difference of two methods, give the differences seed by seed; where the interval holds 0, they are not told apart.
    """
    values = _plain(values)
    if not isinstance(values, list) or len(values) < 2:
        raise ValueError(f"values must be at least two numbers, one a seed, not {values!r}")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, not {level!r}")
    from scipy.special import stdtrit  # the quantile of Student's t; here, so that runs on a GPU need no scipy

    return fmean(values), float(stdtrit(len(values) - 1, (1 + level) / 2)) * stdev(values) / math.sqrt(len(values))


def told_apart(ours, theirs):
    """1 where ours is above theirs, −1 where it is below, 0 where the 95 % interval of the difference, seed by seed, holds 0."""
    middle, half = interval(_differences(ours, theirs))
    return 0 if abs(middle) <= half else 1 if middle > 0 else -1


def compared(ours, theirs, name, *, digits=1):
    """Accuracies of one seed after another against those of `name`: "3.4 points above EWC (95 %: 2.1 to 4.7)", in words."""
    middle, half = interval([100 * gap for gap in _differences(ours, theirs)])
    side = 1 if middle >= 0 else -1
    low, high = (_fixed(side * middle + end, digits) for end in (-half, half))
    apart = "" if told_apart(ours, theirs) else "; not told apart"
    return f"{_fixed(abs(middle), digits)} points {'above' if side > 0 else 'below'} {name} (95{_SPACE}%: {low} to {high}{apart})"


def gap(ours, theirs):
    """The same for a table: "+3.4 ± 1.3", in points, the mean difference and how far its 95 % interval reaches to either side."""
    middle, half = interval([100 * each for each in _differences(ours, theirs)])
    sign = "+" if middle >= 0 else "\N{MINUS SIGN}"
    return f"{sign}{abs(middle):.1f}{_SPACE}±{_SPACE}{half:.1f}"


def _differences(ours, theirs):
    if len(ours) != len(theirs):
        raise ValueError(f"theirs must have a value for each seed of ours, {len(ours)}; it has {len(theirs)}")
    return [float(one) - float(other) for one, other in zip(ours, theirs, strict=True)]


_RUN_FIELDS = ("key", "name", "configuration", "seed", "device", "seconds", "finished", "versions", "data")


def run(row, *, kept=False):
    """Publish one run's row, with the fields above, for the directive {runs}; `kept` says that its record came with the book."""
    missing = [field for field in _RUN_FIELDS if field not in row]
    if missing:
        raise ValueError(f"row must have the fields {', '.join(_RUN_FIELDS)}; it lacks {', '.join(missing)}")
    if f"run:{row['key']}" not in _published:
        _publish(f"run:{row['key']}", {field: row[field] for field in _RUN_FIELDS} | {"kept": kept})


def data(*tasks):
    """Publish which data sets the page uses, and show a banner here when any of them is an embedded stand-in.

    tasks: objects with .name, .train_inputs, .test_inputs, .embedded and .source.
    """
    rows = [
        {
            "name": task.name,
            "train": len(task.train_inputs),
            "test": len(task.test_inputs),
            "embedded": bool(task.embedded),
            "source": str(task.source),
        }
        for task in tasks
    ]
    if not rows:
        raise ValueError("data needs at least one task")
    _publish("data", rows)
    stand_ins = [row for row in rows if row["embedded"]]
    if stand_ins:
        _display({"text/html": _banner(stand_ins), "text/plain": "Built with embedded stand-ins for the data."})


def _banner(stand_ins):
    names = " and ".join(f"<em>{html.escape(row['name'])}</em> ({html.escape(row['source'])})" for row in stand_ins)
    return (
        '<div class="admonition warning banner-embedded"><p class="admonition-title">Built without MNIST and '
        f"Fashion-MNIST</p><p>In the place of the two data sets stand {names}. Every name, size and result on this "
        "page is theirs, and differs from what the full data give.</p>"
        "<p>For the real ones, build again with a network, or put torchvision’s folders <code>MNIST</code> and "
        "<code>FashionMNIST</code> into one folder and name it: "
        "<code>EWC_DATA=/path/to/folder make book</code>.</p></div>"
    )


def _plain(value):
    """The value as int, float, or list of floats, whatever array library it came from."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        if not value or not all(isinstance(each, (int, float)) and not isinstance(each, bool) for each in value):
            raise TypeError(f"value must be a number or a flat, non-empty sequence of numbers, not {value!r}")
        value = [float(each) for each in value]
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"value must be a text, a number or a sequence of numbers, not {value!r}")
    if not all(math.isfinite(each) for each in (value if isinstance(value, list) else [value])):
        raise ValueError(f"value must be finite, not {value!r}")
    return value


def _with_unit(value, unit, digits):
    scale = 100 if unit == "%" else 1
    spread = None
    if isinstance(value, list):
        if len(value) > 1:
            spread = scale * stdev(value) / math.sqrt(len(value))
        value = fmean(value)
    if scale != 1:
        value = scale * value
    no_spread = spread is None or (spread == 0 and digits is None)
    text = _one(value, digits) if no_spread else _pair(value, spread, digits)
    return text + (_SPACE + unit if unit else "")


def _one(value, digits):
    if isinstance(value, int):
        return _fixed(value, digits or 0)
    size = abs(value)
    if size and not 1e-3 <= size < 1e7 and digits is None:
        return _scientific(value)
    if digits is None:
        digits = max(0, 2 - _magnitude(value, 3)) if size else 0
    return _fixed(value, digits)


def _pair(value, spread, digits):
    """Mean and standard error, to the error's first significant digit, or to its second where the first is 1."""
    largest = max(abs(value), spread)
    if digits is None and not 1e-3 <= largest < 1e7:
        exponent = _magnitude(largest, 3)
        return f"({_pair(value / 10**exponent, spread / 10**exponent, None)}){_SPACE}×{_SPACE}10{_raised(exponent)}"
    if digits is None:
        leading = _magnitude(spread, 2)
        digits = max(0, -leading + (1 if spread / 10**leading < 1.95 else 0))
    return f"{_fixed(value, digits)}{_SPACE}±{_SPACE}{_fixed(spread, digits)}"


def _magnitude(value, significant):
    """The power of ten of the first digit, after rounding to so many significant digits (9.999 counts as 10)."""
    return int(f"{abs(value):.{significant - 1}e}".partition("e")[2])


def _scientific(value):
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    return f"{_signed(mantissa)}{_SPACE}×{_SPACE}10{_raised(int(exponent))}"


def _fixed(value, digits):
    text = f"{value:,.{digits}f}"
    return _signed(text.lstrip("-") if float(text.replace(",", "")) == 0 else text)


def _signed(text):
    return text.replace("-", "\N{MINUS SIGN}")


def _raised(exponent):
    return str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _publish(name, content):
    _published.add(name)
    _display({_HIDDEN + "text/plain": json.dumps(content)}, {"scrapbook": {"name": name, "mime_prefix": _HIDDEN}})


def _display(bundle, metadata=None):
    """Hand an output to the notebook that runs this; without one, do nothing."""
    try:
        from IPython import get_ipython
    except ImportError:
        return
    shell = get_ipython()
    if shell is not None and getattr(shell, "kernel", None) is not None:
        shell.display_pub.publish(bundle, metadata or {})
