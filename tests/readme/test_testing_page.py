"""The test that docs/testing.md shows, run by pytest as a newcomer would."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "testing.md"


def test_page_shows_tests_that_pass(tmp_path: Path) -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    (tmp_path / "test_blog.py").write_text(block)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")  # of its own, wherever the folder lies
    variables = {**os.environ, "PYTHONPATH": str(ROOT / "examples" / "blog"), "PYTHONDONTWRITEBYTECODE": "1"}

    strictly = ["-W", "error::pytest.PytestCollectionWarning"]  # the client's name begins with "Test"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), *strictly]
    run = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=300)

    assert re.search(r"^2 passed", run.stdout, re.MULTILINE), run.stdout + run.stderr
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "__pycache__") == [
        "pytest.ini",
        "test_blog.py",
    ]
