"""`factory predict` from end to end: formats, tasks, errors, interruption and resume."""

from __future__ import annotations

import csv
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from factory.cli.main import main
from factory.predict import job as job_module
from serving.predictor import Predictor

ROOT = Path(__file__).parents[2]
MakeBundle = Callable[..., Path]
WORDS = ("good", "a bad film", "not very fine", "the film was, ", 'a "fine"\nfilm', "café", "a")


def predict(
    bundle: Path, source: Path | str, output: Path | str, *more: str, **given: Any
) -> Result:
    arguments = ["predict", str(bundle), "--input", str(source), "--output", str(output), *more]
    return CliRunner().invoke(main, arguments, **given)


def some_texts(count: int) -> list[str]:
    return [f"{WORDS[i % 7]} {WORDS[i % 5]} {i % 11}" for i in range(count)]


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.fixture
def bundle(make_bundle: MakeBundle) -> Path:
    return make_bundle()


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_module, "CHUNK_ROWS", 8)


def test_answers_are_the_servers(bundle: Path, tmp_path: Path, small_chunks: None) -> None:
    texts = some_texts(50)
    source = write_jsonl(tmp_path / "in.jsonl", [{"id": i, "text": t} for i, t in enumerate(texts)])
    result = predict(bundle, source, tmp_path / "out.jsonl", "--all-scores", "--threads", "3")
    assert (result.exit_code, result.stdout) == (0, f"{tmp_path / 'out.jsonl'}\n"), result.output
    assert list(tmp_path.glob(".*")) == []
    predictor = Predictor.open(bundle)
    answers = read_jsonl(tmp_path / "out.jsonl")
    for number, (text, answer) in enumerate(zip(texts, answers, strict=True)):
        (expected,) = predictor.predict([text])
        assert list(answer)[:4] == ["id", "text", "label", "score"]
        assert (answer["id"], answer["text"]) == (number, text)
        scores = [answer[f"score_{label}"] for label in predictor.labels]
        assert scores == pytest.approx(expected.scores, abs=1e-6)
        assert answer["score"] == max(scores)
        assert answer["label"] == predictor.labels[int(np.argmax(expected.scores))]


def test_one_at_a_time_bundles_answer_exactly_as_the_server(
    make_bundle: MakeBundle, tmp_path: Path
) -> None:
    bundle = make_bundle(neighbour_independent=False, batch_dependent=True)
    texts = some_texts(20)
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": text} for text in texts])
    assert predict(bundle, source, tmp_path / "out.jsonl").exit_code == 0
    predictor = Predictor.open(bundle)
    expected = [max(predictor.predict([text])[0].scores) for text in texts]
    assert [row["score"] for row in read_jsonl(tmp_path / "out.jsonl")] == expected


def test_every_format_is_read_and_written(bundle: Path, tmp_path: Path, small_chunks: None) -> None:
    texts = [text.replace("\n", " ") for text in some_texts(30)]
    first = write_jsonl(
        tmp_path / "first.jsonl", [{"id": str(i), "text": t} for i, t in enumerate(texts)]
    )
    names = ["a.csv", "b.parquet", "c.tsv", "d.jsonl", "e.csv.gz", "f.jsonl.gz", "g.tsv.gz"]
    ways = [(names[i], names[(i + step) % 7]) for step in (1, 3) for i in range(7)]
    for number, (left, right) in enumerate(ways):
        source, output = tmp_path / f"in-{left}", tmp_path / f"{number}-{right}"
        if not source.exists():
            assert predict(bundle, first, source, "--prefix", "old_").exit_code == 0
        result = predict(bundle, source, output, "--prefix", "new_")
        assert result.exit_code == 0, result.output
        rows = everything(output)
        assert [row["text"] for row in rows] == texts
        assert [row["id"] for row in rows] == [str(i) for i in range(30)]
        names_of = ["id", "text", "old_label", "old_score", "new_label", "new_score"]
        assert all(list(row) == names_of for row in rows)
        assert all(row["old_label"] == row["new_label"] for row in rows)
        assert all(float(row["old_score"]) == float(row["new_score"]) for row in rows)


def everything(path: Path) -> list[dict[str, Any]]:
    """The rows of a file, by other readers than the product's."""
    if path.suffix == ".parquet":
        import pyarrow.parquet

        return list(pyarrow.parquet.read_table(path).to_pylist())
    content = path.read_bytes()
    if path.suffix == ".gz":
        content = gzip.decompress(content)
    text = content.decode()
    if ".jsonl" in path.name:
        return [json.loads(line) for line in text.splitlines()]
    if ".tsv" in path.name:
        return [
            dict(zip(text.split("\n")[0].split("\t"), line.split("\t"), strict=True))
            for line in text.split("\n")[1:-1]
        ]
    return list(csv.DictReader(text.splitlines(keepends=True)))


