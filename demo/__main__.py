"""`make demo` and `make up`: starts everything, shows or tells what to do with it, and runs until Ctrl-C.

Exit status 0 means that it was stopped on purpose, or with `--once` that the first turns succeeded.
"""

import argparse
import asyncio
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from demo.endpoints import Endpoints
from demo.envfile import EnvFile
from demo.grpcurl import find_grpcurl
from demo.operator import Operator, OperatorError
from demo.ports import Ports, PortTaken
from demo.reflection import NoAnswer
from demo.services import SystemOptions
from demo.stack import NotReady, Stack
from demo.walkthrough import GET_STATE, DemoClient, TurnFailed, next_steps, prepare, show_turns, visit
from service_runtime.private_files import read_private

DEMO_DIRECTORY = Path(".demo")
UP_DIRECTORY = Path(".data")


def main() -> int:
    """Runs the command line and returns the exit status."""
    arguments = _parser().parse_args()
    ports = Ports() if arguments.port_base is None else Ports.from_base(arguments.port_base)
    try:
        if arguments.command == "visit":
            return asyncio.run(_until_stopped(visit_running_system()))
        if arguments.command == "up":
            ports.check_free(without=frozenset({"simulator"}))
            return asyncio.run(_until_stopped(up(ports)))
        ports.check_free()
        return asyncio.run(_until_stopped(demo(ports, once=arguments.once)))
    except (PortTaken, NotReady, TurnFailed, OperatorError, NoAnswer) as error:
        say(f"error: {error}")
        return 1


async def demo(ports: Ports, *, once: bool) -> None:
    """Simulator, three processes, a demo account and key, the first turn; then runs on unless it is to run once."""
    directory = DEMO_DIRECTORY / f"run-{ports.edge}"
    shutil.rmtree(directory, ignore_errors=True)  # the simulator forgets its accounts, so old ones would be dead
    env_file = EnvFile(DEMO_DIRECTORY / "demo.env")
    env_file.remove()
    say("Starting the simulator and the three processes…")
    try:
        async with Stack(SystemOptions(directory=directory, ports=ports), restart=True, say=say) as stack:
            token_file = stack.secrets.admin_token
            async with Operator(stack.endpoints, token_file) as operator:
                client = await prepare(operator, endpoints=stack.endpoints, admin_token_file=token_file)
            await show_turns(client, say, write, grpcurl=find_grpcurl())
            env_file.write(demo_variables(client, stack))
            if once:
                return
            say(next_steps(client))
            say("Running until Ctrl-C.")
            await asyncio.Event().wait()
    finally:
        env_file.remove()
        shutil.rmtree(directory, ignore_errors=True)


async def visit_running_system() -> None:
    """Shows the turns in a system that runs elsewhere, in containers: its places come as in `.demo/demo.env`."""
    endpoints = Endpoints.from_variables(os.environ)
    token_file = Path(os.environ["SLUICEGATE_DEMO_ADMIN_TOKEN_FILE"])
    async with Operator(endpoints, token_file) as operator:
        client = await visit(operator, endpoints=endpoints, admin_token_file=token_file)
    await show_turns(client, say, write, grpcurl=find_grpcurl())
    say(f"\nA key for your own turns through the published port: {client.key.key}")
    say(f"The state from outside, unless you moved the port: grpcurl -plaintext localhost:50051 {GET_STATE}")


async def up(ports: Ports) -> None:
    """The three processes on embedded defaults, with their state kept, for real accounts."""
    say("Starting the three processes…")
    options = SystemOptions(directory=UP_DIRECTORY, ports=ports, simulator=False)
    async with Stack(options, restart=True, say=say) as stack:
        say(f"""Sluicegate runs, with its state in {UP_DIRECTORY}/.

  edge      http://127.0.0.1:{ports.edge}
  control   http://127.0.0.1:{ports.control}     admin token in {stack.secrets.admin_token}
  admission 127.0.0.1:{ports.admission}  (gRPC)

README.md says how to add accounts and keys. Running until Ctrl-C.""")
        await asyncio.Event().wait()


def demo_variables(client: DemoClient, stack: Stack) -> dict[str, str]:
    """Returns the variables of `.demo/demo.env`."""
    return {
        **client.endpoints.variables(),
        "SLUICEGATE_DEMO_API_KEY": client.key.key,
        "SLUICEGATE_DEMO_ADMIN_TOKEN": read_private(stack.secrets.admin_token),
        "SLUICEGATE_DEMO_EDGE_TOKEN": read_private(stack.secrets.role_token("edge")),
    }


def say(line: str) -> None:
    """Prints a line at once, so that it can be read while the rest goes on."""
    print(line, flush=True)


def write(text: str) -> None:
    """Prints a piece of an answer at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="demo", description="Runs Sluicegate on this machine.")
    parser.add_argument("command", nargs="?", choices=("demo", "up", "visit"), default="demo")
    parser.add_argument("--once", action="store_true", help="end after the first answered turns")
    parser.add_argument("--port-base", type=int, metavar="N", help="use the ports from N on")
    return parser


async def _until_stopped(work: Coroutine[Any, Any, None]) -> int:
    """Runs `work` until it ends or a signal asks to stop; then everything it started is stopped in order."""
    task = asyncio.create_task(work)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return 0


if __name__ == "__main__":
    sys.exit(main())
