# Short names for the CMake presets (CMakePresets.json). SANITIZER=address or thread builds and tests with it.
preset := $(if $(SANITIZER),$(if $(filter thread,$(SANITIZER)),tsan,asan),release)
vlm := build/$(preset)/vlm
FUZZ_SECONDS ?= 20
PREFIX ?= /usr/local

.PHONY: all help demo test unit layout fuzz arm bench man models install clean packages
all: packages                     ## build the program and the library (build/release/vlm)
	@sh tools/build.sh $(preset) vlm_cli vlm

help:                             ## what can be made
	@sed -n 's/^\([a-z]*\):.*## /make \1: /p' Makefile | column -t -s:

packages:
	@sh tools/packages.sh build

demo: all                         ## answer a picture, a document and a spoken question with the shipped model
	@sh tools/demo.sh $(vlm)

test:                             ## everything: layout, unit, parity, combinations, bad input, sanitizers, fuzzers, Arm
	@sh tools/test.sh

unit: packages                    ## only the tests of one build (SANITIZER=address|thread)
	@sh tools/packages.sh build test
	@sh tools/build.sh $(preset)
	@ctest --test-dir build/$(preset) --output-on-failure -j 2

layout:                           ## floors and house rules
	@python3 tools/layout.py

fuzz:                             ## FUZZ_SECONDS=20 of each fuzz target under ASan and UBSan; FUZZ=name for one
	@sh tools/packages.sh build test
	@sh tools/fuzz.sh $(FUZZ_SECONDS) $(FUZZ)

arm:                              ## the operations on 64-bit Arm, cross-compiled, under qemu
	@sh tools/packages.sh build test
	@sh tools/arm.sh

bench: all                        ## beside llama.cpp, for docs/performance.md; ARGS=--quick for one shape
	@sh bench/run.sh $(vlm) $(ARGS)

man: all                          ## the manual page, build/vlm.1, from the option tables
	@$(vlm) man > build/vlm.1

models: all                        ## docs/models.md, from the program's registry
	@python3 tools/models.py $(vlm)

install: man                      ## PREFIX=/usr/local, DESTDIR
	@cmake --install build/$(preset) --prefix $(PREFIX)
	@install -Dm644 build/vlm.1 $(DESTDIR)$(PREFIX)/share/man/man1/vlm.1

clean:
	rm -rf build
