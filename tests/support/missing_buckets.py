"""How the storage of each cloud logs a missing bucket."""

from __future__ import annotations

import pytest

from totoms import CloudStorage


def check_log(caplog: pytest.LogCaptureFixture, there: CloudStorage, missing: CloudStorage, use: str) -> None:
    """Assert that using both buckets several times logs one line, which names the missing one."""
    for _ in range(3):
        for bucket in (missing, there):
            assert not getattr(bucket, use)("a-key")
    lines = [line for record in caplog.records if "There is no bucket" in (line := record.getMessage())]
    assert len(lines) == 1
    assert missing.bucket_name in lines[0]
