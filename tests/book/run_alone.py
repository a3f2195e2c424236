"""Run scripts in folders of their own, two at a time, with the package of a wheel: `python -I run_alone.py SITE <jobs.json`.

Each is forked from one process that has imported torch and the like, which takes longer than most scripts do otherwise. A job is
{"file": …, "folder": …}; what it said and the code with which it ended are left in the folder.
"""

import json
import os
import runpy
import sys
import traceback
from pathlib import Path

import filelock  # noqa: F401
import matplotlib.font_manager  # noqa: F401
import safetensors.torch  # noqa: F401
import sklearn.datasets  # noqa: F401
import torch._dynamo  # noqa: F401
from PIL import ImageDraw  # noqa: F401

AT_A_TIME = 2


def become(file, folder):
    """The script, in place of this process."""
    os.chdir(folder)
    for number, name in ((1, "said"), (2, "complained")):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT), number)
    sys.path.insert(0, sys.argv[1])
    code = 1
    try:
        runpy.run_path(file, run_name="__main__")
        code = 0 if sys.modules["ewc"].__file__.startswith(sys.argv[1]) else 2
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    Path("code").write_text(str(code))
    os._exit(code)


running = set()
for job in json.load(sys.stdin):
    if len(running) == AT_A_TIME:
        running.discard(os.wait()[0])
    child = os.fork()
    if not child:
        become(**job)
    running.add(child)
while running:
    running.discard(os.wait()[0])
