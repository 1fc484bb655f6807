"""Run a stand-in as a program: ``python tests/standins gcp.pubsub --port=8085``; without a port it takes a free one."""

import runpy
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # stand-ins import each other from here
runpy.run_module(f"standins.{sys.argv.pop(1)}", run_name="__main__", alter_sys=True)
