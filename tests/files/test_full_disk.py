"""A disk that is full, and has room again: a real one of four megabytes, in memory."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

MOUNT = 'mount -t tmpfs -o size=4m none "$1" && exec "$2" -m tests.files.full_disk "$1"'


def test_an_upload_goes_on_when_the_disk_has_room_again(tmp_path: Path) -> None:
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("there is no unshare here")
    alone = [unshare, "--user", "--map-root-user", "--mount"]
    if subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
        pytest.skip("nobody may have a disk of their own here")
    command = [*alone, "sh", "-c", MOUNT, "sh", str(tmp_path), sys.executable]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root)
    assert done.returncode == 0, done.stderr
