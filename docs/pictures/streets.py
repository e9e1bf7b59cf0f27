"""Draws deeplab.jpg and dilated_net.jpg from street.jpg (leuvenA.jpg of OpenCV's samples, Apache-2.0, made smaller)."""

import tempfile
from pathlib import Path

import numpy as np

from kerasmodels.data import read_image, write_image
from kerasmodels.models import deeplab, dilated_net

HERE = Path(__file__).parent


def main() -> None:
    photo = HERE / "street.jpg"
    for name, family in (("deeplab", deeplab), ("dilated_net", dilated_net)):
        with tempfile.TemporaryDirectory() as temporary:
            labels, overlay, legend = (Path(temporary, f"{what}.png") for what in ("labels", "overlay", "legend"))
            shown = [read_image(photo)]
            for crf in (True, False):
                given = {"preset": "streets", "overlay": overlay, "legend": legend, "crf": crf}
                task = family.FAMILY.task
                task.run(task.options(photo=photo, out=labels, **given))
                shown.insert(1, read_image(overlay))
            # The last one's, which has more labels than what the CRF has left.
            key = read_image(legend)
        strip = np.full((shown[0].shape[0], key.shape[1], 3), 255, "uint8")
        strip[: key.shape[0]] = key
        write_image(HERE / f"{name}.jpg", np.concatenate([*shown, strip], axis=1))


if __name__ == "__main__":
    main()
