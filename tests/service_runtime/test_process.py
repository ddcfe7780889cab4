import subprocess
import sys

SERVICE = """
import gc
from service_runtime.process import run_service
from service_runtime.settings import ServiceSettings

async def serve(settings, stop):
    print(len(gc.get_objects()) < 5_000 < gc.get_freeze_count())

run_service("service", ServiceSettings, serve)
"""


def test_the_garbage_collector_leaves_alone_what_a_service_has_imported():
    said = subprocess.run([sys.executable, "-c", SERVICE], capture_output=True, text=True, check=True, timeout=30)

    assert said.stdout == "True\n"