def test_parquet_keeps_its_types(bundle: Path, tmp_path: Path, small_chunks: None) -> None:
    import pyarrow
    import pyarrow.parquet

    nanoseconds = pyarrow.array([1, 2, None] * 10, pyarrow.timestamp("ns"))
    table = pyarrow.table(
        {"when": nanoseconds, "text": some_texts(30), "tags": [["x"], [], None] * 10}
    )
    pyarrow.parquet.write_table(table, tmp_path / "in.parquet")
    assert predict(bundle, tmp_path / "in.parquet", tmp_path / "out.parquet").exit_code == 0
    written = pyarrow.parquet.read_table(tmp_path / "out.parquet")
    assert written.select(["when", "text", "tags"]) == table
    assert written.column_names[3:] == ["label", "score"]


def test_json_lines_come_back_as_they_were(bundle: Path, tmp_path: Path) -> None:
    lines = ['{"text": "good", "n": 1.10, "big": 123456789012345678901 }', '{"n":[],"text":"bad"}']
    (tmp_path / "in.jsonl").write_text("\n".join(lines), "utf-8")
    assert predict(bundle, tmp_path / "in.jsonl", tmp_path / "out.jsonl").exit_code == 0
    written = (tmp_path / "out.jsonl").read_text("utf-8").splitlines()
    assert [line.split(',"label"')[0].rstrip(" }") for line in written] == [
        line.rstrip(" }") for line in lines
    ]


