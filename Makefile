# make demo     two peers behind two symmetric NATs, on this machine: punch, ping, throughput
# make test     lint, types, unit tests, live tests
# make grid     every NAT class against every other, as a table
# make mixes    probe through random mixes of NAT rules, each report judged
# make bench    how fast it is beside OpenVPN, wireguard-go, Nebula, EasyTier and tinc; ARGS="--quick" for a look
# make interop  serve and dial against pppd, pptpd and pptp-linux in an emulated guest, as a table
# make soak     what the live tests try for seconds, at full length: about an hour
# make setup    what the others need; they call it themselves
#
# ARGS are handed on: make demo ARGS="--nat-a G2 --pcap demo.pcap"

PYTHON := .venv/bin/python
ARGS :=

.PHONY: help setup demo test soak grid mixes bench interop
.DEFAULT_GOAL := help

help:
	@sed -n 's/^# \{0,1\}//p' Makefile

setup:
	@.ci/setup test

demo:
	@.ci/setup demo
	@$(PYTHON) -m grepunch demo $(ARGS)

test:
	@.ci/setup test
	@.ci/test

soak:
	@.ci/setup test
	@.venv/bin/pytest -o python_files='soak_*.py' --timeout=1800 -s tests/soak $(ARGS)

grid:
	@.ci/setup demo
	@$(PYTHON) -m tests.live.grid $(ARGS)

mixes:
	@.ci/setup demo
	@$(PYTHON) -m tests.live.run_mixes $(ARGS)

bench:
	@.ci/setup bench
	@$(PYTHON) -m tests.bench $(ARGS)

interop:
	@.ci/setup interop
	@$(PYTHON) -m tests.interop.matrix $(ARGS)
