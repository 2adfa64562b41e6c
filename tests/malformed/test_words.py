"""Words that verbs without a model are not to be given: one line, exit code 2, nothing changed."""

from __future__ import annotations

import shlex
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from bitfront.storage import Store
from tests.commands import Commands
from tests.malformed.cases import contents, refusal
from tests.service.apis import fill

SHOWS = "--help shows what can be given"
NO_DATABASE = r"nodb\.db' is not a database: name another file"
URL = ": write it like http://127.0.0.1:8765"
AWAY = "http://127.0.0.1:1"
UNIT = ": write a number and a unit, like 700MB"
EXTRA = r"extra argument\(s\) \(extra\): bitfront .*" + SHOWS
ABSENT = "'nope': did you mean 'bare', 'llama'"

SERVING = {
    "serve --host 0.0.0.0": r"host '0\.0\.0\.0' without a token: give a token \(BITFRONT_TOKEN",
    "serve --host example.com": "host 'example.com' without a token: give a token",
    "serve --host nowhere.invalid --token-file one": "nowhere.invalid:8765 .*: choose another host",
    "serve --port 99999": f"'--port': .*equal to 65535, not '99999': bitfront serve {SHOWS}",
    "serve --port -1": f"'--port': .*equal to 0, not '-1': bitfront serve {SHOWS}",
    "serve --port http": f"'--port': .*integer.*, not 'http': bitfront serve {SHOWS}",
    "serve --root none": "root 'none' is no folder: name a folder",
    "serve --root file.txt": "root 'file.txt' is no folder: name a folder",
    "serve --output file.txt": "output 'file.txt' is no folder: name a folder",
    "serve --token-file none": "the token in 'none' .No such file.*: name a file with",
    "serve --token-file empty": "'empty' is empty: write the token into it",
    "serve --token-file short": "the token is short, or has spaces: give at least 16 characters",
    "serve --token-file spaces": "the token is short, or has spaces: give at least 16 characters",
    "serve --token-file binary": "the token in 'binary' .it is no text.: name a file with",
    "serve --token-file folder": "the token in 'folder' .Is a directory.: name a file with",
    "serve --token-file one --read-token-file one": "both tokens are the same: give reading",
    "serve --path-prefix bitfront": "path prefix 'bitfront': write it like /bitfront",
    "serve --path-prefix /b/": "path prefix '/b/': write it like /bitfront",
    "serve --port 0 --db sqlite://": "'sqlite://' would be lost at exit: name a file",
    "serve --port 0 --db mysql://a/b": "kind 'mysql' is not supported: give a path, or a URL",
    "serve --port 0 --db nodb.db": NO_DATABASE,
    "serve --colour": f"No such option: --colour: bitfront serve {SHOWS}",
    "serve extra": EXTRA,
    "worker --lease 0": f"'--lease': .*equal to 1, not '0': bitfront worker {SHOWS}",
    "worker --lease soon": f"'--lease': .*number.*, not 'soon': bitfront worker {SHOWS}",
    "worker --lease nan": f"'--lease': .*not 'nan': bitfront worker {SHOWS}",
    "worker --lease inf": f"'--lease': .*equal to 86400, not 'inf': bitfront worker {SHOWS}",
    "worker --processes 0": f"'--processes': .*equal to 1, not '0': bitfront worker {SHOWS}",
    "worker --processes two": f"'--processes': .*integer.*, not 'two': bitfront worker {SHOWS}",
    "worker --name": f"'--name' requires an argument: bitfront {SHOWS}",
    "worker --once --db nodb.db": NO_DATABASE,
    "worker --once --db sqlite:///:memory:": "':memory:|would be lost at exit: name a file",
    "worker --once --db folder": r"folder' is a folder: name a file in it",
    "worker --once --db postgresql://nobody@127.0.0.1:1/x": "cannot be reached .*: check its URL",
    "worker --once --allow-hub": "--allow-hub without --root: add --root, or leave it out",
    "worker --once --allow-functions": "--allow-functions without --root: add --root, or leave",
    "worker --once --root none": "root 'none' is no folder: name a folder",
    "worker extra": EXTRA,
    "workers --db nodb.db": NO_DATABASE,
    "workers --state idle": f"No such option: --state: bitfront workers {SHOWS}",
    "workers extra": EXTRA,
}
JOBS = {
    "jobs lst": rf"No such command 'lst'.*: bitfront jobs {SHOWS}",
    "jobs list --state runing": "no state 'runing' of jobs: choose from queued, running",
    "jobs list --limit 0": f"'--limit': .*equal to 1, not '0': bitfront jobs list {SHOWS}",
    "jobs list --limit many": f"'--limit': .*integer.*, not 'many': bitfront jobs list {SHOWS}",
    f"jobs list --limit {10**12}": f"'--limit': .*2147483647, not '{10**12}': bitfront .*{SHOWS}",
    "jobs list --db nodb.db": NO_DATABASE,
    "jobs list extra": EXTRA,
    "jobs show": f"Missing argument 'JOB': bitfront jobs show {SHOWS}",
    "jobs show one": f"'JOB': .*integer.*, not 'one': bitfront jobs show {SHOWS}",
    "jobs show 0": "no job 0: see 'bitfront jobs list'",
    "jobs show 99": "no job 99: see 'bitfront jobs list'",
    f"jobs show {10**20}": f"no job {10**20}: see 'bitfront jobs list'",
    "jobs show -1": f"No such option: -1: bitfront jobs show {SHOWS}",
    "jobs logs 99": "no job 99: see 'bitfront jobs list'",
    "jobs logs 1 --after -1": f"'--after': .*equal to 0, not '-1': bitfront jobs logs {SHOWS}",
    "jobs logs 1 --after x": f"'--after': .*integer.*, not 'x': bitfront jobs logs {SHOWS}",
    f"jobs logs 1 --after {10**20}": f"'--after': .*, not '{10**20}': bitfront jobs logs {SHOWS}",
    "jobs pause 99": "no job 99: see 'bitfront jobs list'",
    "jobs pause 1": "job 1 is succeeded, and cannot pause: submit another job",
    "jobs resume 1": "job 1 is succeeded, and cannot resume: submit another job",
    "jobs cancel 1": "job 1 is succeeded, and cannot cancel: submit another job",
    "jobs pause 3": "job 3 is cancelled, and cannot pause: it can resume",
    "jobs cancel 3": "job 3 is cancelled, and cannot cancel: it can resume",
    "jobs resume 2": "job 2 is queued, and cannot resume: it can pause or cancel",
    "jobs resume one": f"'JOB': .*integer.*, not 'one': bitfront jobs resume {SHOWS}",
    f"jobs cancel {10**20}": f"no job {10**20}: see 'bitfront jobs list'",
    "jobs pause 1 extra": EXTRA,
}
STUDIES = {
    "studies --db nodb.db": NO_DATABASE,
    "studies --db folder": r"folder' is a folder: name a file in it",
    "studies --db http://x": "kind 'http' is not supported: give a path, or a URL like postgresql",
    "studies extra": EXTRA,
    "front": f"Missing argument 'STUDY': bitfront front {SHOWS}",
    "front nope": ABSENT,
    "front bare": "study 'bare' has no trials yet: run a search first",
    "front llama --cost joules": "no trial has the cost 'joules': there are bits, bytes",
    "front llama --cost kl": "no trial has the cost 'kl': there are bits, bytes",
    "front llama --metric bleu": "no trial has the metric 'bleu': there are calibration/kl, kl",
    "front llama --within 3": "unknown unit in budget '3'" + UNIT,
    "front llama --within 1e999B": "cannot read budget '1e999B'" + UNIT,
    "front llama --within 'kl<0.1'": "cannot read limit 'kl<0.1': write a name, <= or >=",
    "front llama --within 'joules<=3'": "no trial has the cost or metric 'joules': there are bits",
    "front llama --within 1B": "none of 6 trials is within 1B: loosen a limit",
    "front bare --within 3bpw": "study 'bare' has no trials yet: run a search first",
    "front llama --csv none/x.csv": "--csv 'none/x.csv': no folder 'none': create it",
    "front llama --csv folder": "--csv 'folder' is a folder: name a file in it",
    "front llama --html folder": "--html 'folder' is a folder: name a file in it",
    "front llama --db nodb.db": NO_DATABASE,
    "show llama": f"Missing argument 'TRIAL': bitfront show {SHOWS}",
    "show nope 1": ABSENT,
    "show llama 0": "no trial 0 in study 'llama': there are 1, 2",
    "show llama 99": "no trial 99 in study 'llama': there are 1, 2",
    "show llama best": f"'TRIAL': .*integer.*, not 'best': bitfront show {SHOWS}",
    "show llama 1 --metric bleu": "no metric 'bleu' in 'llama': it has kl, top1",
    "show llama 1 extra": EXTRA,
    "report llama": f"Missing option '--html': bitfront report {SHOWS}",
    "report nope --html x.html": ABSENT,
    "report llama --html folder": "--html 'folder' is a folder: name a file in it",
    "report llama --html none/x.html": "--html 'none/x.html': no folder 'none': create it",
    "report llama --html x.html --metric bleu": "no metric 'bleu' in 'llama': it has kl, top1",
    "optuna llama": f"Missing option '--out': bitfront optuna {SHOWS}",
    "optuna nope --out x.db": ABSENT,
    "optuna bare --out x.db": "study 'bare' has no trials yet: run a search first",
    "optuna llama --out folder": "--out 'folder' is a folder: name a file in it",
    "optuna llama --out file.txt": r"file\.txt exists: give another name, or overwrite it",
    "optuna llama --out none/x.db": "--out 'none/x.db': no folder 'none': create it",
    "optuna llama --out x.db --cost joules": "no trial has the cost 'joules': there are bits",
    "optuna llama --out x.db --within 1B": "none of 6 trials is within 1B: loosen a limit",
    "export nope 1 out": ABSENT,
    "export llama 99 out": "no trial 99 in study 'llama': there are 1, 2",
    "export llama 1 file.txt": r"file\.txt' is a file: give the name of a folder",
    "export llama 1 folder/x/y": "no folder '.*/folder/x' to write into: create it first",
    "export llama 1 out --format gguff": "no exporter named 'gguff': choose from safetensors",
    "export llama 1 out": "'llama' was begun in Python .*: open it there, or give --task",
    "recipe llama 1 --out x.json": f"Missing option '--for': bitfront recipe {SHOWS}",
    "recipe llama 1 --for torchao": f"Missing option '--out': bitfront recipe {SHOWS}",
    "recipe llama 1 --for awq --out x.json": "no recipe named 'awq': choose from gptqmodel, torc",
    "recipe llama 1 --for torchao --out x.yaml": "'x.yaml' for torchao: name a file .* in .json",
    "recipe llama 1 --for modelopt --out x": "'x' for modelopt: name a file that ends in .yaml",
    "recipe llama 1 --for torchao --out folder": "--out 'folder' is a folder: name a file in it",
    "recipe llama 1 --for torchao --out none/x.json": "--out 'none/x.json': no folder 'none': cr",
    "recipe llama 1 --for torchao --out cut.json": "'cut.json' exists: give another name, or over",
    "recipe nope 1 --for torchao --out x.json": ABSENT,
    "recipe llama 99 --for torchao --out x.json": "no trial 99 in study 'llama': there are 1, 2",
    "recipe llama best --for torchao --out x.json": f"not 'best': bitfront recipe {SHOWS}",
    "recipe llama 6 --for gptqmodel --out x.json": "gptqmodel cannot take 'a' as w7: with 7 bits",
    "recipe llama 1 --for torchao --out x.json --db nodb.db": NO_DATABASE,
    "search llama --schemes w4 --max-kl nan": "--max-kl nan: give nats, like 0.05",
    "search llama --schemes w4 --max-kl -1": "--max-kl -1: give nats, like 0.05",
    "search llama --schemes w4 --budget 3bpw --costs none": "'none' .No such.*: check the path",
}
FILES = {
    "solve": f"Missing argument 'PROBLEM': bitfront solve {SHOWS}",
    "solve none.json": "cannot read 'none.json' .No such file.*: check the path",
    "solve folder": "cannot read 'folder' .Is a directory.: check the path",
    "solve cut.json": "'cut.json': not JSON .*: give a JSON object with schemes, loss",
    "solve list.json": "'list.json': a list instead of an object: give a JSON object",
    "solve empty.json": "'empty.json': 'schemes' is missing: give a JSON object with schemes",
    "solve cut.npz": "'cut.npz': not an .npz file of plain arrays: save schemes",
    "solve cut.json --limit size": "cannot read --limit 'size': write NAME=NUMBER, like size=5.2",
    "solve cut.json --limit =3": "cannot read --limit '=3': write NAME=NUMBER, like size=5.2",
    "solve cut.json --limit size=big": "'size=big': 'big' is not a number: write NAME=NUMBER",
    "solve cut.json --limit size=nan": "'size=nan' is not finite: leave it out for no limit",
    "solve cut.json --limit a=1 --limit a=2": "two limits on 'a': give each cost at most one",
    "solve cut.json --count 0": f"'--count': .*equal to 1, not '0': bitfront solve {SHOWS}",
    "solve cut.json --distance 0": f"'--distance': .*equal to 1, not '0': bitfront solve {SHOWS}",
    "demo --out": f"'--out' requires an argument: bitfront {SHOWS}",
    "demo extra": EXTRA,
    "doctor extra": EXTRA,
    "trai": f"No such command 'trai': bitfront {SHOWS}",
    "--colour": f"No such option: --colour: bitfront {SHOWS}",
}
IMPORTS = {
    "import": f"Missing argument 'FILE...': bitfront import {SHOWS}",
    "import s.csv": f"Missing option '--study': bitfront import {SHOWS}",
    "import none.csv --study llama": "cannot read 'none.csv' .No such file.*: check the path",
    "import folder --study llama": "cannot read 'folder' .Is a directory.: check the path",
    "import empty --study llama": "'empty' is empty: give a file of scores",
    "import file.txt --study llama": "'file.txt' is of no format that is known .*: write it as CSV",
    "import binary --study llama": "'binary' is of no format that is known .*: write it as CSV",
    "import cut.json --study llama": "'cut.json': it is not JSON .*: give the file as it was",
    "import empty.json --study llama": "'empty.json' is of no format that is known .*: write it",
    "import cut.npz --study llama": "'cut.npz' is of no format that is known .*: write it as CSV",
    "import state.pt --study llama": "'state.pt': it cannot be loaded without running .*: where",
    "import s.csv --study llama --format gguf": "no format of scores named 'gguf': choose from",
    "import s.csv --study llama --format mlx-lm": "'s.csv': it is not JSON .*: give the file",
    "import nan.csv --study llama": "'nan.csv': line 2 has the value 'inf': give a finite number",
    "import s.csv --study llama --table b": "'s.csv': it has no table 'b': choose from kl",
    "import s.csv --study llama --schemes w4": "schemes for a file of csv: leave it out; it is for",
    "import m.json --study llama --schemes int4": "unknown scheme 'int4': spell it like w4",
    "import m.json --study llama --schemes w4": "'m.json': 1 schemes for a file of mlx-lm: give",
    "import m.json --study llama --table b": "table for a file of mlx-lm: leave it out; it is for",
    "import m.json s.csv --study llama": "'m.json' is a file of mlx-lm, 's.csv' of csv: import",
    "import s.csv --study llama --per 0": f"'--per': .*equal to 1, not '0': .*import {SHOWS}",
    "import s.csv --study llama --per 8": "per 8 for scores of kl, which are no sums of KL: leave",
    "import s.csv --study llama --label 1": "label '1' of an import: begin it with a letter",
    "import s.csv --study llama --label ''": "label '' of an import: begin it with a letter",
    "import s.csv --study nope": "there is no study 'nope' yet: to begin it give --task",
    "import s.csv --study llama": "'llama' was begun in Python .*: open it there, or give --task",
    "import s.csv --study llama --db nodb.db": NO_DATABASE,
    "search llama --schemes w4 --budget 4bpw --profiler imported --setting label=@": (
        "label '@' of an import: begin it with a letter"
    ),
    "search llama --schemes w4 --budget 4bpw --profiler imported --setting table=kl": (
        "setting 'table' of imported: the settings of imported are label"
    ),
    "profile llama --schemes w4 --until 0.1 --budget 4bpw --profiler imported": (
        "settling imported scores, of which no more can be measured: profile with another"
    ),
}
SERVERS = {
    "--server nowhere studies": "server 'nowhere'" + URL,
    "--server ftp://x studies": "server 'ftp://x'" + URL,
    "--server http:// studies": "server 'http://'" + URL,
    "--server 'http://[::1' studies": r"server 'http://\[::1'" + URL,
    "--server http://127.0.0.1:99999 studies": "server 'http://127.0.0.1:99999'" + URL,
    f"--server '{AWAY}?x=1' studies": r"server '.*\?x=1'" + URL,
    f"--server {AWAY} studies": r":1' cannot be used \(Connection refused\): check that it is",
    f"--server {AWAY} workers": r":1' cannot be used \(Connection refused\): check that it is",
    f"--server {AWAY} jobs show 1": r"cannot be used \(Connection refused\): check that it is",
    f"--server {AWAY} recipe llama 1 --for torchao --out x.json": r"refused\): check that it is",
    f"--server {AWAY} studies --db b.db": "--db b.db with server http://.*: give one of them",
    f"--server {AWAY} worker --once": "worker with server http://.*: leave out --server, or unset",
    f"--server {AWAY} serve": "serve with server http://.*: leave out --server, or unset",
    f"--server {AWAY} import s.csv --study llama": "import with server .*: leave out --server",
    f"--server {AWAY} optuna llama --out x.db": "optuna with server .*: leave out --server",
}
WORDS = SERVING | JOBS | STUDIES | FILES | IMPORTS | SERVERS