def test_csv_keeps_hard_cells(bundle: Path, tmp_path: Path) -> None:
    cells = ["a\rb", "a\nb", 'a "b"', ",", "", " padded ", "née \u2028 x"]
    with (tmp_path / "in.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["cell", "text"])
        writer.writerows([cell, "good"] for cell in cells)
    assert predict(bundle, tmp_path / "in.csv", tmp_path / "out.csv").exit_code == 0
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as stream:
        assert [row["cell"] for row in csv.DictReader(stream)] == cells
    result = predict(bundle, tmp_path / "in.csv", tmp_path / "out.tsv")
    assert result.exit_code == 1
    assert "which tsv cannot hold; write csv" in result.stderr


def test_a_legacy_spreadsheet_export(bundle: Path, tmp_path: Path) -> None:
    """Semicolons, Windows-1252, and a line break in a cell."""
    rows = 'id;text\r\n1;gut\r\n2;"schön;\r\nteuer"\r\n'
    (tmp_path / "in.csv").write_bytes(rows.encode("cp1252"))
    result = predict(bundle, tmp_path / "in.csv", tmp_path / "out.csv")
    assert result.exit_code == 0, result.output
    assert "in.csv: is not UTF-8; reading it as Windows-1252" in result.stderr
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as stream:
        written = list(csv.DictReader(stream))
    assert [(row["id"], row["text"]) for row in written] == [("1", "gut"), ("2", "schön;\r\nteuer")]
    assert all(0 < float(row["score"]) <= 1 for row in written)


def test_tasks(make_bundle: MakeBundle, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": text} for text in some_texts(12)])
    multilabel = make_bundle("many", task="multilabel", thresholds=[0.3, 0.5, 0.6])
    assert predict(multilabel, source, tmp_path / "many.jsonl", "--all-scores").exit_code == 0
    predictor = Predictor.open(multilabel)
    for row in read_jsonl(tmp_path / "many.jsonl"):
        (expected,) = predictor.predict([row["text"]])
        ranked = sorted(zip(expected.scores, predictor.labels, strict=True), reverse=True)
        applies = dict(zip(predictor.labels, expected.applies or (), strict=True))
        assert row["labels"] == [label for _, label in ranked if applies[label]]
        assert row["score_neutral"] == pytest.approx(expected.scores[1], abs=1e-6)
    assert predict(multilabel, source, tmp_path / "many.parquet").exit_code == 0
    assert [row["labels"] for row in everything(tmp_path / "many.parquet")] == [
        row["labels"] for row in read_jsonl(tmp_path / "many.jsonl")
    ]
    value = make_bundle("value", task="regression")
    assert predict(value, source, tmp_path / "value.csv").exit_code == 0
    (expected,) = Predictor.open(value).predict([some_texts(1)[0]])
    first = everything(tmp_path / "value.csv")[0]
    assert list(first) == ["text", "value"]
    assert float(first["value"]) == pytest.approx(expected.scores[0], abs=1e-6)


def test_pairs_and_column_names(make_bundle: MakeBundle, tmp_path: Path) -> None:
    pairs = make_bundle("pairs", text_pair=True)
    source = write_jsonl(tmp_path / "in.jsonl", [{"x": "good", "y": "bad", "text": "a"}])
    output = tmp_path / "out.jsonl"
    assert predict(pairs, source, output, "--text", "x", "--text-pair", "y").exit_code == 0
    (expected,) = Predictor.open(pairs).predict([("good", "bad")])
    assert read_jsonl(output)[0]["score"] == pytest.approx(max(expected.scores), abs=1e-6)
    result = predict(pairs, source, tmp_path / "other.jsonl")
    assert "no column 'text_pair'" in result.stderr
    single = predict(make_bundle(), source, tmp_path / "o.jsonl", "--text-pair", "y")
    assert "takes single texts; leave --text-pair out" in single.stderr


def test_the_recipe_decides_columns_and_quoting(bundle: Path, tmp_path: Path) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text("utf-8"))
    manifest["recipe"] = {"data": {"text": "sentence", "quoting": "standard"}}
    (bundle / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    (tmp_path / "in.tsv").write_text('text\tsentence\n1\t"a\tb"\n', "utf-8")
    assert predict(bundle, tmp_path / "in.tsv", tmp_path / "out.jsonl").exit_code == 0
    assert read_jsonl(tmp_path / "out.jsonl")[0]["sentence"] == "a\tb"


def test_bad_rows(bundle: Path, tmp_path: Path, small_chunks: None) -> None:
    rows: list[dict[str, Any]] = [{"text": text} for text in some_texts(40)]
    for place in range(3, 40, 3):
        rows[place] = {"text": ""}
    rows[1] = {"text": "a poison b"}
    source, output = write_jsonl(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    result = predict(bundle, source, output)
    assert result.exit_code == 1
    assert "13 rows cannot be scored; correct the file, or skip such rows" in result.stderr
    assert "- line 4: text is empty\n" in result.stderr
    assert result.stderr.endswith("- and 3 more\n")
    assert not output.exists()
    result = predict(bundle, source, output, "--on-error", "skip")
    assert result.exit_code == 0
    assert "line 2: the model fails on it; skipped" in result.stderr
    assert "13 rows are skipped" in result.stderr
    kept = [row["text"] for row in rows if row["text"] and "poison" not in row["text"]]
    assert [row["text"] for row in read_jsonl(output)] == kept
    (tmp_path / "alone.csv").write_text("text\npoison\n", "utf-8")
    result = predict(bundle, tmp_path / "alone.csv", tmp_path / "alone.jsonl")
    assert result.exit_code == 1
    assert "line 2: the model fails on it" in result.stderr


def test_existing_output_and_missing_input(bundle: Path, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": "good"}])
    result = predict(bundle, source, source)
    assert (result.exit_code, source.read_text("utf-8")) == (1, '{"text": "good"}\n')
    assert "exists already" in result.stderr
    result = predict(bundle, tmp_path / "none.csv", tmp_path / "out.csv")
    assert result.exit_code == 1
    assert "--input: no such file" in result.stderr


def test_standard_streams(bundle: Path, tmp_path: Path) -> None:
    content = "".join(json.dumps({"text": text}) + "\n" for text in some_texts(9))
    piped = predict(bundle, "-", "-", input=content)
    assert piped.exit_code == 0, piped.output
    (tmp_path / "in.jsonl").write_text(content, "utf-8")
    assert predict(bundle, tmp_path / "in.jsonl", tmp_path / "out.jsonl").exit_code == 0
    assert piped.stdout == (tmp_path / "out.jsonl").read_text("utf-8")
    assert predict(bundle, "-", tmp_path / "two.csv", input=content).exit_code == 0
    assert len(everything(tmp_path / "two.csv")) == 9
    result = predict(bundle, "-", tmp_path / "three.csv", input=content + '{"text": 1}\n')
    assert result.exit_code == 1
    assert "line 10: text is not text" in result.stderr
    assert sorted(path.name for path in tmp_path.glob("*three*")) == []
    assert list(tmp_path.glob(".*")) == []


def stop_after(monkeypatch: pytest.MonkeyPatch, chunks: int) -> None:
    """Make the next job end after some chunks, without cleaning up, like a kill."""
    original = job_module.score_chunks

    def few(*arguments: Any) -> Iterator[Any]:
        yield from islice(original(*arguments), chunks)
        raise RuntimeError("killed")

    monkeypatch.setattr(job_module, "score_chunks", few)


@pytest.mark.parametrize("name", ["out.csv", "out.jsonl.gz", "out.parquet"])
def test_interrupted_work_is_resumed(
    bundle: Path, tmp_path: Path, small_chunks: None, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": text} for text in some_texts(45)])
    whole, output = tmp_path / f"whole-{name}", tmp_path / name
    assert predict(bundle, source, whole).exit_code == 0
    with monkeypatch.context() as patched:
        stop_after(patched, 2)
        assert predict(bundle, source, output).exit_code == 1
    assert not output.exists()
    logits = tmp_path / f".{name}.partial" / "logits.float32"
    assert logits.stat().st_size == 16 * 3 * 4
    with logits.open("ab") as stream:
        stream.write(b"\xff" * 17)  # part of a row, as a kill inside of a write leaves
    scored: list[int] = []
    original = Predictor.logits

    def counting(self: Predictor, inputs: Any) -> Any:
        scored.append(len(inputs))
        return original(self, inputs)

    monkeypatch.setattr(Predictor, "logits", counting)
    assert predict(bundle, source, output).exit_code == 0
    assert sum(scored) == 45 - 16
    assert output.read_bytes() == whole.read_bytes()
    assert list(tmp_path.glob(".*")) == []


def test_partial_output_of_something_else(
    bundle: Path,
    make_bundle: MakeBundle,
    tmp_path: Path,
    small_chunks: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = [{"text": text, "other": "good"} for text in some_texts(45)]
    source, output = write_jsonl(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    with monkeypatch.context() as patched:
        stop_after(patched, 2)
        assert predict(bundle, source, output).exit_code == 1
    other = make_bundle("other", max_length=8)
    result = predict(other, source, output)
    assert result.exit_code == 1
    assert "is partial output for another bundle;" in result.stderr
    assert "start again with --restart" in result.stderr
    assert "another text column;" in predict(bundle, source, output, "--text", "other").stderr
    rows[0]["text"] = "bad"
    write_jsonl(source, rows)
    assert "for another input;" in predict(bundle, source, output).stderr
    assert predict(bundle, source, output, "--restart").exit_code == 0
    assert read_jsonl(output)[0]["text"] == "bad"


def test_two_processes_on_one_output(bundle: Path, tmp_path: Path) -> None:
    import fcntl

    source = write_jsonl(tmp_path / "in.jsonl", [{"text": "good"}])
    (tmp_path / ".out.jsonl.partial").mkdir()
    with (tmp_path / ".out.jsonl.partial" / "logits.float32").open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        result = predict(bundle, source, tmp_path / "out.jsonl", "--restart")
    assert result.exit_code == 1
    assert "another process is writing it" in result.stderr


def test_killed_half_way(bundle: Path, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": text} for text in some_texts(6_000)])
    output, whole = tmp_path / "out.csv", tmp_path / "whole.csv"
    program = [sys.executable, "-m", "factory", "predict", str(bundle), "--input", str(source)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [*program, "--output", str(output), "--threads", "1"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    logits = tmp_path / ".out.csv.partial" / "logits.float32"
    deadline = time.monotonic() + 30
    while not (logits.exists() and logits.stat().st_size):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert 0 < logits.stat().st_size < 6_000 * 12
    assert not output.exists()
    assert predict(bundle, source, output).exit_code == 0
    assert predict(bundle, source, whole).exit_code == 0
    assert output.read_bytes() == whole.read_bytes()


def test_csv_needs_neither_pyarrow_nor_the_build_stack(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("text\ngood\n", "utf-8")
    program = (
        "import sys\n"
        "sys.modules['pyarrow'] = None\n"
        "from factory.cli.main import main\n"
        "for name in ('csv', 'parquet'):\n"
        "    try:\n"
        f"        main(['predict', {str(bundle)!r}, '--input', {str(tmp_path / 'in.csv')!r},"
        f" '--output', {str(tmp_path)!r} + '/out.' + name])\n"
        "    except SystemExit as error:\n"
        "        sys.stdout.write(f'{error.code}\\n')\n"
        "loaded = {name.partition('.')[0] for name in sys.modules}\n"
        "heavy = {'torch', 'transformers', 'datasets', 'onnx', 'scipy'}\n"
        "sys.stdout.write(f'{loaded & heavy}\\n')\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = finished.stdout.splitlines()
    assert lines[1:] == ["0", "1", "set()"]
    assert "pip install 'pyarrow" in finished.stderr
