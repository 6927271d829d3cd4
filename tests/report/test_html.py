"""The HTML report: self-contained, readable in light and dark, at desktop and phone width."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from snowsdeploy.gate.judge import judge
from snowsdeploy.report.compare import render_comparison
from snowsdeploy.report.html import render_html
from snowsdeploy.report.markdown import render_markdown
from snowsdeploy.settings.policy import GatePolicy
from snowsdeploy.values import Precision, Report
from tests.sample_report import make_report, with_engine, with_variant

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
)


def judged(report: Report) -> Report:
    return report.model_copy(update={"verdict": judge(report, GatePolicy())})


def several_precisions() -> Report:
    report = with_engine(make_report())
    (variant,) = report.variants
    assert variant.accuracy is not None
    precisions: tuple[Precision, ...] = ("fp32", "fp16", "int8")
    variants = []
    for precision in precisions:
        files = {
            role: getattr(variant, role).model_copy(
                update={"precision": precision, "kept": {"node_softmax": "values up to 7e+04"}}
            )
            for role in ("dense", "sparse")
        }
        metrics = tuple(m.model_copy(update={"same_precision": m.dense}) for m in variant.accuracy.metrics)
        same = variant.accuracy.model_copy(update={"metrics": metrics})
        variants.append(variant.model_copy(update=files | {"accuracy": same}))
    return judged(report.model_copy(update={"variants": tuple(variants)}))


def test_it_begins_with_the_verdict_and_holds_the_evidence() -> None:
    text = render_html(several_precisions())
    assert text.index("gates met") < text.index("<h2")
    for part in (
        "91.20%",
        "same class",
        "stages.0.blocks.1.conv_pw_expand.conv1",
        "depthwise",
        "FP16",
        "INT8",
        "node_softmax",
    ):
        assert part in text


@pytest.mark.parametrize(("right", "word"), [(912, "Passed"), (600, "Failed")])
@pytest.mark.parametrize("render", [render_html, render_markdown])
def test_a_verdict_is_shown_whatever_it_is(render: Callable[[Report], str], right: int, word: str) -> None:
    text = render(judged(make_report(sparse_right=right)))
    assert word in text
    assert "Not judged" not in text
    assert "&lt;= 2 points" in text or "<= 2 points" in text  # the gates are listed


@pytest.mark.parametrize("render", [render_html, render_markdown])
def test_found_and_chosen_are_shown_where_an_engine_was_looked_at(render: Callable[[Report], str]) -> None:
    assert not {"found", "chosen"} & set(re.findall(r"\w+", render(make_report())))
    text = render(with_engine(make_report()))
    assert "TensorRT found 2 of 2 pruned layers eligible and chose sparse kernels for 1." in text
    assert "the engine timed both kernels and kept the faster one" in text
    assert "a note on &lt;names&gt;" in text or "a note on <names>" in text
    rows = re.findall(r"stages.\d.blocks.1.conv_pw_expand.conv\d\W(?:.*\n?){1}", text)
    assert [re.findall(r"\b(?:yes|no|unknown)\b", row) for row in rows if "256x128x3x3" in row] == [
        ["yes", "yes"],
        ["yes", "no"],
    ]


def test_it_needs_neither_network_nor_scripts() -> None:
    text = render_html(several_precisions())
    assert "<script" not in text
    assert not re.search(r'(?:src|href)="(?!#|data:)[^"]', text.replace('xlink:href="#', 'href="#'))
    addresses = set(re.findall(r"https?://[^\s\"'<>]+", text))
    assert all(address.startswith("http://www.w3.org/") for address in addresses)  # names of XML vocabularies


def test_names_from_outside_are_escaped() -> None:
    report = make_report().model_copy(update={"command": "<img src=x onerror=alert(1)>"})
    assert "<img" not in render_html(report)


def test_a_report_with_nothing_measured_renders() -> None:
    bare = with_variant(make_report(), **dict.fromkeys(("accuracy", "latency", "parity", "sparsity")))
    assert "Not judged" in render_html(bare)
    assert "Not judged" in render_html(make_report().model_copy(update={"variants": ()}))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast(scheme: str) -> None:
    blocks = re.findall(r":root \{(.*?)\}", render_html(make_report()), re.DOTALL)
    colours = dict(re.findall(r"--(\w+): (#\w{6})", blocks[0 if scheme == "light" else 1]))
    for name in ("ink", "dense", "sparse", "pass", "fail", "inconclusive"):
        for background in ("page", "soft"):
            assert contrast(colours[name], colours[background]) >= 4.5, (name, background)


def contrast(one: str, other: str) -> float:
    """WCAG 2.2, contrast ratio."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance of `#rrggbb`."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.skipif(not CHROMIUM, reason="needs a Chromium browser, for example apt-get install chromium")
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("page", ["report", "comparison"])
def test_a_browser_shows_it_without_errors_and_without_sideways_scrolling(
    page: str, width: int, tmp_path: Path
) -> None:
    report = several_precisions()
    text = render_html(report) if page == "report" else render_comparison({"one": report, "another": report})
    errors, inner, outer = browse(text, width, tmp_path)
    assert "CONSOLE" not in errors
    assert inner <= outer == width


def browse(text: str, width: int, folder: Path) -> tuple[str, int, int]:
    """What a browser logged, the page's scroll width and the window's width."""
    probe = "<script>document.title = [document.documentElement.scrollWidth, innerWidth].join(' ')</script></body>"
    (folder / "report.html").write_text(text.replace("</body>", probe), encoding="utf-8")
    outer = f'<iframe src="report.html" width="{width}" height="2000" style="border:0"></iframe>'
    script = (
        "<script>onload = () => document.body.append(document.querySelector('iframe').contentDocument.title)</script>"
    )
    (folder / "outer.html").write_text(f"<!doctype html><title>t</title><body>{outer}{script}", encoding="utf-8")
    done = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files",
            "--enable-logging=stderr", f"--user-data-dir={folder / 'profile'}", f"--window-size={width + 40},2200",
            "--virtual-time-budget=2000", "--dump-dom", (folder / "outer.html").as_uri(),
        ],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    (sizes,) = re.findall(r"(\d+) (\d+)</body>", done.stdout)
    return done.stderr, int(sizes[0]), int(sizes[1])
