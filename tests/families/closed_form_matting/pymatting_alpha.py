"""Writes pymatting_alpha.npz: what pymatting makes of the composite of test_closed_form_matting.py.

    python -c "import numpy as np; from kerasmodels.models import closed_form_matting as m; \
        image, truth, strokes = m.synthetic_composite(120, 160); \
        np.savez('composite.npz', image=image, trimap=np.where(strokes, truth, 0.5))"
    # Where pymatting is installed (made with 1.1.16):
    python tests/families/closed_form_matting/pymatting_alpha.py composite.npz
"""

import sys
from pathlib import Path

import numpy as np
from pymatting import estimate_alpha_cf

given = np.load(sys.argv[1])
alpha = estimate_alpha_cf(given["image"], given["trimap"])
np.savez_compressed(Path(__file__).with_suffix(".npz"), alpha=np.rint(65535 * alpha).astype("uint16"))
