# `make demo` and `make test` need Python 3.11-3.13 and make; everything else goes into .venv.
# Another Python: make demo PYTHON=/path/to/python3.12

SUPPORTED := import sys, ensurepip, venv; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	"$$p" -c '$(SUPPORTED)' >/dev/null 2>&1 && { command -v "$$p"; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

PRESET ?= starry_night
DEMO_PHOTO ?= demo/before.png

.PHONY: demo test lint types addons site web clean

$(INSTALLED): pyproject.toml
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || test -n "$(PYTHON)" || { \
	  echo "No Python 3.11, 3.12 or 3.13 with venv was found. Install one (on Debian and Ubuntu with its python3-venv" \
	    "package), or name it: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { echo "making $(VENV) with $(PYTHON)"; "$(PYTHON)" -m venv $(VENV); }
	@echo "installing kerasmodels and its tools into $(VENV) (TensorFlow is large: this may take some minutes)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

# A real photograph (scikit-image's cat), a shipped painting, three artifacts, each executed and compared.
demo: $(INSTALLED)
	@mkdir -p demo
	@test -e "$(DEMO_PHOTO)" || $(BIN)/python -c "import skimage.data, PIL.Image; \
	  PIL.Image.fromarray(skimage.data.chelsea()).save('$(DEMO_PHOTO)')"
	$(BIN)/kerasmodels run fast_style "$(DEMO_PHOTO)" --preset $(PRESET) -o demo/after.png
	@rm -rf demo/served
	$(BIN)/kerasmodels export fast_style/$(PRESET) --out demo/served
	@$(BIN)/python -c "import PIL.Image as I; a, b = I.open('$(DEMO_PHOTO)').convert('RGB'), I.open('demo/after.png'); \
	  b = b.convert('RGB').resize(a.size); both = I.new('RGB', (2 * a.width, a.height)); \
	  both.paste(a, (0, 0)); both.paste(b, (a.width, 0)); both.save('demo/before_after.png')"
	@echo "before and after, side by side: demo/before_after.png"

test: lint types addons
	$(BIN)/python -m pytest -n 2 --dist loadgroup --no-loadscope-reorder

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# A type checker cannot follow the import path of export/ and apps/ in a checkout: check a copy laid out as the wheel.
types: $(INSTALLED)
	@rm -rf build/types && mkdir -p build/types
	@cp -r kerasmodels build/types/ && cp -r export apps build/types/kerasmodels/
	cd build/types && ../../$(BIN)/mypy --config-file ../../pyproject.toml -p kerasmodels

# The retired tensorflow-addons, which the tests compare our layers with. It has wheels up to Python 3.11, and needs a
# typeguard that the command line cannot use: a folder of its own, which only the tests' oracle process sees.
ADDONS := build/addons/.installed
addons: $(INSTALLED)
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { \
	  echo "not on Python 3.11: the comparison with tensorflow-addons will be skipped"; exit 0; }; \
	test -e $(ADDONS) || { $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
	  --target build/addons 'tensorflow-addons==0.23.*' 'tf_keras==2.21.*' 'typeguard==2.13.*' && touch $(ADDONS); }

# The pages as a static site, in build/site.
site: $(INSTALLED)
	$(BIN)/python docs/site.py

# The browser's runtimes, from npm, beside the page that uses them: about 40 MB, which are not committed.
WEB_RUNTIMES := @litertjs/core@2.5 @litertjs/wasm-utils@2.5 onnxruntime-web@1.30
web: $(INSTALLED)
	@mkdir -p build/npm
	npm install --no-audit --no-fund --ignore-scripts --prefix build/npm $(WEB_RUNTIMES)
	$(BIN)/python -m kerasmodels.apps.serving.web build/npm/node_modules

clean:
	rm -rf build dist demo *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
