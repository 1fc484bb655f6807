"""The disk of the local bus fills up under a running publisher and consumer."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.faults.oracle import assert_duplicates_are_flagged, numbers, until, until_handled

pytestmark = pytest.mark.faults


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    made = mount and subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if not made or made.returncode:
        pytest.skip("CANNOT MOUNT A SMALL DISK HERE: only root can")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            pass


def test_full_disk_acknowledges_nothing_that_is_lost_and_all_goes_on_by_itself(
    launch: Any, small_disk: Path, tmp_path: Path, figure: Any
) -> None:
    total, begins, times = 4_000, 150, 3
    published, handled = tmp_path / "published", tmp_path / "handled"
    consumer = launch("faults/consumer.py", handled, 2, 0, 16, root=small_disk)
    consumer.port()
    publisher = launch("faults/publisher.py", published, 0, total, 16, 0, 500, root=small_disk)
    until_published(published, begins)
    for _ in range(times):
        fill(small_disk / "ballast")
        before, mark = publisher.output.count("publish failed"), len(numbers(published))
        # From the second time on the log may be long enough to be written over without growing.
        until(
            lambda: publisher.output.count("publish failed") > before + 20 or len(numbers(published)) > mark + 500,  # noqa: B023
            lambda: "neither refused nor published",
        )
        (small_disk / "ballast").unlink()
        until_published(published, len(numbers(published)) + 100)
    publisher.expect("published all", 120)
    until_handled(handled, set(numbers(published)))
    refused = re.findall(r"publish failed: (\w+)", publisher.output)
    assert set(refused) == {"Unavailable"}
    assert "Traceback" not in consumer.output + publisher.output
    assert len(set(numbers(published))) == total
    figure(
        f"disk full {times}x while {total} are published",
        f"{len(refused)} publications refused with Unavailable, 0 lost, "
        f"{assert_duplicates_are_flagged(handled)} redeliveries; went on by itself",
    )


def until_published(file: Path, wanted: int) -> None:
    until(lambda: len(numbers(file)) >= wanted, lambda: f"publishing stopped at {len(numbers(file))}")
