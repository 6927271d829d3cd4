"""Text from outside only says something, wherever it is shown."""

from __future__ import annotations

import io
import json
import tomllib
import unicodedata
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snowsdeploy.gate.judge import judge
from snowsdeploy.plain_text import encodable, inert_json, markdown, plain, plain_lines, without_commands
from snowsdeploy.report.annotations import render_annotations
from snowsdeploy.report.html import render_html
from snowsdeploy.report.junit import render_junit
from snowsdeploy.report.markdown import render_markdown
from snowsdeploy.settings.policy import GatePolicy
from snowsdeploy.streams import PlainStream
from snowsdeploy.values import Report
from tests.sample_report import make_report

HOSTILE = (
    "\x1b[31mRED\x1b]0;title\x07",
    "\x9b31mC1",
    "a\u202eb\u2066c",
    "line\r\n::error title=pwn::pwned",
    "::stop-commands::tok",
    "##[error]old style",
    "##vso[task.complete result=Succeeded]done",
    "<script>alert(1)</script><img src=x onerror=alert(2)>",
    "\n\n# Passed: all fine\n\n[click](javascript:alert(1)) ![t](http://evil.example/p.png)",
    "x | y |\n|---|",
    "`code` *bold* _it_ ~~no~~ @team",
    "{{7*7}} {% raw %} ${{ secrets.X }}",
    "$\\frac$ $x^2$",
    "\x00\x08nul",
    "\ud800 half",
    "\ufffe\uffff",
)
ANY = st.one_of(
    st.text(max_size=60), st.sampled_from(HOSTILE), st.text("\x1b\x9b\r\n\u202e:#[]<>|`_*@ ab", max_size=40)
)


def acts(text: str) -> list[str]:
    return [c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")]


@given(ANY)
def test_plain_is_one_line_of_characters_that_only_say_something(text: str) -> None:
    shown = plain(text)
    assert not acts(shown)
    assert plain(shown) == shown
    if text.isascii() and text.isprintable():
        assert shown == text


@given(ANY)
def test_no_line_is_a_command_to_a_ci_server(text: str) -> None:
    for shown in (plain_lines(text), without_commands(text)):
        assert not [line for line in shown.split("\n") if line.lstrip().startswith("::")]
        assert "##[" not in shown
        assert "##vso[" not in shown
    assert set(acts(plain_lines(text))) <= {"\n"}


@given(ANY)
def test_a_stream_shows_no_more_and_takes_what_its_encoding_lacks(text: str) -> None:
    for encoding in ("ascii", "utf-8", "latin-1"):
        under = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="\n")
        stream = PlainStream(under)
        stream.write(text)
        stream.flush()
        under.seek(0)
        assert set(acts(under.read())) <= {"\n"}


@given(ANY)
def test_json_holds_the_same_and_is_inert(text: str) -> None:
    value = {"name": encodable(text)}
    shown = inert_json(json.dumps(value, ensure_ascii=False))
    assert json.loads(shown) == value
    assert not acts(shown)


@given(ANY)
def test_markdown_is_one_cell_without_structure(text: str) -> None:
    shown = markdown(text)
    assert not acts(shown)
    assert not set(shown) & set("|<`*")
    assert not shown.startswith("#")
    assert "](" not in shown


def hostile_report(text: str) -> Report:
    """Every name that a model or a folder gives, in a report that fails its layout gate."""
    text = encodable(text)
    report = make_report()
    content = json.loads(report.model_dump_json())
    (first, second), new = [d["name"] for d in content["prune"]["decisions"] if d["prunable"]], f"{text}."
    whole = json.dumps(content)
    for old in (first, second):
        whole = whole.replace(json.dumps(old)[1:-1], json.dumps(new + old)[1:-1])
    content = json.loads(whole)
    content["source"]["source"] = text or "x"
    content["signature"]["outputs"] = [text or "x"]
    content["warnings"] = [text]
    row = next(r for r in content["variants"][0]["sparsity"]["layers"])
    row["violations"], row["zeros"] = row["groups"], 0.0
    return Report.model_validate(content)


@pytest.mark.parametrize("text", HOSTILE)
def test_every_place_that_shows_a_report(text: str, tmp_path: Path) -> None:
    try:
        report = hostile_report(text)
    except ValueError:  # the report's own rules refuse such a layer
        report = make_report().model_copy(update={"warnings": (encodable(text),)})
        report = report.model_copy(update={"source": report.source.model_copy(update={"source": encodable(text)})})
    verdict = judge(report, GatePolicy())
    report = report.model_copy(update={"verdict": verdict})
    ET.fromstring(render_junit(report, verdict))
    for line in render_annotations(verdict):
        assert "\n" not in line
        assert not acts(line)
    page = render_html(report)
    assert "<script>alert(1)" not in page
    assert "<img src=x" not in page
    assert set(acts(page)) <= {"\n", "\t"}
    summary = render_markdown(report)
    assert "# Passed" not in summary.splitlines()
    assert "<script" not in summary
    assert "<img" not in summary
    assert "](javascript" not in summary
    assert set(acts(summary)) <= {"\n"}


@given(ANY)
def test_toml_is_read_back(text: str) -> None:
    import tomli_w  # noqa: PLC0415 - what writes config.toml

    assert tomllib.loads(tomli_w.dumps({"name": encodable(text)})) == {"name": encodable(text).replace("\r\n", "\r\n")}
