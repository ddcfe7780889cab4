"""schemathesis reads the API's own description, and finds no 5xx and no answer that is not described."""

import asyncio
import sys

from tests.control_api.running import ADMIN, ControlProcess, client_of

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


async def test_no_request_finds_a_5xx_or_an_undocumented_answer(tmp_path, simulator, admission_target):
    process = ControlProcess(tmp_path, simulator=simulator, admission_target=admission_target)
    await process.start()
    try:
        made = await simulator.account()
        async with process.client() as http:
            assert (await http.post("/api/accounts/import", json=made["auth_json"])).status_code == 201
        judge = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{process.url}/openapi.json"),
            *("-H", f"Authorization: Bearer {ADMIN}", "--checks", CHECKS, "--phases", "coverage,fuzzing"),
            *("--max-examples", "3", "--seed", "1", "--no-color", "--suppress-health-check", "all"),
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await asyncio.wait_for(judge.communicate(), timeout=100)
    finally:
        process.process.stop()

    assert judge.returncode == 0, output.decode()


async def test_the_description_is_open_and_describes_every_problem(lone_control):
    async with client_of(lone_control.app, token=None) as stranger:
        answer = await stranger.get("/openapi.json")

    described = answer.json()
    operations = [operation for path in described["paths"].values() for operation in path.values()]
    problems = [
        content
        for operation in operations
        for status, response in operation["responses"].items()
        for content in response.get("content", {})
        if int(status) >= 400
    ]
    assert answer.status_code == 200
    assert set(problems) == {"application/problem+json"}
    assert "Problem" in described["components"]["schemas"]
    assert all(operation.get("summary") for operation in operations)
    assert all("413" in operation["responses"] for operation in operations if "requestBody" in operation)


async def test_every_json_body_and_every_answer_has_a_whole_example(lone_control):
    described = lone_control.app.openapi()
    schemas = described["components"]["schemas"]

    without = [
        (operation["summary"], content["schema"])
        for path in described["paths"].values()
        for operation in path.values()
        for part in (operation.get("requestBody", {}), *operation["responses"].values())
        for kind, content in part.get("content", {}).items()
        if kind != "multipart/form-data"  # a file
        and "example" not in content
        and "example" not in schemas[content["schema"]["$ref"].rpartition("/")[2]]
    ]

    assert without == []
