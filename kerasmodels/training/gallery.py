"""gallery.html: one self-contained page with a run's pictures, curves and settings.

It is made from the files of the run folder alone (run.json, log.csv, samples/), so it can be remade at any time.
"""

import base64
import html
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from kerasmodels import storage
from kerasmodels.data.images import read_image
from kerasmodels.errors import DataError
from kerasmodels.runs import RunFolder, read_log

# A page that grows with the run would stop opening on a phone: so many pictures per series, so large, so many points.
PICTURES = 12
PIXELS = 512
POINTS = 300

_NOT_CURVES = ("step", "seconds", "learning_rate", "examples/s")


def write_gallery(folder: str | Path) -> Path:
    """Write folder/gallery.html from what the run folder holds. The page says which pictures cannot be read.

    Raises:
        TrainingError: run.json is damaged.
        StorageError: it cannot be written.
    """
    folder = Path(folder)
    card = _read_card(folder)
    title = f"{card['family']} · {folder.resolve().name}" if "family" in card else folder.resolve().name
    body = [f"<header><h1>{html.escape(title)}</h1>{_facts(card)}</header>"]
    body += [_pictures(samples(folder))]
    body += [_curves(columns(folder / "log.csv"))]
    body += [_table("Config", card.get("config", {})), _table("Versions", card.get("versions", {}))]
    if card.get("command"):
        body += [f"<section><h2>Command</h2><pre>{html.escape(card['command'])}</pre></section>"]
    page = _PAGE.replace("{title}", html.escape(title)).replace("{body}", "\n".join(filter(None, body)))
    return storage.write_text(folder / "gallery.html", page)


def samples(folder: Path) -> dict[str, list[tuple[int, Path]]]:
    """Series name -> (step, picture or text file) in step order."""
    series: dict[str, list[tuple[int, Path]]] = {}
    for path in (folder / "samples").glob("step-*"):
        match = re.fullmatch(r"step-(\d+)-(.+)", path.stem)
        if match and path.suffix in (".png", ".txt"):
            series.setdefault(match[2], []).append((int(match[1]), path))
    return {name: sorted(series[name]) for name in sorted(series)}


def columns(path: Path) -> dict[str, list[float]]:
    """The columns of log.csv by name; empty if there is none, or it cannot be read. Damaged rows are left out."""
    try:
        names, rows = read_log(path)
    except OSError:
        return {}
    return {name: [float(row[i] or "nan") for row in rows] for i, name in enumerate(names)}


def _read_card(folder: Path) -> dict[str, Any]:
    # A gallery also serves in a plain `fit`, where no run.json exists.
    run = RunFolder(folder)
    return run.read() if run.card_path.is_file() else {}


def _facts(card: Mapping[str, Any]) -> str:
    if not card:
        return ""
    minutes = card["seconds"] / 60
    facts = [
        f'<b class="{html.escape(card["state"])}">{html.escape(card["state"])}</b>',
        f"step {card['step']} of {card['steps']}",
        f"{minutes:.1f} min" if minutes < 100 else f"{minutes / 60:.1f} h",
        f"started {html.escape(card['started'])}",
        f"seed {card['seed']}",
    ]
    return f'<p class="facts">{" · ".join(facts)}</p>'


