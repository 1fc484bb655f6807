# Everything runs in .venv, which `tools/venv` makes on first use; nox, inside it, does the work.

NOX := .venv/bin/python -m nox
PORT ?= 8080
BACKEND ?= local
PYTHON ?=
export PORT BACKEND PYTHON

.PHONY: help venv demo test check bench faults clean

help:
	@echo "make demo     run examples/blog on this machine on the backend local, aws, gcp, azure or nats (PORT=$(PORT) BACKEND=$(BACKEND)); Ctrl-C stops it"
	@echo "make test     run the tests with every Python from 3.11 on that is found here"
	@echo "make check    lint, types, docs, build, the core alone, the upgrade from 1.5.0"
	@echo "make faults   kill, stop and corrupt things, and count what was lost (minutes)"
	@echo "make bench    measure, beside plain FastAPI and bare SQLite (minutes)"
	@echo "make clean    delete everything that was made"

venv:
	@tools/venv

# The service is not started by nox, so that signals reach it directly.
demo: venv
	@$(NOX) -s demo --install-only
	@.nox/demo/bin/python examples/blog/demo.py

test: venv
	@$(NOX) -s tests

check: venv
	@$(NOX) -s lint types docs build core_only upgrade

bench: venv
	@$(NOX) -s bench

faults: venv
	@$(NOX) -s faults

clean:
	rm -rf .venv .nox .totoms site dist build packages/*/dist
