"""The command ``recbole-dsl``: one sub-command for each thing that one does with the project."""

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import (
    AbstractContextManager,
    ExitStack,
    contextmanager,
    nullcontext,
    redirect_stderr,
    redirect_stdout,
    suppress,
)
from dataclasses import dataclass
from typing import Any, NoReturn

from recbole_dsl.config import OPTIONS, command_line_options, describe_options, nearest
from recbole_dsl.errors import TRACEBACK, DSLError, Terminated, quieten
from recbole_dsl.export.command import declare_export, run_export
from recbole_dsl.forgetting.command import declare_forget, run_forget
from recbole_dsl.patching import changes
from recbole_dsl.report.commands import declare_report, run_report
from recbole_dsl.results import check_format, declare_format, print_result
from recbole_dsl.service.command import declare_serve, run_serve
from recbole_dsl.serving.commands import declare_recommend, run_recommend

# the exit code that a shell gives what SIGPIPE ends
_PIPE = 128 + 13
# options of all commands
_OF_ALL = ("output-format", "output_format")


@dataclass(frozen=True)
class Command:
    """A sub-command.

    Attributes:
        summary: what it does, for the list of commands.
        declare: adds its own arguments to a parser.
        run: runs it, with the parsed arguments and the words that the parser does not know. ``given`` of the
            former are all words --name=value but those of ``own``. Gives the result, for a program that reads
            stdout, or None if there is none.
        own: its options that are none of RecBole's.
        gives_a_result: whether stdout is for the result of ``run`` alone.
    """

    summary: str
    declare: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace, list[str]], Mapping[str, Any] | None]
    own: tuple[str, ...] = ()
    gives_a_result: bool = False