def _pictures(series: Mapping[str, Sequence[tuple[int, Path]]]) -> str:
    if not series:
        return ""
    latest = "".join(_figure(path, name, PIXELS) for name, steps in series.items() for step, path in steps[-1:])
    newest = max(steps[-1][0] for steps in series.values())
    text = [f'<section><h2>Step {newest}</h2><div class="latest">{latest}</div></section>']
    if any(len(steps) > 1 for steps in series.values()):
        text.append("<section><h2>On the way</h2>")
        for name, steps in series.items():
            chosen = [steps[i] for i in _spread(len(steps), PICTURES)]
            shown = f" · {len(chosen)} of {len(steps)}" if len(chosen) < len(steps) else ""
            figures = "".join(_figure(path, f"step {step}", PIXELS // 2) for step, path in chosen)
            text.append(f'<h3>{html.escape(name)}{shown}</h3><div class="strip">{figures}</div>')
        text.append("</section>")
    return "".join(text)


def _figure(path: Path, caption: str, pixels: int) -> str:
    try:
        if path.suffix == ".txt":
            text = html.escape(path.read_text(encoding="utf-8", errors="replace"))
            return f"<figure><pre>{text}</pre><figcaption>{html.escape(caption)}</figcaption></figure>"
        picture = Image.fromarray(read_image(path, pixels))
    except (DataError, OSError) as error:
        # One picture less is no reason to have no page, or to end a training.
        why = html.escape(f"{path.name} cannot be read: {error}")
        return f"<figure><pre>{why}</pre><figcaption>{html.escape(caption)}</figcaption></figure>"
    encoded = io.BytesIO()
    picture.save(encoded, "JPEG", quality=88, subsampling=0)
    data = base64.b64encode(encoded.getvalue()).decode()
    caption = html.escape(caption)
    return (
        f'<figure><img src="data:image/jpeg;base64,{data}" width="{picture.width}" height="{picture.height}" '
        f'alt="{caption}"><figcaption>{caption}</figcaption></figure>'
    )


def _spread(count: int, most: int) -> list[int]:
    """At most `most` indices below `count`, evenly spread, first and last included."""
    if count <= most:
        return list(range(count))
    return [round(i * (count - 1) / (most - 1)) for i in range(most)]


def _curves(log: Mapping[str, Sequence[float]]) -> str:
    steps = log.get("step", ())
    if len(steps) < 2:
        return ""
    charts = [_chart(name, steps, values) for name, values in log.items() if name not in _NOT_CURVES]
    return f'<section><h2>Losses</h2><div class="charts">{"".join(charts)}</div></section>'


def _chart(name: str, steps: Sequence[float], values: Sequence[float]) -> str:
    """One curve as inline SVG; logarithmic where the values are positive and span more than a factor of ten."""
    points = [(steps[i], values[i]) for i in _spread(len(steps), POINTS) if math.isfinite(values[i])]
    if not points:
        return ""
    ys = [y for _, y in points]
    logarithmic = min(ys) > 0 and max(ys) > 10 * min(ys)
    scaled = [math.log10(y) if logarithmic else y for y in ys]
    low, high = min(scaled), max(scaled)
    left, right = points[0][0], points[-1][0]
    width, height, margin = 320, 120, 6
    path = " ".join(
        f"{margin + (x - left) / ((right - left) or 1) * (width - 2 * margin):.1f},"
        f"{height - margin - (y - low) / ((high - low) or 1) * (height - 2 * margin):.1f}"
        for (x, _), y in zip(points, scaled, strict=True)
    )
    scale = " · log scale" if logarithmic else ""
    return (
        f'<figure class="chart"><figcaption><b>{html.escape(name)}</b> {ys[-1]:.4g}<small>{scale}</small></figcaption>'
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{html.escape(name)} over steps">'
        f'<polyline points="{path}"/></svg>'
        f'<div class="axis"><span>step {left:.0f}</span><span>{min(ys):.3g} to {max(ys):.3g}</span>'
        f"<span>step {right:.0f}</span></div></figure>"
    )


def _table(heading: str, values: Mapping[str, Any]) -> str:
    if not values:
        return ""
    rows = "".join(
        f"<tr><th>{html.escape(str(k))}</th><td>{html.escape(v if isinstance(v, str) else json.dumps(v))}</td></tr>"
        for k, v in values.items()
    )
    return f"<section><h2>{heading}</h2><table>{rows}</table></section>"


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
:root { --ground: #fbfaf8; --card: #fff; --ink: #1c1b1a; --soft: #6d6963; --line: #e4e0da; --accent: #b4532a; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #161514; --card: #201f1d; --ink: #ece9e4; --soft: #a09a92; --line: #35322e; --accent: #f0925f; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.25rem clamp(1rem, 4vw, 3rem) 4rem; max-width: 76rem; background: var(--ground);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
h1 { margin: 0; font-size: clamp(1.4rem, 4vw, 2rem); line-height: 1.2; overflow-wrap: anywhere; }
h2 { margin: 2.2rem 0 .7rem; font-size: 1.1rem; }
h3 { margin: 1.1rem 0 .4rem; font-size: .9rem; font-weight: 500; color: var(--soft); }
.facts { margin: .4rem 0 0; color: var(--soft); }
.facts b { color: var(--accent); }
figure { margin: 0; }
figcaption { padding-top: .3rem; font-size: .85rem; color: var(--soft); }
img { display: block; height: auto; border-radius: 6px; background: var(--line); }
.latest { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 18rem), 1fr)); gap: 1rem; }
.latest img { width: 100%; max-width: 40rem; }
.strip { display: flex; gap: .6rem; overflow-x: auto; padding-bottom: .5rem; }
.strip figure { flex: none; }
.strip img { width: auto; height: 9rem; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 17rem), 1fr)); gap: 1rem; }
.chart { padding: .7rem .9rem; background: var(--card); border: 1px solid var(--line); border-radius: 8px; }
.chart figcaption { padding: 0; color: var(--ink); }
.chart svg { display: block; width: 100%; height: auto; }
.chart polyline { fill: none; stroke: var(--accent); stroke-width: 1.6; stroke-linejoin: round; }
.axis { display: flex; justify-content: space-between; font-size: .72rem; color: var(--soft); }
small { color: var(--soft); }
table { width: 100%; border-collapse: collapse; font-size: .9rem; }
th, td { padding: .35rem .6rem .35rem 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top;
  overflow-wrap: anywhere; }
th { width: 32%; font-weight: 500; color: var(--soft); }
pre { padding: .8rem; background: var(--card); border: 1px solid var(--line); border-radius: 8px; white-space: pre-wrap;
  overflow-wrap: anywhere; font-size: .85rem; }
</style>
{body}
</html>
"""
