"""JSON that a person can read, and a difference can show."""

import json


def readable(value) -> str:
    """The value as JSON: numbers to six digits, an innermost list on one line."""
    rounded = json.loads(json.dumps(value), parse_float=lambda text: round(float(text), 6))
    return _lines(rounded) + "\n"


def _lines(value, indent=""):
    inside = list(value.values()) if isinstance(value, dict) else value
    if not isinstance(value, dict | list) or not any(isinstance(each, dict | list) for each in inside):
        return json.dumps(value, ensure_ascii=False)
    deeper = indent + " "
    if isinstance(value, dict):
        parts = [f"{json.dumps(name)}: {_lines(each, deeper)}" for name, each in value.items()]
        return "{\n" + ",\n".join(deeper + part for part in parts) + "\n" + indent + "}"
    return "[\n" + ",\n".join(deeper + _lines(each, deeper) for each in value) + "\n" + indent + "]"
