"""Generated bad inputs: videos, masks, JSON, XML, CSV, Parquet and PNG files that strangers or broken disks may give.

    python -m benchmarks.bad_inputs [--json] [--count 1000] [--guided] [--kinds rle sav ...] [--seed 7]

Hypothesis generates them: random bytes, and valid files with random edits, cuts and repeats. With `--guided`, atheris
chooses the random numbers behind each of them: it watches which lines of the readers an input reaches, and goes on from
the inputs that reached new ones. Each is given to the code that reads such files. It must be read, or refused by an
error of the project's own kind in one line. Anything else is a crash; an input that takes longer than `PATIENCE_S` is a
hang. The inputs of a kind run in a process of their own, whose memory is limited: what wants more is a crash, too.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings

from benchmarks.kills.bad_input_kinds import KINDS, all_kinds, import_readers

PATIENCE_S = 60.0
MEMORY = 1 << 30  # bytes that a process may take beyond what it has when it begins


def try_kind(line: Connection, kind: str, count: int, number: int, guided: bool = False) -> None:
    """Tries `count` inputs of a kind. Sends a pair after each: "read", "refused" or "crash", and its traceback."""
    if guided:
        import atheris

        # Only what is imported inside is watched, so the readers must not have been imported before.
        with atheris.instrument_imports(include=["storage", "engine.stages"]):
            made, read, refuses = all_kinds()[kind]
            import_readers()
    else:
        made, read, refuses = all_kinds()[kind]
    limit = _memory() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    with tempfile.TemporaryDirectory() as folder:

        @seed(number)
        @settings(
            max_examples=count,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(made)
        def each(data: Any) -> None:
            try:
                read(data, Path(folder))
                said = ("read", "")
            except refuses as error:
                said = ("crash", f"a refusal of several lines: {error}") if "\n" in str(error) else ("refused", "")
            except BaseException:
                said = ("crash", f"{kind}: {data!r:.300}\n{traceback.format_exc()}")
            line.send(said)

        if guided:
            # The parent and the limit above watch time and memory, for both ways: libFuzzer's own limits are wide.
            limits = [f"-timeout={10 * PATIENCE_S:.0f}", "-rss_limit_mb=0", f"-artifact_prefix={folder}/"]
            options = [f"-runs={count}", f"-seed={number}", "-max_len=4096", "-len_control=0", *limits]
            fuzzed: Any = each  # hypothesis adds what atheris calls
            atheris.Setup([sys.argv[0], *options], fuzzed.hypothesis.fuzz_one_input)
            atheris.Fuzz()  # ends this process
        each()
    line.close()


def _memory() -> int:
    """The address space of this process, bytes."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def try_all(
    context: Any, count: int, number: int, guided: bool = False, kinds: Sequence[str] = KINDS
) -> dict[str, Any]:
    """Tries `count` inputs, of all kinds as many.

    context: of multiprocessing. number: what the inputs follow from. guided: by atheris, see above.
    """
    tried, crashes = dict[str, Counter[str]](), list[str]()
    for kind in kinds:
        tried[kind] = found = Counter[str]()
        line, theirs = context.Pipe(duplex=False)
        args = (theirs, kind, -(-count // len(kinds)), number, guided)
        process = context.Process(target=try_kind, args=args, daemon=True)
        process.start()
        theirs.close()
        while True:
            try:
                if not line.poll(PATIENCE_S):
                    found["hang"] += 1
                    process.kill()
                    break
                said, detail = line.recv()
            except EOFError:
                break
            found[said] += 1
            if said == "crash":
                crashes.append(detail)
        process.join()
        if process.exitcode not in (0, -9):
            found["crash"] += 1
            crashes.append(f"{kind}: its process ended with {process.exitcode}")
    return {
        "bad_inputs": sum(sum(each.values()) for each in tried.values()),
        "bad_inputs_by_kind": {kind: dict(each) for kind, each in tried.items()},
        "crashes": len(crashes),
        "crash": crashes[:3],
        "hangs": sum(each["hang"] for each in tried.values()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print only one line of JSON")
    parser.add_argument("--count", type=int, default=1000, help="inputs, of all kinds together")
    parser.add_argument("--guided", action="store_true", help="atheris chooses them by what the readers do")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--seed", type=int, default=7)
    chosen = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    found = try_all(context, chosen.count, chosen.seed, chosen.guided, chosen.kinds)
    if not chosen.json:
        for crash in found["crash"]:
            print(crash)
    print(json.dumps(found | {"guided": chosen.guided, "seed": chosen.seed}))


if __name__ == "__main__":
    main()
