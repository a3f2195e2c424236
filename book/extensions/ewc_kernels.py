"""Start a page's kernel and run the page in it: this environment's Python, whatever the machine's Jupyter knows.

Why: Jupyter starts the kernel that is called python3 in the first folder where it finds one, and that need not be ours. And a
fresh process needs seconds to import torch. So where it can be done, kernels are forked from one process that has imported it;
it has computed nothing, so no thread of its own is lost in the fork. Not on macOS, whose libraries do not bear it, and not
with an accelerator.
"""

import atexit
import logging
import multiprocessing
import os
import signal
import sys
import threading
import uuid
from multiprocessing import parent_process, resource_tracker

from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning import LocalProvisioner
from nbclient import NotebookClient

IMPORTED = [
    "ipykernel.kernelapp", "torch", "torch._dynamo", "matplotlib.figure", "safetensors.torch", "filelock", "PIL.ImageDraw",
    "sklearn.datasets", "torchvision", "fontTools.merge",
]  # fmt: skip
DEAD = "its kernel was ended from outside, as a system does that runs out of memory: close other programs and build again"
_forks = None          # how processes are forked; None where each kernel begins afresh
_started = []          # every process of a kernel that this build began
_stopped = threading.Event()


def prepare(device: str):
    """Called before the first kernel, when the environment that kernels are to have is set."""
    global _forks
    _forks = None
    _stopped.clear()
    if sys.platform == "linux" and device == "cpu":
        _forks = multiprocessing.get_context("forkserver")
        _forks.set_forkserver_preload(IMPORTED)


def execute(page, folder: str, timeout: int, environment: dict) -> None:
    """Run the cells of a page in a kernel of its own; the outputs stand in the page."""
    client = NotebookClient(
        page, kernel_manager_class=Kernel, timeout=timeout, startup_timeout=timeout, shutdown_kernel="immediate",
        record_timing=False, resources={"metadata": {"path": folder}},
    )  # fmt: skip
    try:
        client.execute(env=environment)
    finally:
        atexit.unregister(client._cleanup_kernel)   # it stays where a kernel did not begin, and fails at the end of the build


def end_all():
    """End every kernel, and let none begin."""
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)   # it would list what was still waited for
    _stopped.set()
    for process in _started:
        if process.poll() is None:
            process.kill()


class Kernel(AsyncKernelManager):
    """A kernel of this environment, which no folder on JUPYTER_PATH and no name of a provisioner can exchange."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.kernel_id = str(uuid.uuid4())
        self.provisioner = Process(kernel_id=self.kernel_id, kernel_spec=self.kernel_spec, parent=self)

    @property
    def kernel_spec(self):
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=command, display_name="Python 3", language="python")


class Process(LocalProvisioner):
    """The process of a kernel, forked where it can be."""

    async def launch_kernel(self, cmd, **options):
        if _stopped.is_set():
            raise RuntimeError("the build was stopped")
        if _forks is None:
            connection = await super().launch_kernel(cmd, **options)
        else:
            self.process, connection = Forked(cmd[2:], options["cwd"], options["env"]), self.connection_info
            self.pid = self.process.pid
        _started.append(self.process)
        if _stopped.is_set():           # meanwhile
            self.process.kill()
        return connection


class Forked:
    """A forked kernel, in the manner of subprocess.Popen."""

    stdin = stdout = stderr = None

    def __init__(self, command, folder, environment):
        self.process = _forks.Process(target=become_a_kernel, args=(command, folder, environment))
        resource_tracker.ensure_running()                           # which sets the mask itself
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})   # so it is in what begins here: Ctrl-C is for the build, which ends it
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        self.pid = self.process.pid

    def poll(self):
        return self.process.exitcode

    def wait(self):
        self.process.join()
        return self.process.exitcode

    def send_signal(self, number):
        os.kill(self.pid, number)

    def terminate(self):
        self.process.terminate()

    def kill(self):
        self.process.kill()


def become_a_kernel(command, folder, environment):
    """What `python -m ipykernel_launcher` does, in a process that has torch already."""
    os.setsid()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=lambda: (parent_process().join(), os._exit(1)), daemon=True).start()   # the build was killed
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = [*command, f"--IPKernelApp.parent_handle={os.getppid()}"]    # it ends with it, and says nothing of other ways to end
    from ipykernel.kernelapp import launch_new_instance

    launch_new_instance()
