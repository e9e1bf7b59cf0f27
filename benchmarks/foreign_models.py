"""Which of other people's models can be exported: python benchmarks/foreign_models.py [NAME ...]

Every model of tests/export/foreign.py in every format: executed and compared, or refused and why. Writes
benchmarks/results/foreign_models.json (with names: only their rows change), which docs/your_model.md quotes.
"""

import json
import sys
import tempfile
from pathlib import Path

import keras

from kerasmodels import export, storage
from kerasmodels.errors import KerasModelsError
from tests.export.foreign import MODELS

RESULT = Path(__file__).parent / "results" / "foreign_models.json"


def tried(name: str) -> dict[str, str]:
    """By format "proven, ..." or "refused: ..."."""
    make, arguments = MODELS[name]
    keras.utils.set_random_seed(0)
    model, outcome = make(), {}
    for form in export.FORMATS:
        with tempfile.TemporaryDirectory() as folder:
            try:
                (artifact,) = export.export(model, folder, formats=form.name, **arguments).artifacts
                largest = max(measured["max_abs_error"] for measured in artifact.measured)
                outcome[form.name] = f"proven, {largest:.1g} off at most"
            except KerasModelsError as error:
                # Of an artifact that is not equal, how it differs; the rest of the message is about folders.
                _, _, difference = str(error).partition(".rejected: ")
                why = (difference or str(error)).partition(". They are kept")[0]
                outcome[form.name] = f"refused: {why.splitlines()[0]}"
        print(name, form.name, outcome[form.name], flush=True)
    return outcome


if __name__ == "__main__":
    known = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    for each in sys.argv[1:] or MODELS:
        known[each] = tried(each)
        storage.write_json(RESULT, {name: known[name] for name in MODELS if name in known})
