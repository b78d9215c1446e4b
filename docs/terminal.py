"""A command in a terminal of 80 columns and 30 lines, as an SVG that shows what it says line by line, and scrolls.

    python docs/terminal.py results/terminal.svg recbole-dsl train --model=BPR --dataset=ml-100k --density=0.1

Bars and what else is overwritten are left out. Waits are cut short; who wants less motion sees the end at once.
"""

import html
import os
import pty
import re
import shlex
import sys
import tempfile
import termios
from pathlib import Path
from time import perf_counter

COLUMNS, LINES = 80, 30
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_UP = "\x1b[A"
# seconds of the recording: before the first line, from line to line at the most, and from the first to the last
_BEFORE, _LONGEST, _ALL = 1.0, 1.0, 10.0
# pixels
_LETTER, _LINE, _EDGE, _BAR = 8.4, 19, 16, 30
_STYLE = """
text { font: 14px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; fill: #d7dae0; }
text, tspan { white-space: pre; }
.prompt { fill: #4db6ac; }
text { animation: shown 1ms backwards; }
@keyframes shown { from { opacity: 0; } }
@media (prefers-reduced-motion: reduce) { * { animation: none !important; } }
"""


def record(command: list[str]) -> list[tuple[float, str]]:
    """Run ``command`` in a pseudo-terminal: the seconds after which each line was complete, and the line.

    Raises:
        SystemExit: if the command fails.
    """
    start, said, times = perf_counter(), b"", []
    child, terminal = pty.fork()
    if child == 0:
        termios.tcsetwinsize(0, (LINES, COLUMNS))
        os.environ |= {"COLUMNS": str(COLUMNS), "LINES": str(LINES), "TERM": "xterm"}
        os.execvp(command[0], command)
    while True:
        try:
            part = os.read(terminal, 2**16)
        except OSError:
            break
        if not part:
            break
        said += part
        times += [perf_counter() - start] * part.count(b"\n")
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        sys.exit(said.decode())
    lines = said.decode().split("\n")
    # a bar below another moves down and up again; what is drawn there is gone in the end
    return [(time, seen(line)) for time, line in zip(times, lines) if _UP not in line]


def seen(line: str) -> str:
    """What ``line`` shows once every carriage return has let it be overwritten."""
    cells: list[str] = []
    for part in _ESCAPES.sub("", line).split("\r"):
        cells[: len(part)] = part
    return "".join(cells).rstrip()


def drawn(command: list[str], lines: list[tuple[float, str]]) -> str:
    """An SVG of ``command`` and its ``lines``; one that is too long goes on in the next."""
    waits = [min(_LONGEST, b - a) for (a, _), (b, _) in zip([(0.0, ""), *lines], lines)]
    haste = min(1.0, _ALL / (sum(waits) or 1.0))
    typed = f'<tspan class="prompt">$ </tspan>{html.escape(shlex.join(command), quote=False)}'
    rows, time = [(0.0, typed)], _BEFORE
    for wait, (_, line) in zip(waits, lines):
        time += haste * wait
        pieces = [line[i : i + COLUMNS] for i in range(0, len(line), COLUMNS)] or [""]
        rows += [(time, html.escape(piece, quote=False)) for piece in pieces]
    width, height = 2 * _EDGE + COLUMNS * _LETTER, _BAR + 2 * _EDGE + LINES * _LINE
    # where the page is once there are more rows than the terminal has lines; 0 until then
    moves = [(at, min(0, LINES - number) * _LINE) for number, (at, _) in enumerate(rows, 1)]
    keys = "".join(f"{100 * at / time:.2f}% {{ transform: translateY({y}px); }}\n" for at, y in moves if y)
    scroll = f"@keyframes scroll {{ from {{ transform: none; }}\n{keys}}}"
    page = f"transform: translateY({moves[-1][1]}px); animation: scroll {time:.2f}s step-end"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}">',
        f"<title>{html.escape(shlex.join(command))}</title>\n<style>{_STYLE}{scroll}</style>",
        f'<rect width="{width:g}" height="{height:g}" rx="8" fill="#1e2127" stroke="#4b5263"/>',
        *(f'<circle cx="{18 + 20 * n}" cy="18" r="6" fill="#5c6370"/>' for n in range(3)),
        f'<svg y="{_BAR}" width="{width:g}" height="{height - _BAR - _EDGE:g}"><g style="{page}">',
    ]
    for number, (at, text) in enumerate(rows):
        if text:
            length = f' textLength="{_LETTER * len(html.unescape(text)):.1f}"' if number else ""
            place = f'x="{_EDGE}" y="{_LINE * (number + 1):g}"{length} style="animation-delay: {at:.2f}s"'
            parts.append(f'<text {place} xml:space="preserve">{text}</text>')
    return "\n".join([*parts, "</g></svg>", "</svg>\n"])


def main() -> None:
    file, command = Path(sys.argv[1]).resolve(), sys.argv[2:]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        lines = record(command)
        os.chdir(file.parent)
    file.write_text(drawn(command, lines))


if __name__ == "__main__":
    main()
