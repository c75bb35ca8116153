"""Raw bytes of csv, tsv and jsonl files to records with line numbers, by the standard library."""

from __future__ import annotations

import codecs
import gzip
import re
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from factory.data.telling import Findings, count, places

LINE_END = re.compile(r"\r\n|\n|\r")


@dataclass(slots=True)
class Records:
    """Delimited records and what is odd about their quotation marks, by line number.

    Args:
        fields: the fields of each record.
        numbers: the line each record begins on, from 1.
        stray: lines with a quotation mark inside an unquoted field.
        broken: why the scan stopped early, or None.
    """

    fields: list[list[str]] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    stray: list[int] = field(default_factory=list)
    broken: str | None = None


def read_text(path: Path, source: str, gzipped: bool, findings: Findings) -> str | None:
    """The decoded file without its byte order mark, or None with the problem noted."""
    content = read_bytes(path, source, gzipped, findings)
    if content is None:
        return None
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        findings.problems.append(f"{source}: is UTF-16; save it as UTF-8")
        return None
    try:
        return content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        findings.problems.append(_broken_encoding(content, error, source))
        return None


def read_bytes(path: Path, source: str, gzipped: bool, findings: Findings) -> bytes | None:
    """The file's bytes, unpacked, or None with the problem noted."""
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if gzipped else content
    except (OSError, EOFError, zlib.error) as error:
        advice = "pack it again" if gzipped else "check that it can be opened"
        findings.problems.append(f"{source}: cannot be read ({error}); {advice}")
        return None


def scan_unquoted(text: str, delimiter: str) -> Records:
    """Split lines at every delimiter; quotation marks are ordinary characters."""
    lines = LINE_END.split(text)
    if lines[-1] == "":
        lines.pop()
    return Records([line.split(delimiter) for line in lines], list(range(1, len(lines) + 1)))


def scan_quoted(text: str, delimiter: str) -> Records:
    """Split as RFC 4180 says: quoted fields may hold delimiters, line ends and doubled marks."""
    token = re.compile(rf'"((?:[^"]++|"")*+)"|([^{delimiter}\r\n]*+)')
    records = Records()
    position, line, begins_at = 0, 1, 1
    fields: list[str] = []
    while position < len(text) or fields:
        match = token.match(text, position)
        assert match is not None, "the second branch matches nothing at all"
        quoted: str | None = match[1]
        opened_on, position = line, match.end()
        if quoted is None and match[2].startswith('"'):
            records.broken = f"the quotation mark opened on line {opened_on} is never closed"
            return records
        if quoted is None:
            fields.append(match[2])
            if '"' in match[2]:
                records.stray.append(line)
        else:
            fields.append(quoted.replace('""', '"'))
            line += len(LINE_END.findall(quoted))
        if text.startswith(delimiter, position):
            position += 1
            continue
        ending = LINE_END.match(text, position)
        if ending is None and position < len(text):
            records.broken = (
                f"the quotation mark opened on line {opened_on} is closed on line {line} "
                f"and followed by {text[position : position + 10]!r}"
            )
            return records
        records.fields.append(fields)
        records.numbers.append(begins_at)
        if ending is None:
            return records
        position, line, fields = ending.end(), line + 1, []
        begins_at = line
    return records


def looks_quoted(value: str) -> bool:
    """Whether a csv writer with quoting could have written this field as it stands."""
    enclosed = len(value) >= 2 and value.startswith('"') and value.endswith('"')
    return enclosed and '"' not in value[1:-1].replace('""', "")


def note_quotation_marks(records: Records, source: str, findings: Findings) -> None:
    """Notices about marks that quoting = "none" keeps as part of the text."""
    quoted_lines: list[int] = []
    unbalanced_lines: list[int] = []
    doubled = 0
    for number, fields in zip(records.numbers, records.fields, strict=True):
        marked = [value for value in fields if '"' in value]
        enclosed = [value for value in marked if looks_quoted(value)]
        if enclosed:
            quoted_lines.append(number)
            doubled += any('""' in value[1:-1] for value in enclosed)
        if any(value.count('"') % 2 for value in marked):
            unbalanced_lines.append(number)
    if quoted_lines:
        findings.notices.append(
            f"{places(source, 'line', quoted_lines)}: {count(len(quoted_lines), 'line')} with a "
            f"field enclosed in quotation marks ({doubled:,} with doubled marks inside), "
            "as if the file had been written with quoting; "
            'if it was, set data.quoting = "standard" (now the marks are part of the text)'
        )
    if unbalanced_lines:
        findings.notices.append(
            f"{places(source, 'line', unbalanced_lines)}: {count(len(unbalanced_lines), 'line')} "
            'with an unbalanced quotation mark, kept as part of the text (data.quoting = "none")'
        )


def note_quoting_errors(records: Records, source: str, findings: Findings) -> None:
    """Problems with marks that quoting = "standard" cannot make sense of."""
    advice = (
        'close it, double a mark that belongs to the text, or set data.quoting = "none" '
        "if marks are ordinary characters in this file"
    )
    stray = list(dict.fromkeys(records.stray))
    if stray:
        findings.problems.append(
            f"{places(source, 'line', stray)}: {count(len(stray), 'line')} with a stray quotation "
            f"mark, inside a field that is not enclosed in marks; {advice}"
        )
    if records.broken is not None:
        findings.problems.append(f"{source}: {records.broken}; {advice}")


def _broken_encoding(content: bytes, error: UnicodeDecodeError, source: str) -> str:
    broken = [
        number for number, line in enumerate(content.split(b"\n"), start=1) if not _is_utf8(line)
    ]
    return (
        f"{places(source, 'line', broken)}: not UTF-8 on {count(len(broken), 'line')}; the first "
        f"is byte 0x{content[error.start]:02x} at offset {error.start}; save the file as UTF-8"
    )


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
