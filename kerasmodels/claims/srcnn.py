"""The claims of `srcnn`: the presets on the papers' benchmarks, beside bicubic interpolation."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from kerasmodels import presets
from kerasmodels.claims import enlarging
from kerasmodels.family import Claim, Experiment
from kerasmodels.tasks.upscale import upscale


def benchmarks(data: Path | None, figures: Path, quick: bool) -> Sequence[Claim]:
    """PSNR and SSIM on Set5 (x3, x4) and Set14 (x4)."""
    found = []
    for name, scale in (("Set5", 3),) if quick else (("Set5", 3), ("Set5", 4), ("Set14", 4)):
        model = presets.preset("srcnn", f"x{scale}").load()
        ways: dict[str, enlarging.Enlarge] = {"bicubic": enlarging.bicubic(scale), "srcnn": partial(upscale, model)}
        results = enlarging.scores(enlarging.pictures(data, name, scale), ways, scale)
        published = dict(zip(ways, enlarging.PUBLISHED[name, scale], strict=True))
        for way, values in results.items():
            what = {"bicubic": "bicubic interpolation", "srcnn": f"preset x{scale} (9-1-5)"}[way]
            of = {"bicubic": "", "srcnn": " (9-5-5)"}[way]
            gates: dict[str, dict[str, float]] = {"psnr": {}, "ssim": {}}
            if way == "bicubic":
                psnr, ssim = (float(value) for value in published[way].split(" / "))
                gates["psnr"] = {"at_least": psnr - 0.05, "at_most": psnr + 0.05}
                gates["ssim"] = {"at_least": ssim - 0.002, "at_most": ssim + 0.002}
            for number, (key, unit) in enumerate((("psnr", "dB"), ("ssim", "1"))):
                text = f"{name} x{scale}, {what}: {key.upper()}, {unit}"
                paper = published[way].split(" / ")[number] + of
                ours = round(values[key], 2 if key == "psnr" else 4)
                found.append(Claim(f"{name.lower()}_x{scale}_{way}_{key}", text, paper, ours, **gates[key]))
        gain = results["srcnn"]["psnr"] - results["bicubic"]["psnr"]
        gate = {"at_least": 1.0} if (name, scale) == ("Set5", 3) else {}
        text = f"{name} x{scale}: what the preset is better than bicubic interpolation, dB"
        told = [float(each.split(" / ")[0]) for each in published.values()]
        paper = f"{told[1] - told[0]:.2f} (9-5-5)"
        found.append(Claim(f"{name.lower()}_x{scale}_gain", text, paper, round(gain, 2), **gate))
    return found


EXPERIMENTS = {"benchmarks": Experiment("the presets beside bicubic interpolation, on Set5 and Set14", benchmarks)}
