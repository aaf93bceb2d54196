# What people do with this repository. Needs a Rust toolchain; `make` alone lists the targets.

CARGO ?= cargo
# What `make run` serves, and on which UDP port.
DIR ?= examples/files
PORT ?= 6969

TARGET = $(or $(CARGO_TARGET_DIR),target)

.PHONY: help run test asan tsan sim schedules soak bench bench-c10k bench-curve bench-peers bench-profile bench-hostile bench-plot build install uninstall deb deb-test static static-test dist man check tools clean

help:
	@echo 'make run                        serve examples/files on port 6969'
	@echo 'make run DIR=/srv/tftp PORT=69  serve another directory, on another port'
	@echo 'make build                      the command, as it is installed'
	@echo 'make install PREFIX=/usr DESTDIR=/tmp/root  command, manual pages, completions, units, documents'
	@echo 'make uninstall                  removes them, and leaves /etc/default/tftpool'
	@echo 'make deb                        a Debian package in target/deb'
	@echo 'make deb-test                   the same, installed, upgraded, removed and purged (as root)'
	@echo 'make static                     target/static/tftpool, which needs no shared library'
	@echo 'make static-test                the same, run in an empty root (as root)'
	@echo 'make dist                       target/dist: a source archive with all crates, and its checksum'
	@echo 'make test                       all tests, real clients and servers included (fetches them when it may)'
	@echo 'make asan                       the tests of the library under AddressSanitizer (nightly)'
	@echo 'make tsan                       these, loopback and lifecycle under ThreadSanitizer (nightly with rust-src)'
	@echo 'make sim SEEDS=1000000          the simulator over so many worlds'
	@echo 'make sim SEED=42 TRACE=1        one world, packet by packet'
	@echo 'make schedules SCHEDULES=100000 the threads of the server under so many schedules; SEED=42 TRACE=1 shows one'
	@echo 'make bench                      this server beside the limits of the machine'
	@echo 'make bench-peers                the same, and other servers beside it (fetches them)'
	@echo 'make bench-curve                storms of 1 to 10,000 clients, crowds of 2 to 2,000 without windows'
	@echo 'make bench-profile              where the time of a crowd goes: threads and system calls'
	@echo 'make bench-plot                 draws docs/performance.svg from the figures'
	@echo 'make bench-hostile              the same under loss and attack (as root)'
	@echo 'make soak MINUTES=30            a long time of mixed load on a bad link (as root)'
	@echo 'make bench-c10k                 ten thousand slow boards at once, and what one costs'
	@echo 'make man                        writes the manual pages and completions of packaging/'
	@echo 'make check                      format, widths, lints, documentation, manual pages, crates'
	@echo 'make clean                      remove what was built'

# Root would become nobody, who may not read a checkout below /root: become the files' owner
# instead.
run:
	$(CARGO) build --release
	@file=$$(cd "$(DIR)" && find . -maxdepth 1 -type f -perm -o+r | sort | sed -n '1s|^./||p') || exit 1; \
	file=$${file:-NAME}; \
	echo; \
	echo 'In another terminal, any of:'; \
	echo "  busybox tftp -g -r '$$file' -l got 127.0.0.1 $(PORT)"; \
	echo "  tftp -m binary 127.0.0.1 $(PORT) -c get '$$file' got"; \
	echo "  curl -o got 'tftp://127.0.0.1:$(PORT)//$$file'"; \
	echo
	@[ "$$(id -u)" -ne 0 ] || set -- --user "$$(stat -c %u:%g "$(DIR)")"; \
	exec $(TARGET)/release/tftpool serve --port $(PORT) "$$@" "$(DIR)"

PREFIX ?= /usr/local
SYSCONFDIR ?= /etc
# Where systemd looks for units, and zsh for completions.
UNITDIR ?= $(PREFIX)/lib/systemd/system
ZSHDIR ?= $(PREFIX)/share/zsh/site-functions
INSTALL ?= install
BINARY ?= $(TARGET)/release/tftpool
to = $(DESTDIR)$(PREFIX)

