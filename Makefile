# `make demo` and `make test` do all the set-up themselves, on a fresh machine too, and mend what is half done.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PORT ?= 8080
WHIP_WHEP := 1.2.0
LOWEST := build/lower-bounds
# What these tests measure is time, so nothing runs beside them.
ALONE := tests/browser/test_latency_browser.py tests/browser/test_measurement.py tests/browser/test_talking.py \
  tests/loopback

.PHONY: portraits demo test lower-bounds lint format bench browser firefox relay sound speech whip-whep gstreamer proxies clean

demo: serve-environment portraits
	$(BIN)/talkalong serve --port $(PORT)

test: test-environment portraits browser firefox relay sound speech whip-whep gstreamer proxies
	$(BIN)/python -m pytest --numprocesses 2 tests/unit tests/streaming
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(ALONE:%=--ignore=%) tests/docs tests/browser tests/network
	$(BIN)/python -m pytest $(ALONE)

# The oldest versions that pyproject.toml allows, in an environment of their own; about a quarter of an hour.
lower-bounds: test-environment
	rm -rf $(LOWEST)
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m tests.lower_bounds >$(LOWEST)/constraints.txt
	$(LOWEST)/bin/python -m pip install --quiet --constraint $(LOWEST)/constraints.txt --editable '.[test]'
	$(LOWEST)/bin/python -m pip check
	$(LOWEST)/bin/python -m pytest tests/unit tests/streaming tests/loopback

lint: lint-environment
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

format: lint-environment
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

# In Chromium, too, once `make browser` was run; about two minutes.
bench: serve-environment
	$(BIN)/talkalong bench --out runs/bench.json

# What takes a server two seconds a portrait when it starts for the first time; quick where it is done.
portraits: serve-environment
	@$(BIN)/python -m stream.portraits.bundled

# Programs of the system for some tests, installed for root on Debian; without them those tests are skipped by name.
# $(call install,packages)
define install
{ [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq \
  && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(1); }
endef

# Chromium: the system's package, else Playwright's own. Playwright's driver needs libatomic, which a bare Debian lacks.
browser: test-environment
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || $(call install,chromium) \
	|| $(BIN)/python -m playwright install chromium \
	|| echo "No Chromium could be installed: the browser tests will be skipped."
	@$(BIN)/python -m playwright --version >/dev/null 2>&1 || $(call install,libatomic1) \
	|| echo "Playwright's driver does not start here: the browser tests will be skipped."

# Firefox speaks WebDriver BiDi by itself: no driver is needed.
firefox:
	@command -v firefox-esr >/dev/null || command -v firefox >/dev/null || $(call install,firefox-esr) \
	|| echo "No Firefox could be installed: the tests with it will be skipped."

# A WHIP and WHEP client that is not ours, for the tests (npm, MIT).
whip-whep:
	@[ -f build/npm/node_modules/whip-whep/whip.js ] \
	|| npm install --silent --no-audit --no-fund --ignore-scripts --prefix build/npm whip-whep@$(WHIP_WHEP) \
	|| echo "No npm, or it could not install whip-whep: the tests with it will be skipped."

# GStreamer's webrtcbin for the system's own Python: a WHIP client that is not ours either.
gstreamer:
	@[ -x /usr/bin/python3 ] && /usr/bin/python3 -c "import gi; gi.require_version('GstWebRTC', '1.0')" 2>/dev/null \
	|| $(call install,python3-gi gir1.2-gst-plugins-base-1.0 gir1.2-gst-plugins-bad-1.0 gstreamer1.0-plugins-base \
	  gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-nice) \
	|| echo "No GStreamer could be installed: the tests with it will be skipped."

# coturn, and what makes network namespaces, for the tests of relays and NAT.
relay:
	@{ command -v turnserver && command -v ip && command -v nft; } >/dev/null || $(call install,coturn iproute2 nftables) \
	|| echo "coturn, iproute2 or nftables could not be installed: the tests of relays and NAT will be skipped."

# PulseAudio, for the tests of virtual microphones.
sound:
	@command -v pulseaudio >/dev/null \
	|| $(call install,libportaudio2 pulseaudio pulseaudio-utils libasound2-plugins) \
	|| echo "No PulseAudio could be installed: the tests of virtual microphones will be skipped."

# Festival with one voice, for the test of speech whose sounds have known times.
speech:
	@command -v festival >/dev/null || $(call install,festival festvox-kallpc16k) \
	|| echo "Festival could not be installed: its test will be skipped."

# The proxies of docs/reachability.md, and curl, whose commands the documents show.
proxies:
	@{ command -v nginx && command -v caddy && command -v curl; } >/dev/null || $(call install,nginx-light caddy curl) \
	|| echo "nginx, caddy or curl could not be installed: their commands in the documents will be skipped."

clean:
	rm -rf $(VENV) build dist *.egg-info

# Quick where nothing is to be done; .ci/environment says what it looks at.
ENVIRONMENTS := serve-environment test-environment lint-environment dev-environment
.PHONY: $(ENVIRONMENTS)
$(ENVIRONMENTS): %-environment:
	@PYTHON='$(PYTHON)' PYTHON_ASKED=$(if $(filter file,$(origin PYTHON)),no,yes) .ci/environment $(VENV) $*