@dataclass(frozen=True)
class Place:
    """A folder with a database, and files that are no good."""

    folder: Path

    @property
    def db(self) -> Path:
        return self.folder / "b.db"

    def state(self) -> tuple[list[str], dict[str, bytes]]:
        """All rows, and all files but the database's."""
        with closing(sqlite3.connect(self.db)) as connection:
            rows = list(connection.iterdump())
        files = contents(self.folder)
        return rows, {name: data for name, data in files.items() if not name.startswith("b.db")}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    made = Place(tmp_path_factory.mktemp("words"))
    (made.folder / "folder").mkdir()
    for name, text in {
        "file.txt": "text", "empty": "", "short": "short", "spaces": "a token that has spaces",
        "one": "a-token-for-everything", "cut.json": "{", "list.json": "[]", "empty.json": "{}",
        "s.csv": "layer,scheme,metric,value\na,w4,kl,1\n", "m.json": '[["a", 1.0]]',
        "nan.csv": "layer,scheme,value\na,w4,inf\n", "state.pt": "PK\x03\x04",
        "cut.npz": "PK", "nodb.db": "this is no database, but a text of some length",
    }.items():  # fmt: skip
        (made.folder / name).write_text(text)
    (made.folder / "binary").write_bytes(b"\xff\xfe\x00")
    with Store.open(made.db) as store:
        fill(store)
        store.open_study("bare", {}, {})
        for number in range(3):
            store.submit("search", "llama", {"number": number})
        store.move(3, "cancel")
        claimed = store.claim("w1", 60.0)
        assert claimed is not None
        store.succeed(claimed, {})
    return made


@pytest.mark.parametrize("words", WORDS)
def test_is_refused(
    words: str,
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(place.folder)
    before = place.state()
    refusal(Commands(place.db, capfd), shlex.split(words), WORDS[words])
    assert place.state() == before


def test_jobs_alone_is_no_mistake(bitfront: Commands) -> None:
    assert "List, show, pause, resume and cancel jobs." in bitfront.ok("jobs").out
