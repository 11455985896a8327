"""Make what the cache holds: each thing once, in a process of its own, and check it before it is used again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from quantgate.cache.kept import made
from quantgate.errors import MeasurementError, ProcessError
from quantgate.jobs import Preparation
from quantgate.machine.builds import BUILD
from quantgate.machine.environment import Environment, code_hash
from quantgate.processes.isolate import Assignment, run_together, write_job
from quantgate.processes.progress import OnProgress, ignore_progress
from quantgate.processes.server import Server


class Maker:
    """Makes files and folders in the cache.

    logs: the folder for the logs of the making processes. time_limit: seconds for making one thing. environment: whose
    libraries make it.
    """

    def __init__(
        self, logs: Path, time_limit: float, on_progress: OnProgress, environment: Environment
    ) -> None:
        self.time_limit = time_limit
        self.on_progress = on_progress
        self.environment = environment
        self.errors: dict[Path, Exception] = {}
        """By output: why it could not be made."""
        self._logs = logs

    def make(
        self,
        output: Path,
        title: str,
        function: str,
        arguments: Callable[[], dict[str, Any]],
        *,
        command: Callable[[], Sequence[str]] | None = None,
        time_limit: float | None = None,
    ) -> Path:
        """Return `output`, made unless it is there and intact. Of several runs at once, one makes it; the others wait.

        title: what is done, for progress and logs ("quantize m to Q4_K_M"). function: `module:function`, called as
        function(output, report=..., **arguments()). arguments: called only when something has to be made, as it may
        download. command: gives the command of the making process; None: the one of the environment. Raises AssetError,
        InputError, MeasurementError and OSError.
        """

        def prepare() -> None:
            job = Preparation(title=title, maker=function, arguments=arguments(), output=output)
            with Server(command() if command else self.environment.worker) as server:
                run_preparation(
                    job,
                    self._logs / f"{output.name}.log",
                    server,
                    timeout=time_limit or self.time_limit,
                    on_progress=self.on_progress,
                )

        return self.once(output, lambda: made(output, title, prepare))

    def once(self, output: Path, make: Callable[[], Path]) -> Path:
        """Return what `make` returns. What it raises is raised again for the same output, without another try."""
        if output in self.errors:
            raise self.errors[output]
        try:
            return make()
        except Exception as error:
            self.errors[output] = error
            raise

    def identity(self, module: str, *packages: str) -> list[Any]:
        """Return what pins the result of a module of `supply/`: its code, and versions and builds of the packages it
        uses."""
        libraries = self.environment.libraries
        versions = [libraries.get(key) for name in packages for key in (name, f"{BUILD}{name}")]
        return [code_hash(f"supply/{module}.py"), *versions]


def run_preparation(
    job: Preparation,
    log: Path,
    server: Server,
    *,
    timeout: float,
    on_progress: OnProgress = ignore_progress,
    modules: Sequence[str] = (),
) -> None:
    """Run one maker in a process that the server forks once it has imported `modules`. Raises MeasurementError with the
    cause from its log."""
    try:
        file = write_job(job.model_dump_json(indent=1), log)
        run_together([Assignment(server, file, log, on_progress, modules)], timeout=timeout)
    except ProcessError as error:
        raise MeasurementError(str(error)) from error
