"""What the scripts share: their common options, whom they measure, and an end that leaves nothing behind."""

import os
import pathlib
import resource
import shutil
import signal
import sys
import tempfile

from . import peers as everyone
from .processes import Failure, Processes


def say(text):
    """Tells the user at once."""
    print(text, flush=True)


def add_options(parser, names):
    """Adds the options every script has; `names` are the peers it knows."""
    add = parser.add_argument
    add("--only", metavar="NAMES", help=f"some of {','.join(names)}; else all that can be had")
    add(
        "--weft",
        metavar="PATH",
        help="the weft to measure; else this workspace's, built in the release profile",
    )
    add(
        "--weft-arg",
        metavar="ARG",
        action="append",
        default=[],
        help="one more argument to `weft run`, as --weft-arg=--name; repeatable",
    )
    add("--json", metavar="FILE", help="write every raw figure")
    add("--proxy-cpu", type=int, metavar="N", help="the proxy's CPU (the last allowed)")
    add("--load-cpu", type=int, metavar="N", help="the load's and the backend's CPU (the first allowed)")
    add("--no-install", action="store_true", help="use only what is installed")
    add("--keep", action="store_true", help="keep the filled-in configurations and logs, and say where")


def check_options(parser, options, names):
    """Checks the common options; sets `names`, those asked for."""
    asked = options.only.split(",") if options.only else names
    if unknown := set(asked) - set(names):
        parser.error(f"--only knows {', '.join(names)}, not {', '.join(sorted(unknown))}")
    options.names = [name for name in names if name in asked]
    if options.json and not pathlib.Path(options.json).resolve().parent.is_dir():
        parser.error(f"the folder of {options.json} does not exist")


def choose_cpus(options):
    """The proxy's CPUs, and the load's and the backend's."""
    allowed = sorted(os.sched_getaffinity(0))
    proxy = allowed[-1] if options.proxy_cpu is None else options.proxy_cpu
    load = allowed[0] if options.load_cpu is None else options.load_cpu
    if proxy == load or not {proxy, load} <= set(allowed):
        raise Failure(f"the proxy and the load need a CPU each of {allowed}, not {proxy} and {load}")
    return {proxy}, {load}


def find_peers(options, tools, failures, must_have_weft=False):
    """The peers that can be had. One that cannot is a failure if it was asked for by name."""
    found = []
    for name in options.names:
        try:
            found.append(everyone.find(name, tools, options.weft, options.weft_arg))
        except Failure as problem:
            say(f"{name}: left out: {problem}")
            if options.only or (name == "weft" and (options.weft or must_have_weft)):
                failures[name] = str(problem)
    return found


def raise_open_files():
    """Raises the limit of open files as far as it may be, here and in what is started; returns it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


def run(name, keep, work):
    """Calls `work(processes, directory)` and returns the exit status; whatever happens, everything it started is ended
    and its files are removed, unless they are to be kept."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(f"{name}: ended by a signal"))
    processes = Processes()
    directory = pathlib.Path(tempfile.mkdtemp(prefix=f"weft-{name}-"))
    try:
        return work(processes, directory)
    except Failure as problem:
        print(f"{name}: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\n{name}: interrupted", file=sys.stderr)
        return 130
    finally:
        processes.stop_all()
        if keep:
            say(f"configurations and logs: {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)
