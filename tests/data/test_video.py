import numpy as np
import pytest

from kerasmodels.data.video import is_video, restyle_video
from kerasmodels.errors import DataError, StorageError

# imageio leaves the pipes of a finished ffmpeg to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")

imageio = pytest.importorskip("imageio.v2", reason="the `video` extra is not installed")


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "in.mp4"
    with imageio.get_writer(path, "ffmpeg", fps=10, macro_block_size=1) as writer:
        for i in range(7):
            writer.append_data(np.full((48, 64, 3), 30 * i, "uint8"))
    return path


def test_every_frame_is_redone_at_the_same_speed(video, tmp_path):
    target = tmp_path / "out" / "b.mp4"
    assert restyle_video(video, target, lambda frame: 255 - frame) == 7
    with imageio.get_reader(target, "ffmpeg") as reader:
        assert reader.get_meta_data()["fps"] == 10
        frames = np.stack([frame for frame in reader])  # list() would ask for an infinite length
    assert frames.shape == (7, 48, 64, 3)
    assert np.abs(frames.mean((1, 2, 3)) - (255 - 30 * np.arange(7))).max() < 6
    assert [p.name for p in target.parent.iterdir()] == ["b.mp4"]


def test_odd_sizes_lose_a_row(tmp_path, video):
    target = tmp_path / "b.mp4"
    restyle_video(video, target, lambda frame: frame[:47, :63])
    with imageio.get_reader(target, "ffmpeg") as reader:
        assert reader.get_meta_data()["size"] == (62, 46)


def test_a_text_named_mp4(tmp_path):
    (tmp_path / "a.mp4").write_text("Dear diary")
    with pytest.raises(DataError, match="cannot be read as a video"):
        restyle_video(tmp_path / "a.mp4", tmp_path / "b.mp4", lambda frame: frame)
    assert not (tmp_path / "b.mp4").exists()


def test_a_playlist_named_mp4(video, tmp_path):
    """ffmpeg would open the files, and the addresses, that it names."""
    for name, text in (
        ("hls.mp4", f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{video}\n#EXT-X-ENDLIST\n"),
        ("list.mkv", f"ffconcat version 1.0\nfile {video.name}\n"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(DataError, match="cannot be read as a video"):
            restyle_video(tmp_path / name, tmp_path / "b.mp4", lambda frame: frame)


def test_a_failing_frame_leaves_nothing(video, tmp_path):
    def fail(frame):
        raise StorageError("cannot write it.")

    with pytest.raises(StorageError):
        restyle_video(video, tmp_path / "b.mp4", fail)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mp4"]


def test_names():
    assert is_video("a/B.MP4")
    assert not is_video("a/b.png")
