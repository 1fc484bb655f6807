# Everything runs in .venv, which `tools/venv` makes on first use; nox, inside it, does the work.

NOX := .venv/bin/python -m nox
PORT ?= 8080
BACKEND ?= local
EXAMPLE ?= blog
PYTHON ?=
export PORT BACKEND EXAMPLE PYTHON

.PHONY: help venv demo test test-rest test-all check bench slow faults clean

help:
	@echo "make demo     run an example, blog or orders, on this machine on the backend local, aws, gcp, azure or nats (EXAMPLE=$(EXAMPLE) PORT=$(PORT) BACKEND=$(BACKEND)); Ctrl-C stops it"
	@echo "make test     run the tests of the core and the local backend, and the quick contracts of the clouds, with one Python"
	@echo "make test-all run all tests with that Python, and a part of them with each other one from 3.11 on that is found here"
	@echo "make check    lint, types, docs, build, the core alone, the upgrade from 1.5.0"
	@echo "make slow     run the tests that need a browser, Java, Node, nginx or Prometheus, or take long"
	@echo "make faults   kill, stop and corrupt things, and count what was lost (minutes)"
	@echo "make bench    measure, beside plain FastAPI and bare SQLite (minutes)"
	@echo "make clean    delete everything that was made"

venv:
	@tools/venv

# The service is not started by nox, so that signals reach it directly.
demo: venv
	@$(NOX) -s demo --install-only
	@.nox/demo/bin/python examples/demo/run.py

test: venv
	@$(NOX) -s quick

test-rest: venv
	@$(NOX) -s rest

test-all: test test-rest

check: venv
	@$(NOX) -s lint types docs build core_only upgrade

bench: venv
	@$(NOX) -s bench

slow: venv
	@$(NOX) -s slow

faults: venv
	@$(NOX) -s faults

clean:
	rm -rf .venv .nox .totoms site dist build packages/*/dist
