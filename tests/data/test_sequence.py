"""The first box of one sequence is that of its layout's own reader, whatever the frame."""

import numpy as np
import pytest

from jaxtrack.data import layouts
from jaxtrack.data.readers.sequence import first_box
from jaxtrack.errors import JaxtrackError
from tests import data_fixtures as fx

WRITERS = {
    "otb": (fx.write_otb, None, "{name}"),
    "got10k": (fx.write_got10k, "train", "train/{name}"),
    "lasot": (fx.write_lasot, "full", "airplane/{name}"),
    "vot2018": (fx.write_vot, "test", "{name}"),
    "custom": (fx.write_custom, "all", "{name}"),
}


@pytest.mark.parametrize("dataset", WRITERS)
def test_the_box_is_that_of_the_layout(tmp_path, dataset):
    writer, split, place = WRITERS[dataset]
    writer(tmp_path)
    checked = 0
    for record in layouts.read_truth(dataset, tmp_path, split or "test"):
        path = tmp_path / place.format(name=record.name)
        path = path if path.is_dir() else path.with_name(f"{path.name}.txt")
        for frame in range(len(record)):
            if record.usable[frame]:
                box, note = first_box(path, frame)
                np.testing.assert_array_equal(box, record.boxes[frame])
                assert note.endswith(f"from {record.origin}")
                checked += 1
            else:
                with pytest.raises(JaxtrackError, match=r"not there|only some frames"):
                    first_box(path, frame)
    assert checked > 3


def test_an_annotation_may_begin_later_than_its_video(tmp_path):
    """David has 770 images and rows for 300 to 770."""
    frames, boxes = fx.clip(0, 770)
    fx.write_frames(tmp_path / "David/img", frames, "{:04d}.jpg")
    (tmp_path / "David/groundtruth_rect.txt").write_text(fx.table(boxes[299:], ",", 1))
    box, _ = first_box(tmp_path / "David", 299)
    np.testing.assert_allclose(box, boxes[299], atol=1e-3)
    with pytest.raises(JaxtrackError, match="471 rows, from frame 299 on, none for frame 0"):
        first_box(tmp_path / "David", 0)


def test_lines_of_the_custom_layout_are_read_without_their_video(tmp_path):
    file = tmp_path / "dog.txt"
    file.write_text("absent\n1,2,3,4\n")
    np.testing.assert_array_equal(first_box(file, 1)[0], [1, 2, 3, 4])
    with pytest.raises(JaxtrackError, match=r"dog\.txt line 1: the target is not there in frame 0"):
        first_box(file, 0)
    file.write_text("0,5,6,7,8\n10,1,2,3,4\n20,absent\n")
    np.testing.assert_array_equal(first_box(file, 10)[0], [1, 2, 3, 4])
    with pytest.raises(JaxtrackError, match="only some frames are annotated, and frame 4 is not"):
        first_box(file, 4)
    with pytest.raises(JaxtrackError, match="the target is not there in frame 20"):
        first_box(file, 20)
