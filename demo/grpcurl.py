"""What grpcurl prints about a running system: by grpcurl itself where there is one, else through server reflection.

The command line is shown with it, so that the next one can be typed by hand.
"""

import asyncio
import shutil
from asyncio.subprocess import PIPE
from pathlib import Path

from demo.reflection import NoAnswer, ask

INSTALLED = Path(__file__).parents[1] / ".tools" / "bin" / "grpcurl"
"""Where `make tools` puts it."""
WITHIN = 20.0


def find_grpcurl(installed: Path = INSTALLED) -> str | None:
    """Returns the path of a grpcurl: the one of `make tools`, else one on PATH, else None."""
    return str(installed) if installed.exists() else shutil.which("grpcurl")


async def show_call(target: str, method: str, *, grpcurl: str | None) -> str:
    """Returns the command line that makes a call, and below it what grpcurl prints, or without one what it would print.

    Raises `NoAnswer`.
    """
    command = ("-plaintext", target, method)
    printed = await (ask(target, method) if grpcurl is None else _run(grpcurl, *command))
    return f"$ grpcurl {' '.join(command)}\n{printed}"


async def _run(grpcurl: str, *arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(grpcurl, *arguments, stdout=PIPE, stderr=PIPE)
    try:
        async with asyncio.timeout(WITHIN):
            output, errors = await process.communicate()
    except TimeoutError:
        raise NoAnswer(f"{grpcurl} did not end within {WITHIN:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise NoAnswer(f"{grpcurl} failed: {errors.decode(errors='replace').strip()}")
    return output.decode().rstrip("\n")