build:
	$(CARGO) build --release --locked

# As `make build` leaves it: `sudo make install` runs no compiler.
$(BINARY):
	$(MAKE) build

install: $(BINARY)
	$(INSTALL) -D -m 755 $(BINARY) $(to)/bin/tftpool
	$(INSTALL) -d $(to)/share/man/man1 $(to)/share/doc/tftpool $(DESTDIR)$(UNITDIR)
	$(INSTALL) -m 644 packaging/man/*.1 $(to)/share/man/man1
	$(INSTALL) -D -m 644 packaging/completions/tftpool.bash $(to)/share/bash-completion/completions/tftpool
	$(INSTALL) -D -m 644 packaging/completions/tftpool.fish $(to)/share/fish/vendor_completions.d/tftpool.fish
	$(INSTALL) -D -m 644 packaging/completions/_tftpool $(DESTDIR)$(ZSHDIR)/_tftpool
	sed 's|/usr/bin/|$(PREFIX)/bin/|' packaging/systemd/tftpool.service >$(DESTDIR)$(UNITDIR)/tftpool.service
	$(INSTALL) -m 644 packaging/systemd/tftpool.socket $(DESTDIR)$(UNITDIR)
	chmod 644 $(DESTDIR)$(UNITDIR)/tftpool.service
	$(INSTALL) -D -m 644 packaging/systemd/tftpool.sysusers $(to)/lib/sysusers.d/tftpool.conf
	$(INSTALL) -D -m 644 packaging/systemd/tftpool.tmpfiles $(to)/lib/tmpfiles.d/tftpool.conf
	test -e $(DESTDIR)$(SYSCONFDIR)/default/tftpool || \
		$(INSTALL) -D -m 644 packaging/systemd/tftpool.default $(DESTDIR)$(SYSCONFDIR)/default/tftpool
	$(INSTALL) -m 644 README.md CHANGELOG.md LICENSE-APACHE LICENSE-MIT docs/*.md docs/*.svg $(to)/share/doc/tftpool

# What is served, and the options of the service, stay.
uninstall:
	rm -f $(to)/bin/tftpool $(to)/share/man/man1/tftpool.1 $(to)/share/man/man1/tftpool-*.1
	rm -f $(to)/share/bash-completion/completions/tftpool $(to)/share/fish/vendor_completions.d/tftpool.fish
	rm -f $(DESTDIR)$(ZSHDIR)/_tftpool $(DESTDIR)$(UNITDIR)/tftpool.service $(DESTDIR)$(UNITDIR)/tftpool.socket
	rm -f $(to)/lib/sysusers.d/tftpool.conf $(to)/lib/tmpfiles.d/tftpool.conf
	rm -rf $(to)/share/doc/tftpool

DEB = $(abspath $(TARGET))/deb

deb: build
	rm -rf $(DEB)
	$(MAKE) install PREFIX=/usr DESTDIR=$(DEB)/root BINARY=$(BINARY) UNITDIR=/lib/systemd/system ZSHDIR=/usr/share/zsh/vendor-completions
	sh packaging/debian/build.sh $(DEB)

# DEBROOT names a Debian root that is used as it is; without it, debootstrap makes one.
deb-test: deb
	sh tests/deb.sh $(DEB)

# For the machine that builds: naming the target leaves build scripts and macros as they are.
static:
	RUSTFLAGS='$(RUSTFLAGS) -C target-feature=+crt-static' $(CARGO) build --release --locked \
		--target $(HOST) --target-dir $(TARGET)/static
	cp $(TARGET)/static/$(HOST)/release/tftpool $(TARGET)/static/tftpool

static-test: static
	sh tests/static.sh $(TARGET)/static/tftpool

dist:
	CARGO='$(CARGO)' sh packaging/dist.sh $(abspath $(TARGET))/dist

tools:
	@sh tests/tools.sh $(TARGET)/tmp/servers

test: tools
	$(CARGO) test --all-features

# The sanitizers need a nightly toolchain, and ThreadSanitizer a standard library that was built for
# it. TESTS names tests. `server::model` runs on stacks of its own, which the sanitizers do not
# follow.
NIGHTLY ?= nightly
HOST = $(shell rustc -vV | sed -n 's/^host: //p')

asan:
	@rustup run $(NIGHTLY) rustc --version || { echo 'make asan needs: rustup toolchain install $(NIGHTLY)'; exit 1; }
	RUSTFLAGS=-Zsanitizer=address ASAN_OPTIONS=detect_leaks=0 $(CARGO) +$(NIGHTLY) test --lib --all-features \
		--target $(HOST) --target-dir $(TARGET)/asan -- --skip server::model $(TESTS)

tsan:
	@rustup run $(NIGHTLY) rustc --version || { \
		echo 'make tsan needs: rustup toolchain install $(NIGHTLY) --component rust-src'; exit 1; }
	@test -d "$$(rustc +$(NIGHTLY) --print sysroot)/lib/rustlib/src/rust/library" || { \
		echo 'make tsan needs: rustup component add rust-src --toolchain $(NIGHTLY)'; exit 1; }
	RUSTFLAGS=-Zsanitizer=thread $(CARGO) +$(NIGHTLY) test --lib --test loopback --test lifecycle --all-features \
		-Zbuild-std --target $(HOST) --target-dir $(TARGET)/tsan -- --skip server::model $(TESTS)

# SCHEDULES, FIRST, SEED and TRACE are read from the environment; see src/server/model/sync.rs.
schedules:
	$(CARGO) test --lib server::model -- --nocapture

# SEEDS, SEED, TRACE and BLESS are read from the environment; see tests/sim/main.rs and
# src/server/endpoint/tests/world.rs.
sim:
	$(CARGO) test --test sim every_world -- --nocapture
	$(CARGO) test --lib whole_servers -- --nocapture

# ROWS, RUNS, ONLY, QUICK and BASE are read from the environment; see benches/compare/main.rs.
# One row in about a minute: ROWS=crowd-20-blksize-1428 ONLY=tftpool,dnsmasq make bench-peers
# Two builds in one run: BASE=path/to/tftpool ROWS=crowd ONLY=tftpool make bench
bench:
	$(CARGO) bench --bench compare -- --bench

# Wherever the rivals are there already, they are on the curve and in the profile too.
bench-curve:
	ROWS=curve,crowd PEERS=$(wildcard $(TARGET)/peers) $(CARGO) bench --bench compare -- --bench

# ROWS, ONLY and QUICK are read from the environment; see benches/compare/profile.rs.
bench-profile:
	PEERS=$(wildcard $(TARGET)/peers) $(CARGO) bench --bench compare -- profile

# From target/bench.json.
bench-plot:
	$(CARGO) bench --bench compare -- plot $(TARGET)/bench.json docs/performance.svg

bench-peers:
	sh benches/peers.sh $(TARGET)/peers
	PEERS=$(TARGET)/peers $(CARGO) bench --bench compare -- --bench

bench-hostile:
	sh benches/peers.sh $(TARGET)/peers
	PEERS=$(TARGET)/peers $(CARGO) bench --bench compare -- hostile

# MINUTES is read from the environment; see tests/soak.rs.
soak:
	$(CARGO) test --test soak -- --ignored --nocapture

# CLIENTS is read from the environment.
bench-c10k:
	$(CARGO) bench --bench c10k -- --bench

# From the command line and packaging/man/sections/.
man:
	BLESS=1 $(CARGO) test --all-features --test manual

check:
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --no-default-features -- -D warnings
	$(CARGO) clippy --all-targets -- -D warnings
	$(CARGO) clippy --all-targets --all-features -- -D warnings
	sh tests/width.sh
	CARGO='$(CARGO)' sh tests/api.sh
	sh tests/crates.sh
	$(CARGO) test --all-features --test manual

clean:
	$(CARGO) clean
