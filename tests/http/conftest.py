from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.http.app import Log


@pytest.fixture
def log() -> Iterator[Log]:
    """What was logged during the test, as JSON lines."""
    with Log().collecting() as log:
        yield log
