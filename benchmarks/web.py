"""The page in headless Chromium beside Python: each model of an export on a real photo, pixel by pixel.

Writes results/web.json: python benchmarks/web.py FOLDER. Needs Chromium, Playwright, and `make web`.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from kerasmodels import storage
from kerasmodels.apps.serving import web
from kerasmodels.data.images import read_image
from tests.apps.serving.pages import Page, browser, compared, files_of, strokes

RESULTS = Path(__file__).parent / "results" / "web.json"


def main() -> None:
    import skimage.data

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--engines", nargs="*", default=["litert", "onnx"])
    parser.add_argument("--screenshots", type=Path)
    options = parser.parse_args()
    photo_file = Path(skimage.data.__file__).parent / "rocket.jpg"
    photo, rows = read_image(photo_file), []
    index = json.loads((options.folder / "export.json").read_text())["models"]
    with tempfile.TemporaryDirectory() as place:
        web.write_static(options.folder, Path(place))
        with files_of(Path(place)) as url, browser() as chromium:
            context = chromium.new_context(viewport={"width": 1280, "height": 860})
            page = Page(context.new_page(), url)
            for name in options.only or index:
                for engine in options.engines:
                    files = {a["format"]: a for a in index[name]["artifacts"]}
                    page.choose(name, engine)
                    if page.page.is_visible("#photo-choice"):
                        page.photo(photo_file)
                    if page.page.is_visible("#strokes"):
                        strokes(page)
                    began = time.perf_counter()
                    said = page.run()
                    wall = time.perf_counter() - began
                    artifact = files[engine]
                    found = compared(page, options.folder / artifact["path"], photo, artifact["runtime"])
                    title = {"litert": "LiteRT.js", "onnx": "ONNX Runtime Web"}[engine]
                    rows.append({"model": name, "runtime": title, **found, "seconds": round(wall, 1), "said": said})
                    print(rows[-1], flush=True)
                    if options.screenshots:
                        page.page.screenshot(path=options.screenshots / f"{name}_{engine}.png")
            foreign = sorted({request for request in page.requests if not request.startswith((url, "blob:", "data:"))})
            sizes = [
                *(web.PAGE / n for n in web.FILES),
                *(web.RUNTIME / n for n in web.LITERT.values() if "compat" not in n),
            ]
            result = {
                "chromium": chromium.version,
                "photo": "skimage.data rocket.jpg",
                "page_and_litert_mb": round(sum(path.stat().st_size for path in sizes) / 1e6, 2),
                "requests": len(page.requests),
                "requests_off_the_loopback": len(foreign),
                "models": rows,
            }
        # Rows that were not measured again stay.
        if RESULTS.exists():
            new = {(row["model"], row["runtime"]) for row in rows}
            before = json.loads(RESULTS.read_text())["models"]
            result["models"] = [row for row in before if (row["model"], row["runtime"]) not in new] + rows
        storage.write_json(RESULTS, result)
        print(json.dumps({k: v for k, v in result.items() if k != "models"}, indent=2))


if __name__ == "__main__":
    main()
