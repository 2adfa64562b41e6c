# make demo   the main job on an embedded default
# make test   all tests, in WORKERS processes
# make lint   style and types, without changing anything
#
# make bench-peers   Bitfront's allocations against other programs' (benchmarks/peers), each program
#                    in an environment of its own in .venv-peers; models and data: BITFRONT_ASSETS
# make bench-gguf    GGUF files in llama.cpp (built in .venv-llama, some minutes) beside torch
#
# Each makes .venv if needed, from the exact versions in constraints.txt. PYTHON names another
# interpreter. On Linux the plain index has PyTorch's CUDA build; TORCH_INDEX names an index that
# has the CPU build, which is smaller and is enough.

PYTHON ?= python3
TORCH_INDEX ?=
WORKERS ?= 2
BIN := .venv/bin
STAMP := .venv/.installed
PEERS := $(patsubst %,.venv-peers/%/.installed,modelopt autoround nncf)

.PHONY: demo test lint format bench-peers bench-gguf clean

demo: $(STAMP)
	$(BIN)/bitfront demo --out demo-out

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS) --dist loadfile

lint: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench-peers: $(STAMP) $(PEERS)
	$(BIN)/python -m benchmarks.peers

bench-gguf: $(STAMP) .venv-llama/.installed
	BITFRONT_TEST_LLAMA_CPP=.venv-llama/bin/python $(BIN)/python -m benchmarks.gguf

clean:
	rm -rf .venv .venv-peers .venv-llama demo-out build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Bitfront needs Python 3.11 or newer")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) \
		"$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	touch $@

# torch first, then the rest without dependencies, so that nothing brings another torch
.venv-peers/%/.installed: benchmarks/peers/%.txt
	$(PYTHON) -m venv .venv-peers/$*
	.venv-peers/$*/bin/python -m pip install $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) \
		"$$(grep '^torch==' $<)"
	.venv-peers/$*/bin/python -m pip install --no-deps -r $<
	.venv-peers/$*/bin/python -m pip check
	touch $@

# Not for this processor: some virtual machines announce AMX and do not have it.
.venv-llama/.installed: benchmarks/llama_cpp.txt
	$(PYTHON) -m venv .venv-llama
	CMAKE_ARGS=-DGGML_NATIVE=OFF .venv-llama/bin/python -m pip install --no-cache-dir -r $<
	touch $@
