import json

import pytest

from admission_server.registry import Registry, RegistryError


def reopened(registry, folder):
    registry.close()
    return Registry.open(folder)


async def test_sessions_and_epoch_survive(tmp_path):
    registry = Registry.open(tmp_path)
    epoch = registry.epoch
    await registry.save(lambda: {"session_1": "edge-1/0"})
    again = reopened(registry, tmp_path)

    assert again.remembered == {"session_1": "edge-1/0"}
    assert again.epoch == epoch + 1
    again.close()


async def test_the_epoch_grows_with_every_start_also_when_nothing_was_saved(tmp_path):
    registry = Registry.open(tmp_path)
    epochs = [registry.epoch]
    for _ in range(3):
        registry = reopened(registry, tmp_path)
        epochs.append(registry.epoch)
    registry.close()

    assert epochs == sorted(set(epochs))


async def test_an_epoch_leaves_room_for_lease_ids_of_64_bits(tmp_path):
    registry = Registry.open(tmp_path)
    registry.close()

    assert 0 < registry.epoch < 2**24


async def test_what_is_unchanged_is_not_written_again(tmp_path):
    registry = Registry.open(tmp_path)
    await registry.save(lambda: {"session_1": "edge-1/0"})
    written = (tmp_path / "sessions.json").stat().st_mtime_ns
    await registry.save(lambda: {"session_1": "edge-1/0"})
    registry.close()

    assert (tmp_path / "sessions.json").stat().st_mtime_ns == written


async def test_a_write_that_was_cut_off_leaves_the_old_file(tmp_path):
    registry = Registry.open(tmp_path)
    await registry.save(lambda: {"session_1": "edge-1/0"})
    (tmp_path / "sessions.new").write_text('{"epoch": 9, "sess', encoding="utf-8")
    again = reopened(registry, tmp_path)
    again.close()

    assert again.remembered == {"session_1": "edge-1/0"}


async def test_a_folder_has_one_user(tmp_path):
    registry = Registry.open(tmp_path)

    with pytest.raises(RegistryError, match="in use"):
        Registry.open(tmp_path)
    registry.close()


@pytest.mark.parametrize("content", ["", "[]", '{"epoch": 1}', json.dumps({"epoch": "x", "sessions": {}})])
async def test_a_damaged_file_is_an_error_that_names_it(tmp_path, content):
    (tmp_path / "sessions.json").write_text(content, encoding="utf-8")

    with pytest.raises(RegistryError, match=r"sessions\.json"):
        Registry.open(tmp_path)
