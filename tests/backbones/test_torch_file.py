"""PyTorch's files: what sound ones hold, and what made-up ones cannot do."""

import io
import pickle
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from kerasmodels.backbones import pickled
from kerasmodels.backbones.torch_file import read_torch
from kerasmodels.errors import WeightsError
from tests.backbones.test_sources import torch_file
from tests.fuzz.corpus import torch_zip


def name(full: str) -> bytes:
    module, _, last = full.rpartition(".")
    return f"c{module}\n{last}\n".encode()


def text(words: str) -> bytes:
    return b"X" + struct.pack("<I", len(words)) + words.encode()


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def storage(count: int = 5, key: bytes | None = None, kind: str = "torch.FloatStorage") -> bytes:
    named = text("0") if key is None else key
    return b"(" + text("storage") + name(kind) + named + text("cpu") + number(count) + b"tQ"


TENSOR = name("torch._utils._rebuild_tensor_v2")


def tensor(held: bytes, offset: bytes, size: bytes, stride: bytes) -> bytes:
    return TENSOR + b"(" + held + offset + size + stride + b"\x89" + name("collections.OrderedDict") + b")RtR"


def sizes(*values: int) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def saved(path: Path, program: bytes, content: bytes = np.arange(5, dtype="<f4").tobytes(), how: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", how, compresslevel=1) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + program + b".")
        archive.writestr("archive/data/0", content)
    return path


def state(value: bytes) -> bytes:
    return b"}" + text("w") + value + b"s"


GOOD = state(tensor(storage(), number(0), sizes(5), sizes(1)))


def test_both_layouts(tmp_path: Path):
    arrays = {"a.weight": np.arange(6, dtype="float32").reshape(2, 3), "a.bias": np.float32([7, 8])}
    with zipfile.ZipFile(tmp_path / "new.pth", "w") as archive:
        for member, content in torch_zip(arrays).items():
            archive.writestr(member, content)
    (tmp_path / "old.pth").write_bytes(torch_file(arrays))
    for file in ("new.pth", "old.pth"):
        found = read_torch(tmp_path / file)
        assert list(found) == ["a.weight", "a.bias"]
        for key, value in arrays.items():
            np.testing.assert_array_equal(found[key], value)
            assert found[key].dtype == np.float32


def test_views_parameters_and_numbers_of_other_types(tmp_path: Path):
    parameter = name("torch._utils._rebuild_parameter") + b"("
    turned = tensor(storage(), number(1), sizes(2, 2), sizes(1, 2))
    program = b"}(" + text("turned") + parameter + turned + b"\x88" + name("collections.OrderedDict") + b")RtR"
    program += text("epoch") + number(3) + text("none") + tensor(storage(), number(0), sizes(0, 3), sizes(3, 1)) + b"u"
    found = read_torch(saved(tmp_path / "a.pth", program))
    np.testing.assert_array_equal(found["turned"], [[1, 3], [2, 4]])
    assert found["none"].shape == (0, 3)
    assert set(found) == {"turned", "none"}
    counter = state(tensor(storage(1, kind="torch.LongStorage"), number(0), sizes(), sizes()))
    assert read_torch(saved(tmp_path / "b.pth", counter, struct.pack("<q", 9)))["w"] == 9


PARAMETER = name("torch._utils._rebuild_parameter")
ATTRIBUTE = b"(N}" + text("array") + PARAMETER + b"st" + b"b"


@pytest.mark.parametrize(
    "target",
    [
        TENSOR,
        PARAMETER,
        name("collections.OrderedDict"),
        name("torch.FloatStorage"),
        storage(),
        name("collections.OrderedDict") + b")R",
        text("words"),
        b"]",
        b"}",
        b"",
    ],
)
def test_no_attribute_can_be_set(tmp_path: Path, target: bytes):
    evil = saved(tmp_path / "evil.pth", target + ATTRIBUTE + b"0" + GOOD)
    with pytest.raises(WeightsError, match=r"expected a state dict that PyTorch saved\. Received: .*evil\.pth"):
        read_torch(evil)
    np.testing.assert_array_equal(read_torch(saved(tmp_path / "good.pth", GOOD))["w"], range(5))


def test_the_notes_of_a_state_dict_are_no_attributes(tmp_path: Path):
    notes = (
        name("collections.OrderedDict") + b")R" + text("w") + tensor(storage(), number(0), sizes(5), sizes(1)) + b"s"
    )
    found = read_torch(saved(tmp_path / "a.pth", notes + b"}" + text("_metadata") + b"}sb"))
    np.testing.assert_array_equal(found["w"], range(5))


@pytest.mark.parametrize("stack", [False, True])
@pytest.mark.parametrize("function", ["builtins.print", "builtins.getattr", "os.system", "torch._utils._rebuild_x"])
def test_no_other_names(tmp_path: Path, function: str, stack: bool):
    module, _, last = function.rpartition(".")
    named = text(module) + text(last) + b"\x93" if stack else name(function)
    with pytest.raises(WeightsError, match=f"{function} is not allowed"):
        read_torch(saved(tmp_path / "a.pth", state(named + b"(" + text("x") + b"tR")))


@pytest.mark.parametrize(
    "value",
    [
        tensor(storage(), number(0), sizes(600_000_000), sizes(0)),
        tensor(storage(), number(0), sizes(2, 3), sizes(0, 1)),
        tensor(storage(), number(0), sizes(5), sizes(2)),
        tensor(storage(), number(1), sizes(5), sizes(1)),
        tensor(storage(), number(-1), sizes(2), sizes(1)),
        tensor(storage(), number(0), sizes(-2), sizes(1)),
        tensor(storage(), number(4), sizes(2), sizes(-1)),
        tensor(storage(), number(0), sizes(5), sizes(1, 1)),
        tensor(storage(), number(0), text("words"), sizes(1)),
        tensor(storage(), number(0), b"(\x88t", sizes(1)),
        tensor(storage(), number(0), b"(G" + struct.pack(">d", 2.0) + b"t", sizes(1)),
        tensor(storage(), number(0), b"(\x8a\x09" + bytes(8) + b"\x01t", sizes(0)),
        tensor(storage(), number(0), sizes(*[1] * 65), sizes(*[1] * 65)),
        tensor(text("0"), number(0), sizes(5), sizes(1)),
        tensor(storage(6), number(0), sizes(6), sizes(1)),
        tensor(storage(4), number(0), sizes(4), sizes(1)),
        tensor(storage(-5), number(0), sizes(5), sizes(1)),
        tensor(storage(5, number(0)), number(0), sizes(5), sizes(1)),
        tensor(storage(5, text("../../x")), number(0), sizes(5), sizes(1)),
        tensor(storage(kind="torch._utils._rebuild_tensor"), number(0), sizes(5), sizes(1)),
        tensor(storage(), number(0), sizes(5), sizes(1)) + b"}b",
        TENSOR + b")R",
        PARAMETER + b")R",
        PARAMETER + b"(" + PARAMETER + b"(NtRtR",
        storage(),
        TENSOR,
    ],
)
def test_what_a_tensor_says_is_held_against_its_storage(tmp_path: Path, value: bytes):
    file = saved(tmp_path / "a.pth", state(value))
    tracemalloc.start()
    with pytest.raises(WeightsError, match="expected a state dict that PyTorch saved"):
        read_torch(file)
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()


def test_storages_that_unpack_to_too_much(tmp_path: Path):
    count = 70_000_000
    program = state(tensor(storage(count), number(0), sizes(count), sizes(1)))
    file = saved(tmp_path / "a.pth", program, bytes(4 * count), zipfile.ZIP_DEFLATED)
    assert file.stat().st_size < 2_000_000
    with pytest.raises(WeightsError, match="would unpack to 280 MB"):
        read_torch(file)


@pytest.mark.parametrize(
    "program",
    [
        b"Nr\xff\xff\xff\x7f0" * 3 + b"]",
        b"X\xff\xff\xff\x7f",
        b"\x8e" + b"\xff" * 7 + b"\x7f",
        b"\x8b\xff\xff\xff\x7f",
        b"\x8a\xff" + bytes(255),
        b"]" * 300_001,
        b"(" * 300_001,
        b"\x85" * 300_001,
        b"j\x09\0\0\0",
        b"t",
        b"R",
        b"",
        b"}(]Nu",
        b"}(Nu",
        b"}()Nu",
        b"\xff",
        b"I1\n",
        b"N\x81",
    ],
)
@pytest.mark.parametrize("layout", ["new", "old"])
def test_programs_that_are_none(tmp_path: Path, program: bytes, layout: str):
    file = tmp_path / "a.pth"
    if layout == "new":
        saved(file, program)
    else:
        file.write_bytes(b"".join(pickle.dumps(v, 2) for v in (0x1950A86A20F9469CFC6C, 1001, {})) + program + b".")
    with pytest.raises(WeightsError, match="expected a state dict that PyTorch saved"):
        read_torch(file)


def test_the_memo_takes_memory_for_what_is_in_it(tmp_path: Path):
    file = saved(tmp_path / "a.pth", b"Nr\xff\xff\xff\x7f0" * 3 + GOOD)
    tracemalloc.start()
    np.testing.assert_array_equal(read_torch(file)["w"], range(5))
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_containers_come_back_as_they_were(protocol: int):
    value = {"a": [1, -2, 3.5, None, True, (), ("x",), (1, 2), (1, 2, 3), (1,) * 9], "ü" * 300: {3: 2**900}}
    if protocol > 2:  # which has no bytes: it calls _codecs.encode
        value["b"] = b"b" * 300
    file = io.BytesIO(pickle.dumps(value, protocol) + b"rest")
    assert pickled.load(file, ()) == value
    assert file.read() == b"rest"
