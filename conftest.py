"""For all tests of the repository, those of the example plugin too: which part of the runs each belongs to."""

pytest_plugins = ["support.parts"]