class _Once(argparse.Action):
    """Store the value of an argument; refuse it if it is given again with another value."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        given = vars(namespace).setdefault("given", {})
        name = self.option_strings[0] if self.option_strings else self.dest
        if given.setdefault(self.dest, values) != values:
            parser.error(f"{name}={values}: must be given once, and is {name}={given[self.dest]} too")
        setattr(namespace, self.dest, values)


class _Parser(argparse.ArgumentParser):
    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        for name in (None, "store"):
            self.register("action", name, _Once)

    def error(self, message: str) -> NoReturn:
        raise DSLError(message)


def main(arguments: Sequence[str] | None = None, program: str | None = None) -> None:
    """Run the command line; exit with 2 and one line on what cannot be used.

    Args:
        arguments: the words after the command's name; those of this process if None.
        program: the name that errors and help give to the sub-command; "recbole-dsl" and its own if None.
    """
    with _streams(), _own_sigterm():
        try:
            try:
                _run(arguments, program)
            finally:
                # here, as nobody can catch what it raises when the process ends
                sys.stdout.flush()
        except BrokenPipeError:
            _end_output()
            sys.exit(_PIPE)


@changes(
    "sys.stdout", "whoever reads it has enough, as head, and Python would fail as it ends", "the process ends"
)
def _end_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
@changes("sys.stdout, sys.stderr", "a process without a console, as of pythonw, has none to write to")
def _streams() -> Iterator[None]:
    with ExitStack() as kept:
        for stream, redirect in ((sys.stdout, redirect_stdout), (sys.stderr, redirect_stderr)):
            if stream is None:
                kept.enter_context(redirect(kept.enter_context(open(os.devnull, "w"))))
        yield


@contextmanager
def _own_sigterm() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is not None:
            _on_sigterm(before)


@changes("signal.SIGTERM", "a training that is asked to end says how to go on, as after Ctrl-C")
def _on_sigterm(handler: Any) -> None:
    # Python lets only the main thread set one
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


@changes("sys.stdout", "some models of RecBole print, and stdout is for the result of a command")
def _prints_on_stderr() -> AbstractContextManager[Any]:
    return redirect_stdout(sys.stderr)


def _run(arguments: Sequence[str] | None, program: str | None) -> None:
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(_overview())
        return
    if words[0] == "--version":
        from importlib.metadata import version

        print(f"recbole-dsl {version('recbole-dsl')}")
        return
    try:
        command = _command(words[0])
        program = program or f"recbole-dsl {words[0]}"
        parser = _Parser(prog=program, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
        command.declare(parser)
        declare_format(parser)
        known, others = parser.parse_known_args(words[1:])
        check_format(known.output_format)
        given = command_line_options(words[1:])
        known.given = {name: word for name, word in given.items() if name not in (*command.own, *_OF_ALL)}
        quieten()
        with _prints_on_stderr() if command.gives_a_result else nullcontext():
            result = command.run(known, others)
        if result is not None:
            print_result(result, known.output_format)
    except DSLError as error:
        if os.environ.get(TRACEBACK):
            raise
        print(f"{program or 'recbole-dsl'}: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as end:
        print("; ".join([f"{program}: interrupted", *getattr(end, "__notes__", ())]), file=sys.stderr)
        # the exit code that a shell gives what a signal ends
        sys.exit(128 + (signal.SIGTERM if isinstance(end, Terminated) else signal.SIGINT))


def _command(name: str) -> Command:
    if name in COMMANDS:
        return COMMANDS[name]
    match = nearest(name, COMMANDS)
    hint = f"did you mean {match}?" if match else f"the commands are {', '.join(COMMANDS)}"
    if name.startswith("-"):
        hint = f"write recbole-dsl train {name}"
    raise DSLError(f"unknown command {name}: {hint}")


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: recbole-dsl COMMAND [--name=value ...]",
            "",
            "Dynamic Sparse Learning for every RecBole model.",
            "",
            *lines,
            "",
            "A first run:     recbole-dsl train --model=BPR --dataset=ml-100k --density=0.1",
            "What it did:     recbole-dsl report saved/BPR-....pth",
            "All the options: recbole-dsl COMMAND --help",
        ]
    )


def _declare_train(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Train a model of RecBole sparse from scratch. Takes all its options as --name=value, and:"
    )
    parser.epilog = "Dynamic Sparse Learning:\n" + describe_options()
    _declare_run(parser)
    parser.add_argument(
        "--resume",
        nargs="?",
        const=True,
        help="resume a run that was stopped: from the newest state of this model and dataset in checkpoint_dir, "
        "or from the file that is given, which then says all the options",
    )
    parser.add_argument("--verbose", action="store_true", help="show all of RecBole's log on the console")
    parser.add_argument("--report", action="store_true", help="write the page of recbole-dsl report at the end")
    for name, default, meaning in (
        ("save_last", None, "whether the state after each epoch is kept for --resume (default: True)"),
        (
            "process_timeout",
            None,
            "seconds after which a process that does not answer ends all (default: 600)",
        ),
        ("nproc", 1, "number of processes in this group"),
        ("ip", "localhost", "address of the master node"),
        ("port", "5678", "port of the master node"),
        ("world_size", -1, "total number of processes"),
        ("group_offset", 0, "global rank of this group's first process"),
    ):
        kind = _number if isinstance(default, int) else str
        parser.add_argument(f"--{name}", default=default, type=kind, help=meaning)


def _declare_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", "-m", help="name of the model (default: BPR)")
    parser.add_argument("--dataset", "-d", help="name of the dataset (default: ml-100k)")
    parser.add_argument("--config_files", help="YAML files, separated by spaces")


def _train(known: argparse.Namespace, others: list[str]) -> Mapping[str, Any] | None:
    _refuse_ignored(others)
    _refuse_mistyped(known)
    from recbole_dsl.training.quick_start import run

    # after the import, as Ray sets a handler of its own when it is imported
    _on_sigterm(_terminate)
    is_new = known.resume in (None, True)
    options = {
        "resume": known.resume,
        "save_last": known.save_last,
        "process_timeout": known.process_timeout,
        "verbose": known.verbose or None,
        "report": known.report or None,
    }
    result = run(
        known.model or ("BPR" if is_new else None),
        known.dataset or ("ml-100k" if is_new else None),
        config_file_list=known.config_files.split() if known.config_files else None,
        config_dict={**known.given, **{name: value for name, value in options.items() if value is not None}},
        nproc=known.nproc,
        world_size=known.world_size,
        ip=known.ip,
        port=known.port,
        group_offset=known.group_offset,
    )
    if result is None or os.environ.get("LOCAL_RANK", "0") != "0":
        # torchrun's other processes have the same result
        return None
    cost = result["cost"]
    return {**result, "cost": None if cost is None else cost.to_dict()}


_TUNE_HELP = {
    "params_file": "RecBole's parameter file, a line for each option: learning_rate choice [0.01, 0.001], or "
    "learning_rate loguniform -8,0, or embedding_size quniform 16,64,16",
    "engine": "hyperopt: RecBole's HyperTuning, one trial at a time (default); ray: Ray Tune, several at once",
    "algo": "exhaustive, random or, with hyperopt, bayes (default: exhaustive if all are choices; otherwise bayes "
    "with hyperopt, random with ray)",
    "trials": "the most trials (default: all combinations, or 100)",
    "early_stop": "with hyperopt: how many trials without a better one end the search (default: none do)",
    "output": "folder of the search's files (default: tuned/MODEL-DATASET-TIME). The same command with the folder "
    "of a search that was stopped resumes it",
    "scheduler": "with ray: asha stops trials early that are behind the others; fifo stops none (default)",
    "trial_cpus": "with ray: CPUs of a trial (default: 1)",
    "trial_gpus": "with ray: GPUs of a trial, or a share of one (default: 1 if there is one, and use_gpu)",
    "address": "with ray: HOST:PORT of a cluster that this machine is a node of, or auto (default: this machine)",
    "max_failures": "with ray: how often a trial is resumed after its worker was killed (default: 3)",
}
_NUMBERS = ("trials", "early_stop", "trial_cpus", "trial_gpus", "max_failures")


def _declare_tune(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Search over options: train a trial with each, and test the one that is best on the validation data. "
        "Takes all the options of recbole-dsl train as --name=value, and:"
    )
    _declare_run(parser)
    for name, meaning in _TUNE_HELP.items():
        parser.add_argument(f"--{name}", type=_number if name in _NUMBERS else str, help=meaning)


def _tune(known: argparse.Namespace, others: list[str]) -> Mapping[str, Any]:
    _refuse_ignored(others)
    _refuse_mistyped(known, _TUNE_HELP)
    from recbole_dsl.tuning.search import SearchSettings, run_search

    given = {name: getattr(known, name) for name in _TUNE_HELP if getattr(known, name) is not None}
    settings = SearchSettings(**given)
    _on_sigterm(_terminate)
    files = known.config_files.split() if known.config_files else None
    return run_search(known.model or "BPR", known.dataset or "ml-100k", files, settings, known.given).to_dict()


def _terminate(*_: object) -> None:
    raise Terminated


def _number(word: str) -> float | str:
    """``word`` as a number if it is one; what it may be is checked with the other options, by one rule each.

    The types and choices of argparse would be a second list of them, with messages of another form.
    """
    for kind in (int, float):
        with suppress(ValueError):
            return kind(word)
    return word


def _refuse_mistyped(known: argparse.Namespace, settings: Collection[str] = ()) -> None:
    from recbole_dsl.options.names import check_words

    check_words(known.given, known.model or "BPR", (known.config_files or "").split(), settings)


def _refuse_ignored(arguments: list[str]) -> None:
    """Refuse words that are not --name=value, which RecBole ignores, and names with two values."""
    given: dict[str, str] = {}
    for argument in arguments:
        name, equals, value = argument.lstrip("-").partition("=")
        if not (argument.startswith("--") and name and equals):
            name = name.split(" ")[0]
            match = name if name in OPTIONS else nearest(name, OPTIONS)
            raise DSLError(f"{argument}: write --{match or (argument.startswith('-') and name) or 'NAME'}=VALUE")
        if "=" in value:
            raise DSLError(
                f"{argument}: must have one =, as RecBole reads it; a file of --config_files may have more"
            )
        if given.setdefault(name, value) != value:
            raise DSLError(f"{argument}: must be given once, and is --{name}={given[name]} too")


COMMANDS = {
    "train": Command(
        "Train a RecBole model sparse from scratch, save the best epoch, test it",
        _declare_train,
        _train,
        own=("config_files", "resume", "report", "verbose"),
        gives_a_result=True,
    ),
    "tune": Command(
        "Search over options with RecBole's HyperTuning or Ray Tune",
        _declare_tune,
        _tune,
        own=("config_files", *_TUNE_HELP),
        gives_a_result=True,
    ),
    "export": Command("Make one small file of what was trained", declare_export, run_export, gives_a_result=True),
    "recommend": Command("Recommend from that file", declare_recommend, run_recommend),
    "serve": Command("Serve that file over HTTP", declare_serve, run_serve),
    "forget": Command(
        "Take users out of what was trained or exported", declare_forget, run_forget, gives_a_result=True
    ),
    "report": Command(
        "Show what was trained as one page with figures", declare_report, run_report, gives_a_result=True
    ),
}
